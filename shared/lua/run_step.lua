-- run_step: one fact about a run: guard, change its state, append the event. The only writer of runs.
-- include: append_entry
-- KEYS  1 run hash  2 user stream  3 sources (zset)  4 latest (hash)
-- ARGV  1 channel  2 PUBLISH|SPUBLISH  3 maxlen  4 stream ttl ms  5 state ttl ms  6 lease ms
--       7 queue timeout ms  8 most deliveries  9 redelivery grace ms  10 ts (ISO 8601)
--       11 prefix of run keys  12 run id  13 fact  14 number of its fields  then name, value, ...
--       then progress reports, six values each: stage, parts, done, total, unit, complete
-- Text that goes into events (head, stage, unit, error, result) arrives as JSON and is spliced.
-- Returns {verdict, status, due in ms or -1, next deadline ms or -1, cursor, ended}:
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

local KEY_RUN, PROGRESS_EVERY_MS, MILLION, SETTLE_MS = KEYS[1], 250, 1000000, 5000
local STATE_TTL_MS, LEASE_MS, QUEUE_MS = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local MAX_DELIVERIES, GRACE_MS = tonumber(ARGV[8]), tonumber(ARGV[9])
local TS, RUN_PREFIX, RUN_ID, FACT = ARGV[10], ARGV[11], ARGV[12], ARGV[13]
local TERMINAL = {completed = true, failed = true, cancelled = true}
local to = {stream = KEYS[2], channel = ARGV[1], publish = ARGV[2], maxlen = ARGV[3],
  ttl_ms = ARGV[4]}

local f, cut = {}, 14 + 2 * tonumber(ARGV[14])
for i = 15, cut, 2 do f[ARGV[i]] = ARGV[i + 1] end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local cursor = last_id(to.stream)

local function int(n) return string.format('%.0f', n) end
local function get(field, run) return redis.call('HGET', run or KEY_RUN, field) or '' end
local function num(field, run) return tonumber(get(field, run)) or 0 end
local function set(...) redis.call('HSET', KEY_RUN, ...) end

local function emit(kind, extra, run)
  run = run or KEY_RUN
  redis.call('HSET', run, 'updated_ms', int(now))
  append_entry(to, '', '{"type":"source.ingest.' .. kind .. '","ts":"' .. TS .. '",'
    .. get('head', run) .. ',"attempt":' .. int(num('attempt', run)) .. extra .. '}}')
end

-- ---- progress ----------------------------------------------------------------------------------

local function stages() -- {{stage, weight}, ...} in the order of their first mention
  local list = {}
  for line in string.gmatch(get('stages'), '[^\n]+') do
    local weight, stage = string.match(line, '^(%S+) (.+)$')
    list[#list + 1] = {stage, tonumber(weight)}
  end
  return list
end

local function mention(stage)
  for _, known in ipairs(stages()) do
    if known[1] == stage then return end
  end
  set('stages', get('stages') .. '1 ' .. stage .. '\n')
end

local function contribute(task, stage, share)
  local field = 'part:' .. task .. ':' .. stage
  local old = num(field)
  if share == old then return end
  set(field, int(share))
  redis.call('HINCRBY', KEY_RUN, 'sum:' .. stage, int(share - old))
  local finished = (share == MILLION and 1 or 0) - (old == MILLION and 1 or 0)
  if finished ~= 0 then redis.call('HINCRBY', KEY_RUN, 'finished:' .. stage, finished) end
end

local function forget_shares(task) -- a new attempt starts its stages again
  for _, stage in ipairs(stages()) do contribute(task, stage[1], 0) end
end

local function report(task, stage, parts, done, total, unit, complete)
  mention(stage)
  set('stage', stage)
  if parts ~= '' then
    set('parts:' .. stage, parts, 'unit:' .. stage, unit)
  else
    local share = complete == '1' and MILLION or 0
    if share == 0 and (tonumber(total) or 0) > 0 then
      share = math.floor(math.min(1, tonumber(done) / tonumber(total)) * MILLION)
    end
    contribute(task, stage, share)
  end
  local of = num('parts:' .. stage)
  if of > 1 then
    set('done', int(math.min(of, num('finished:' .. stage))), 'total', int(of), 'unit', get('unit:' .. stage))
  elseif parts == '' then
    set('done', done, 'total', total, 'unit', unit)
  else
    set('done', '0', 'total', parts, 'unit', unit)
  end
end

local function recount() -- the overall percent: stages by weight, never down within an attempt
  local sum, weights = 0, 0
  for _, stage in ipairs(stages()) do
    local of = math.max(1, num('parts:' .. stage[1]))
    sum = sum + stage[2] * math.min(1, num('sum:' .. stage[1]) / (MILLION * of))
    weights = weights + stage[2]
  end
  local percent = weights > 0 and math.floor(100 * sum / weights + 1e-6) or 0
  set('percent', int(math.max(num('percent'), math.min(99, percent))))
end

local function shown()
  local function or_null(field)
    local value = get(field)
    return value == '' and 'null' or value
  end
  return ',"stage":' .. or_null('stage') .. ',"done":' .. or_null('done') .. ',"total":'
    .. or_null('total') .. ',"unit":' .. or_null('unit') .. ',"percent":' .. int(num('percent'))
end

local function show(at_once) -- emits progress if something visible changed and its time has come
  local text = shown()
  if not at_once and (get('shown') == text or get('stage') == '') then
    set('dirty', '')
    return -1
  end
  local due = num('progress_ms') + PROGRESS_EVERY_MS - now
  if due > 0 and not at_once then
    set('dirty', '1')
    return due
  end
  set('shown', text, 'dirty', '', 'progress_ms', int(now))
  emit('progress', text)
  return -1
end

-- ---- tasks -------------------------------------------------------------------------------------

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

-- ---- the end -----------------------------------------------------------------------------------

local ended = ''

local function close(status, extra, run)
  run = run or KEY_RUN
  if run == KEY_RUN and get('dirty') == '1' then show(true) end
  local since = num('started_ms', run)
  if since == 0 then since = num('accepted_ms', run) end
  local percent = status == 'completed' and 100 or num('percent', run)
  local seconds = string.format('%.3f', math.max(0, now - since) / 1000)
  redis.call('HSET', run, 'status', status, 'percent', int(percent), 'seconds', seconds)
  emit(status, ',"percent":' .. int(percent) .. ',"seconds":' .. seconds .. extra, run)
  redis.call('PEXPIRE', run, STATE_TTL_MS)
  if run == KEY_RUN then ended = '1' end
end

local function forget_parts(run) -- of an ended run only what a list shows is kept
  for _, field in ipairs(redis.call('HKEYS', run)) do
    if string.find(field, ':', 1, true) then redis.call('HDEL', run, field) end
  end
end

local function cancel(reason, run)
  redis.call('HSET', run or KEY_RUN, 'reason', '"' .. reason .. '"')
  close('cancelled', ',"reason":"' .. reason .. '"', run)
end

local function fail(error, details)
  set('error', error)
  if details and details ~= '' then set('result', '{' .. string.sub(details, 2) .. '}') end
  close('failed', ',"error":' .. error .. (details or ''))
  return 'ok'
end

local function fail_with(code, message, retryable)
  return fail('{"code":"' .. code .. '","message":"' .. message .. '","retryable":'
    .. (retryable and 'true' or 'false') .. '}')
end

local function suspect(id, task, reason, grace)
  task.suspect = reason
  local deadline = now + grace
  if task.rank < 2 then deadline = math.max(deadline, task.deadline) end
  task.deadline = deadline
  save_task(id, task)
  if grace > SETTLE_MS and get('status') ~= 'stalled' then
    set('status', 'stalled', 'reason', '"' .. reason .. '"')
    emit('stalled', ',"percent":' .. int(num('percent')) .. ',"reason":"' .. reason .. '"')
  end
end

-- ---- facts -------------------------------------------------------------------------------------

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

-- ---- the step ----------------------------------------------------------------------------------

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

local verdict, deadline = step(), -1
if FACT == 'lapsed' and ended == '' and verdict == 'ok' then
  each_task(function(_, task)
    if task.phase == 'open' and (deadline < 0 or task.deadline < deadline) then
      deadline = task.deadline
    end
  end)
end
if ended == '1' then forget_parts(KEY_RUN) end
return {verdict, get('status'), due, int(deadline), cursor, ended}
