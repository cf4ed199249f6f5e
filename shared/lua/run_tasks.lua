-- run_tasks: the tasks of a run, a packed field each, and which of a task's facts comes later.

local PACKED = string.rep('(%S+) ', 10) .. '(%S+)'

local function is_alive(task) -- an execution is at work, as far as is known
  return task.phase == 'open' and task.rank == 2 and task.nonce ~= '-' and task.suspect == '-'
end

local function is_handed_over(task) -- its execution is over, and others do its work under its id
  return task.phase == 'open' and task.rank == 2 and task.nonce == '-'
end

local function load_task(id, text)
  text = text or get('task:' .. id)
  if text == '' then text = '0 0 0 new - 0 0 0 0 - 0' end
  local nesting, retries, rank, phase, nonce, executions, twin, late, grace, suspect, deadline =
    string.match(text, PACKED)
  local task = {id = id, phase = phase, nonce = nonce, suspect = suspect,
    nesting = tonumber(nesting), retries = tonumber(retries), rank = tonumber(rank),
    executions = tonumber(executions), twin = tonumber(twin), late = tonumber(late),
    grace = tonumber(grace), deadline = tonumber(deadline)}
  task.was_open, task.was_alive = task.phase == 'open', is_alive(task)
  return task
end

local function count(field, was, is)
  if was ~= is then add(field, is and 1 or -1) end
end

local function save_task(task)
  set('task:' .. task.id, string.format('%.0f %.0f %.0f %s %s %.0f %.0f %.0f %.0f %s %.0f',
    task.nesting, task.retries, task.rank, task.phase, task.nonce, task.executions, task.twin,
    task.late, task.grace, task.suspect, task.deadline))
  local is_open, alive = task.phase == 'open', is_alive(task)
  count('open', task.was_open, is_open)
  count('alive', task.was_alive, alive)
  task.was_open, task.was_alive = is_open, alive
end

local function compare(a, b) -- two keys, each {nesting, retries, rank}
  for i = 1, #a do
    if a[i] ~= b[i] then return a[i] < b[i] and -1 or 1 end
  end
  return 0
end

local function each_task(visit)
  save()
  local all = redis.call('HGETALL', KEY_RUN)
  for i = 1, #all, 2 do
    local id = string.match(all[i], '^task:(.+)$')
    if id then visit(load_task(id, all[i + 1])) end
  end
end

local function is_spent(task) -- it is not executed again, however often its message comes
  return task.executions - task.retries >= MAX_DELIVERIES
end

local function when_due(eta_ms) -- how long a message may wait
  return math.max(now, tonumber(eta_ms) or 0) + QUEUE_MS
end
