-- run_tasks: the tasks of a run, a packed field each, and which of a task's facts comes later.

local TASK_FIELDS = {'nesting', 'retries', 'rank', 'phase', 'nonce', 'executions', 'lost',
  'timeout', 'suspect', 'deadline'}
local TASK_TEXT = {phase = true, nonce = true, suspect = true}

local function load_task(text)
  if text == '' then text = '0 0 0 open - 0 0 0 - 0' end
  local task, i = {}, 1
  for word in string.gmatch(text, '%S+') do
    local name = TASK_FIELDS[i]
    task[name], i = TASK_TEXT[name] and word or tonumber(word), i + 1
  end
  return task
end

local function save_task(id, task)
  local words = {}
  for i, name in ipairs(TASK_FIELDS) do
    words[i] = TASK_TEXT[name] and task[name] or int(task[name])
  end
  set('task:' .. id, table.concat(words, ' '))
end

local function compare(a, b) -- two keys, each {nesting, retries, rank}
  for i = 1, 3 do
    if a[i] ~= b[i] then return a[i] < b[i] and -1 or 1 end
  end
  return 0
end

local function each_task(visit)
  local all = redis.call('HGETALL', KEY_RUN)
  for i = 1, #all, 2 do
    local id = string.match(all[i], '^task:(.+)$')
    if id then visit(id, load_task(all[i + 1])) end
  end
end
