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
