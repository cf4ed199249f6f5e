-- run_step: one fact about a run: guard, change its state, append the event. The only writer of runs.
-- include: append_entry
-- include: run_state
-- include: run_progress
-- include: run_tasks
-- include: run_end
-- KEYS  1 run hash  2 user stream  3 sources (zset)  4 latest (hash)
-- ARGV  1 channel  2 PUBLISH|SPUBLISH, '' for no events  3 maxlen  4 stream ttl ms
--       5 state ttl ms  6 lease ms
--       7 queue timeout ms  8 most deliveries  9 redelivery grace ms  10 ts (ISO 8601)
--       11 prefix of run keys  12 run id  13 fact  14 number of its fields  then name, value, ...
--       then progress reports, six values each: stage, parts, done, total, unit, complete
-- Text that goes into events (head, stage, unit, error, result) arrives as JSON and is spliced.
-- Returns {verdict, status, due in ms or -1, cursor, ended}:
--   verdict  ok | closed | duplicate | stale | missing
--   due      when a progress event that was held back may go out
--   cursor   the stream's last id from before this step; of 'accepted', from before the first one
--   ended    '1' when this step ended the run
--
-- Run hash: source head name status attempt percent stage done total unit stages accepted_ms
--   started_ms updated_ms progress_ms dirty shown finals cursor seconds eta reason error result
--   task:<id>            nesting retries rank phase nonce executions lost timeout suspect deadline
--   sum:<stage> parts:<stage> finished:<stage> unit:<stage>     what its tasks have reported
--   part:<task>:<stage>  that task's share of the stage, in millionths
-- A task's key (nesting, retries, rank) only grows: nesting counts replacements by Task.replace,
-- rank is waiting 0, retrying 1, started 2. A nonce names one execution and fences the others.

local function expect(id) -- a final task, from its acceptance on
  local task = load_task('')
  task.deadline = now + QUEUE_MS
  save_task(id, task)
end

local function without(lines, id) -- the lines but that one, and whether it was there
  local kept, found = '', false
  for line in string.gmatch(lines, '[^\n]+') do
    if line == id then found = true else kept = kept .. line .. '\n' end
  end
  return kept, found
end

local function create()
  set('source', f.source, 'head', f.head, 'name', f.name, 'status', 'queued',
    'finals', f.final .. '\n', 'attempt', '0', 'percent', '0',
    'cursor', cursor, 'accepted_ms', int(now), 'stages', '')
  local other = get(f.source, KEYS[4])
  local other_run = RUN_PREFIX .. other
  if other ~= '' and other ~= RUN_ID then
    local status = get('status', other_run)
    if status ~= '' and not TERMINAL[status] then
      cancel('superseded', other_run)
      forget_parts(other_run)
    end
  end
  redis.call('HSET', KEYS[4], f.source, RUN_ID)
  redis.call('ZADD', KEYS[3], int(now), f.source)
  local expired = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', int(now - STATE_TTL_MS), 'LIMIT', 0, 100)
  for _, source in ipairs(expired) do
    if redis.call('EXISTS', RUN_PREFIX .. get(source, KEYS[4])) == 0 then
      redis.call('ZREM', KEYS[3], source)
      redis.call('HDEL', KEYS[4], source)
    end
  end
  expect(f.final)
  emit('queued', ',"percent":0')
end

local facts, due = {}, -1

function facts.started(task)
  local key = {tonumber(f.nesting), tonumber(f.retries), 2}
  if f.nonce == task.nonce then return 'ok' end -- again, since the first reply was lost
  local order = compare(key, {task.nesting, task.retries, task.rank})
  if order < 0 then return 'stale' end
  if key[1] > task.nesting then task.executions = 0 end -- replaced: counted as a task of its own
  local again = task.executions > 0
  task.nesting, task.retries, task.rank = key[1], key[2], key[3]
  task.nonce, task.executions, task.suspect = f.nonce, task.executions + 1, '-'
  task.lost, task.timeout = tonumber(f.lost), tonumber(f.timeout)
  task.deadline = now + LEASE_MS
  save_task(f.task, task)
  if task.executions - task.retries > MAX_DELIVERIES then
    return fail_with('poison', 'This source made its worker crash again and again.') and 'closed'
  end
  if get('stages') == '' and f.stages ~= '' then set('stages', f.stages) end
  if get('started_ms') == '' then set('started_ms', int(now)) end
  if again then forget_shares(f.task) end
  local status, attempt = get('status'), num('attempt')
  if task.executions > attempt then set('attempt', int(task.executions), 'percent', '0') end
  if status ~= 'running' or task.executions > attempt then
    set('status', 'running', 'eta', '', 'reason', '', 'error', '')
    recount()
    emit('started', ',"percent":' .. int(num('percent')))
  end
  return 'ok'
end

local function is_current(task) return f.nonce == '' or f.nonce == task.nonce end

local function take_reports()
  if #ARGV == cut then return end
  for i = cut + 1, #ARGV, 6 do
    report(f.task, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5])
  end
  recount()
  if get('shown') ~= shown() then set('dirty', '1') end
end

function facts.progress(task)
  if not is_current(task) then return 'stale' end
  take_reports()
  task.deadline, task.suspect = now + LEASE_MS, '-'
  save_task(f.task, task)
  local back = get('status') == 'stalled'
  if back then set('status', 'running', 'reason', '') end
  due = show(back)
  return 'ok'
end

function facts.succeeded(task)
  if not is_current(task) then return 'stale' end
  take_reports()
  task.phase, task.suspect = 'done', '-'
  save_task(f.task, task)
  for _, stage in ipairs(stages()) do
    if redis.call('HEXISTS', KEY_RUN, 'part:' .. f.task .. ':' .. stage[1]) == 1 then
      contribute(f.task, stage[1], MILLION)
      local of = num('parts:' .. stage[1])
      if of > 1 and get('stage') == stage[1] then
        set('done', int(math.min(of, num('finished:' .. stage[1]))))
      end
    end
  end
  recount()
  if get('status') == 'stalled' then set('status', 'running', 'reason', '') end
  due = show(false)
  local finals, was_final = without(get('finals'), f.task)
  set('finals', finals)
  if was_final and finals == '' then
    if f.result ~= '' then set('result', '{' .. string.sub(f.result, 2) .. '}') end
    close('completed', f.result)
  end
  return 'ok'
end

function facts.failed(task)
  if not is_current(task) then return 'stale' end
  take_reports()
  return fail(f.error, f.details)
end

function facts.lost(task) -- the worker's main process saw an execution end without its own word
  local may_come_again = task.rank < 2 or task[f.cause] == 1
  if f.cause == 'rejected' or not may_come_again then return fail(f.error, f.details) end
  suspect(f.task, task, 'worker_lost', GRACE_MS)
  return 'ok'
end

function facts.interrupted(task) -- the execution ended without a result
  if not is_current(task) then return 'stale' end
  take_reports()
  local comes_again = f.comes_again == '1' and task.lost == 1
  suspect(f.task, task, 'interrupted', comes_again and GRACE_MS or SETTLE_MS)
  return 'ok'
end

function facts.retrying(task)
  local retries = tonumber(f.retries) + 1
  if compare({tonumber(f.nesting), retries, 1}, {task.nesting, task.retries, task.rank}) <= 0 then
    return 'stale'
  end
  task.nesting, task.retries, task.rank, task.nonce = tonumber(f.nesting), retries, 1, '-'
  task.suspect, task.deadline = '-', math.max(now, tonumber(f.eta_ms) or 0) + QUEUE_MS
  save_task(f.task, task)
  take_reports()
  if get('dirty') == '1' then show(true) end
  set('status', 'retrying', 'eta', f.eta, 'error', f.error)
  emit('retrying', ',"percent":' .. int(num('percent')) .. ',"eta":' .. f.eta .. ',"error":' .. f.error)
  return 'ok'
end

function facts.handed_over(task) -- the execution replaced itself by a canvas under its own id
  if not is_current(task) then return 'stale' end
  take_reports()
  due = show(false)
  task.nonce, task.deadline = '-', now + QUEUE_MS
  save_task(f.task, task)
  return 'ok'
end

function facts.revoked()
  if f.expired == '1' then
    return fail_with('expired', 'This source waited too long and was not processed.', true)
  end
  cancel('revoked')
  return 'ok'
end

local function lapse(id, task)
  if task.rank == 2 and task.nonce ~= '-' and task.suspect == '-' and task.lost == 1 then
    suspect(id, task, 'worker_lost', GRACE_MS)
  elseif task.rank == 2 and task.nonce == '-' and task.suspect == '-' then
    fail_with('chain_broken', 'A later step of this source never ran. Please try again.', true)
  elseif task.rank == 2 then
    fail_with('worker_lost', 'Processing stopped unexpectedly. Please try again.', true)
  else
    fail_with('never_started', 'This source waited too long and was not processed.', true)
  end
end

local function step()
  local status = get('status')
  if FACT == 'accepted' then
    if status == '' then
      create()
      return 'ok'
    end
    local _, known = without(get('finals'), f.final)
    if not TERMINAL[status] and not known and get('task:' .. f.final) == '' then
      set('finals', get('finals') .. f.final .. '\n')
      expect(f.final)
    end
    cursor = get('cursor')
    return 'duplicate'
  end
  if status == '' then
    if FACT ~= 'started' and FACT ~= 'retrying' then return 'missing' end
    create()
  elseif TERMINAL[status] then
    return 'closed'
  end
  if FACT == 'lapsed' then
    each_task(function(id, task)
      if ended == '' and task.phase == 'open' and task.deadline <= now then lapse(id, task) end
    end)
    return 'ok'
  end
  if FACT == 'flush' then
    due = show(false)
    return 'ok'
  end
  local task = load_task(get('task:' .. f.task))
  if task.phase == 'done' then return 'duplicate' end
  return facts[FACT](task)
end

local verdict = step()
if ended == '1' then forget_parts(KEY_RUN) end
return {verdict, get('status'), due, cursor, ended}
