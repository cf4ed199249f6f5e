-- run_end: the ways in which a run ends or is suspected to, each with its event.

local ended = ''

local function close(status, extra, run) -- this run, or another
  if not run and get('dirty') == '1' then show(true) end
  local since = num('started_ms', run)
  if since == 0 then since = num('accepted_ms', run) end
  local percent = status == 'completed' and 100 or num('percent', run)
  local seconds = string.format('%.3f', math.max(0, now - since) / 1000)
  put(run, 'status', status, 'percent', int(percent), 'seconds', seconds, 'eta', '')
  if status ~= 'failed' then put(run, 'error', '') end
  if status ~= 'cancelled' then put(run, 'reason', '') end
  emit(status, ',"percent":' .. int(percent) .. ',"seconds":' .. seconds .. extra, run)
  if not run then ended = '1' end
end

local function retire(run) -- of an ended run only what a list shows is kept, and for some time
  local parts = {}
  for _, field in ipairs(redis.call('HKEYS', run)) do
    if string.find(field, ':', 1, true) then parts[#parts + 1] = field end
  end
  in_slices(parts, function(...) redis.call('HDEL', run, ...) end)
  redis.call('PEXPIRE', run, STATE_TTL_MS)
end

local function cancel(reason, run)
  put(run, 'reason', '"' .. reason .. '"')
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

local function stall(reason)
  if get('status') == 'stalled' then return end
  if get('dirty') == '1' then show(true) end -- after it progress would say that work goes on
  set('status', 'stalled', 'reason', '"' .. reason .. '"')
  emit('stalled', ',"percent":' .. int(num('percent')) .. ',"reason":"' .. reason .. '"')
end

-- It may come again: `grace` says for how long it is waited for. A run in which others are at
-- work goes on; what can't come again is settled soon, and in silence.
local function suspect(task, reason, grace, why)
  if is_spent(task) then grace = math.min(grace, SETTLE_MS) end
  task.phase, task.suspect, task.deadline = 'open', why or reason, now + grace
  save_task(task)
  if grace > SETTLE_MS and num('alive') == 0 then stall(reason) end
  return 'ok'
end

-- It may be another execution that ended: the one at work has a lease's time to say so, and one
-- that comes again as long as before.
local function doubt(task)
  set('error:' .. task.id, f.error)
  if task.suspect == '-' or task.suspect == 'doubt' then
    task.suspect, task.deadline = 'doubt', now + LEASE_MS
  end
  save_task(task)
  return 'ok'
end
