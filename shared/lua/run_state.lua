-- run_state: what every part of run_step reads: its arguments (documented there), the time, and
-- the run's hash.

local KEY_RUN, PROGRESS_EVERY_MS, MILLION = KEYS[1], 250, 1000000
local SETTLE_MS, IDLE_MS = 5000, 60000
local STATE_TTL_MS, LEASE_MS, QUEUE_MS = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local MAX_DELIVERIES = tonumber(ARGV[8])
local TS, RUN_PREFIX, RUN_ID, FACT = ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local TERMINAL = {completed = true, failed = true, cancelled = true}
local to = {stream = KEYS[2], channel = ARGV[1], publish = ARGV[2], maxlen = ARGV[3],
  ttl_ms = ARGV[4]}

local f, cut = {}, 13 + 2 * tonumber(ARGV[13])
for i = 14, cut, 2 do f[ARGV[i]] = ARGV[i + 1] end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local cursor = ''

-- The run's hash: what most steps look at is read at once, the rest when it is asked for, and what
-- has changed is written at once by save(). `have` has false for a field that is not there.
local have, changed = {}, {}
local function read(fields)
  local values = redis.call('HMGET', KEY_RUN, unpack(fields))
  for i, field in ipairs(fields) do have[field] = values[i] end
end
read({'status', 'attempt', 'percent', 'stage', 'done', 'total', 'unit', 'note', 'stages', 'head',
  'accepted_ms', 'started_ms', 'progress_ms', 'lease_ms', 'dirty', 'shown', 'planned', 'open',
  'alive', 'finals', 'idle', 'task:' .. (f.task or ''), 'error:' .. (f.task or ''),
  'final:' .. (f.task or '')})

local function int(n) return string.format('%.0f', n) end

local function get(field, run) -- of this run, or of another hash
  if run then return redis.call('HGET', run, field) or '' end
  if have[field] == nil then have[field] = redis.call('HGET', KEY_RUN, field) end
  return have[field] or ''
end

local function num(field, run) return tonumber(get(field, run)) or 0 end

local function set(...) -- field, value, ...
  local given = {...}
  for i = 1, #given, 2 do
    local field, value = given[i], given[i + 1]
    if have[field] ~= value then have[field], changed[field] = value, true end
  end
end

local function put(run, ...) -- into another hash, or this run's
  if run then redis.call('HSET', run, ...) else set(...) end
end

local function add(field, number) set(field, int(num(field) + number)) end

local function drop(field) -- whether it was there
  if get(field) == '' then return false end
  redis.call('HDEL', KEY_RUN, field)
  have[field], changed[field] = false, nil
  return true
end

local function in_slices(list, visit) -- of even length, and no longer than unpack can take
  for first = 1, #list, 1000 do visit(unpack(list, first, math.min(first + 999, #list))) end
end

local function save()
  local list, n = {}, 0
  for field in pairs(changed) do
    list[n + 1], list[n + 2], n = field, have[field], n + 2
  end
  changed = {}
  in_slices(list, function(...) redis.call('HSET', KEY_RUN, ...) end)
end

local emitted = {}
local function emit(kind, extra, run)
  if to.publish ~= '' then emitted[#emitted + 1] = kind end
  put(run, 'updated_ms', int(now))
  append_entry(to, '', '{"type":"source.ingest.' .. kind .. '","ts":"' .. TS .. '",'
    .. get('head', run) .. ',"attempt":' .. int(num('attempt', run)) .. extra .. '}}')
end
