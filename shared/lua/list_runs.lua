-- list_runs: a user's runs as they stand, with the cursor that belongs to that state.
-- include: append_entry
-- KEYS  1 user stream  2 sources (zset: source by time of its latest run)  3 latest (hash)
-- ARGV  1 prefix of run keys  2 limit  3 one source id, or '' for the newest of all
-- Returns {cursor, {{source id, run id, {field, value, ...}}, ...}, {place, ...}}, newest first;
-- the places, from 0, are of runs that are said to be at work and whose last lease has passed.

local ids = ARGV[3] ~= '' and {ARGV[3]}
  or redis.call('ZREVRANGE', KEYS[2], 0, tonumber(ARGV[2]) - 1)
local fields = {'name', 'status', 'attempt', 'stage', 'done', 'total', 'unit', 'note', 'percent',
  'accepted_ms', 'updated_ms', 'seconds', 'eta', 'attempts', 'reason', 'error', 'result'}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local runs, silent = {}, {}

local function is_silent(key)
  local status, alive, lease_ms = unpack(redis.call('HMGET', key, 'status', 'alive', 'lease_ms'))
  return status == 'running' and (tonumber(alive) or 0) > 0 and (tonumber(lease_ms) or now) < now
end

for _, source in ipairs(ids) do
  local run = redis.call('HGET', KEYS[3], source)
  if run and redis.call('EXISTS', ARGV[1] .. run) == 1 then
    local row = {}
    for i, value in ipairs(redis.call('HMGET', ARGV[1] .. run, unpack(fields))) do
      row[#row + 1] = fields[i]
      row[#row + 1] = value or ''
    end
    if is_silent(ARGV[1] .. run) then silent[#silent + 1] = #runs end
    runs[#runs + 1] = {source, run, row}
  end
end
return {last_id(KEYS[1]), runs, silent}
