-- run_facts: what is reported of a task, each a function of the task's record.

local facts, due, names = {}, -1, {}

local function is_current(task) return f.nonce == '' or f.nonce == task.nonce end

local function is_outdated(task) -- told of an attempt that has been replaced; '' is of the latest
  return f.retries ~= '' and compare({tonumber(f.nesting), tonumber(f.retries)}, {task.nesting, task.retries}) < 0
end

local function take_reports()
  if #ARGV == cut then return end
  for i = cut + 1, #ARGV, 8 do report(f.task, unpack(ARGV, i, i + 7)) end
  recount()
  if get('shown') ~= shown() then set('dirty', '1') end
end

local function place(key, task) -- before, at or after what is known of the task: -1, 0 or 1
  if is_handed_over(task) and key[1] == task.nesting then return -1 end
  return compare(key, {task.nesting, task.retries, task.rank})
end

local function move(task, key)
  if key[1] > task.nesting then -- replaced: counted as a task of its own
    task.executions, task.twin = 0, 0
  end
  task.nesting, task.retries, task.rank = key[1], key[2], key[3]
end

local function may_be_at_work(task) -- nobody who was sure of it has told of its end
  return is_alive(task) or task.suspect == 'unheard' or task.suspect == 'doubt'
end

local function has_lease(task)
  return (is_alive(task) or task.suspect == 'doubt') and task.deadline > now
end

-- The worker's main process knows no nonce, and not always the attempt.
local function may_be_earlier(task) -- than the latest attempt
  return f.retries == '' and task.retries + task.nesting > 0
end

local function may_be_another(task) -- than the execution at work
  return f.nonce == '' and task.rank == 2 and (task.twin == 1 or may_be_earlier(task))
end

function facts.sent(task) -- its message is about to be published: the first, or a retry's
  local key = {tonumber(f.nesting), tonumber(f.retries), 0}
  if task.phase ~= 'new' and place(key, task) <= 0 then return 'stale' end
  move(task, key)
  task.phase, task.nonce, task.suspect, task.deadline = 'open', '-', '-', when_due(f.eta_ms)
  save_task(task)
  return 'ok'
end

function facts.started(task)
  local key = {tonumber(f.nesting), tonumber(f.retries), 2}
  if f.nonce == task.nonce then return 'ok' end -- again, since the first reply was lost
  local order = place(key, task)
  if order < 0 then return 'stale' end
  if order == 0 and is_spent(task) and has_lease(task) then return 'stale' end -- let it get done
  if order == 0 and may_be_at_work(task) then task.twin = 1 end
  move(task, key)
  local again = task.executions > 0
  task.phase, task.nonce, task.executions, task.suspect = 'open', f.nonce, task.executions + 1, '-'
  task.late, task.grace, task.deadline = tonumber(f.late), tonumber(f.grace_ms), now + LEASE_MS
  save_task(task)
  drop('error:' .. f.task)
  set('lease_ms', int(now + LEASE_MS), 'worker', f.worker)
  if task.executions - task.retries > MAX_DELIVERIES then
    return fail_with('poison', 'This source made its worker crash again and again.') and 'closed'
  end
  if get('stages') == '' and f.stages ~= '' then set('stages', f.stages) end
  if get('planned') == '1' then take_part(f.task, f.stages) end
  if get('started_ms') == '' then set('started_ms', int(now)) end
  if again then forget_shares(f.task) end
  local status, attempt = get('status'), num('attempt')
  if task.executions > attempt then set('attempt', int(task.executions), 'percent', '0') end
  if status ~= 'running' or task.executions > attempt then
    set('status', 'running', 'eta', '', 'reason', '', 'error', '')
    if num('open') == 1 then -- it begins again, and is in no stage yet
      set('stage', '', 'done', '', 'total', '', 'unit', '', 'note', '', 'dirty', '')
    end
    recount()
    if get('dirty') ~= '1' then set('shown', shown()) end
    emit('started', ',"percent":' .. int(num('percent')))
  end
  return 'ok'
end

function facts.progress(task)
  if not is_current(task) then return 'stale' end
  take_reports()
  if task.suspect ~= '-' then drop('error:' .. f.task) end
  task.deadline, task.suspect = now + LEASE_MS, '-'
  save_task(task)
  set('lease_ms', int(now + LEASE_MS))
  local back = get('status') == 'stalled'
  if back then set('status', 'running', 'reason', '') end
  due = show(back)
  return 'ok'
end

local function finish(task) -- the task has done its share
  task.phase, task.suspect = 'done', '-'
  save_task(task)
  for _, stage in ipairs(stages()) do
    local share, of = get('part:' .. f.task .. ':' .. stage[1]), num('parts:' .. stage[1])
    if share ~= '' then contribute(f.task, stage[1], MILLION) end
    -- Shown where the task has never said anything of it, or where it is being counted.
    if of > 0 and (share == '0' or (share ~= '' and of > 1 and get('stage') == stage[1])) then
      set('stage', stage[1], 'done', int(math.min(of, num('finished:' .. stage[1]))), 'total', int(of),
        'unit', get('unit:' .. stage[1]))
    end
  end
  recount()
end

local function is_last(id) -- of those that the run waits for
  if not drop('final:' .. id) then return false end
  add('finals', -1)
  return num('finals') == 0 and get('forgotten') == ''
end

function facts.succeeded(task)
  if not is_current(task) then return 'stale' end
  take_reports()
  finish(task)
  local ends, back = is_last(f.task), get('status') == 'stalled'
  if back and not ends then set('status', 'running', 'reason', '') end
  due = show(back and not ends)
  if ends then
    if f.result ~= '' then set('result', '{' .. string.sub(f.result, 2) .. '}') end
    close('completed', f.result)
  end
  return 'ok'
end

function facts.passed(task) -- one of Celery's own that only sends the next is over
  task.phase = 'done'
  save_task(task)
  return 'ok'
end

function facts.failed(task)
  if not is_current(task) then return 'stale' end
  take_reports()
  if f.nonce == '' and has_lease(task) then return doubt(task) end
  return fail(f.error, f.details)
end

function facts.lost(task) -- the worker's main process saw an execution end without its own word
  if is_outdated(task) or is_handed_over(task) then return 'stale' end
  local rejected, comes_again = f.rejected == '1', f.comes_again == '1'
  if task.rank < 2 and may_be_earlier(task) and not rejected then return 'ok' end
  if rejected or not comes_again then
    local doubtful = may_be_another(task) or (rejected and may_be_at_work(task))
    return doubtful and doubt(task) or fail(f.error, f.details)
  end
  set('error:' .. f.task, f.error)
  return suspect(task, 'worker_lost', tonumber(f.grace_ms))
end

function facts.interrupted(task) -- the execution ended without a result
  if not is_current(task) or is_outdated(task) or is_handed_over(task) then return 'stale' end
  take_reports()
  if task.rank < 2 and may_be_earlier(task) then return 'ok' end
  if f.comes_again ~= '1' and may_be_another(task) then return doubt(task) end
  set('error:' .. f.task, f.error)
  return suspect(task, 'interrupted', f.comes_again == '1' and tonumber(f.grace_ms) or SETTLE_MS)
end

function facts.retrying(task)
  local key = {tonumber(f.nesting), tonumber(f.retries) + 1, 1}
  if place(key, task) <= 0 then return 'stale' end
  move(task, key)
  task.phase, task.nonce, task.suspect, task.deadline = 'open', '-', '-', when_due(f.eta_ms)
  save_task(task)
  take_reports()
  if num('open') > 1 then -- the others go on, and so does the run
    due = show(false)
    return 'ok'
  end
  if get('dirty') == '1' then show(true) end
  local attempts = f.attempts == '' and 'null' or f.attempts
  set('status', 'retrying', 'attempts', attempts, 'eta', f.eta, 'error', f.error, 'reason', '')
  emit('retrying', ',"percent":' .. int(num('percent')) .. ',"attempts":' .. attempts
    .. ',"eta":' .. f.eta .. ',"error":' .. f.error)
  return 'ok'
end

function facts.handed_over(task) -- the execution replaced itself by a canvas under its own id
  if not is_current(task) then return 'stale' end
  take_reports()
  due = show(false)
  task.nonce, task.suspect, task.deadline = '-', '-', now + QUEUE_MS
  save_task(task)
  return 'ok'
end

function facts.revoked(task)
  if f.expired == '1' then -- of a message that came again, that is no news of who is at work
    if is_outdated(task) or is_alive(task) or is_handed_over(task) then return 'stale' end
    return fail_with('expired', 'This source waited too long and was not processed.', true)
  end
  cancel('revoked')
  return 'ok'
end

function facts.cancel() -- returns the tasks that are not done
  each_task(function(task)
    if task.phase == 'open' then names[#names + 1] = task.id end
  end)
  cancel('cancelled')
  return 'ok'
end
