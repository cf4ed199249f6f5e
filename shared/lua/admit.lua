-- admit: lets a connection in, or says why not and when to come back.
-- include: append_entry
-- include: lease
-- KEYS  1 connections (zset: connection id by the end of its lease, ms)
--       2 connection details (hash: '<id>' JSON of what was known at the start, '<id>.at' a cursor
--         and whether it lags, as of the last renewal)
--       3 replay (counter)  4 user stream
-- ARGV  1 connection id  2 lease ms  3 most connections, 0 for any number
--       4 most replays in a window, 0 for any number  5 window ms
--       6 cursor, '' for none: nothing is charged  7 details as JSON
--       8 where it stands, if not at its cursor, or else at the end
-- Returns {'ok', the stream's last id}, {'connections', ms until a lease may end} or
-- {'replays', ms until the window ends}. A refusal charges nothing and renews nothing. The window
-- is fixed: it begins with its first replay.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease, most, budget = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local id, cursor = ARGV[1], ARGV[6]

for _, ended in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], ended)
  redis.call('HDEL', KEYS[2], ended, ended .. '.at')
end
if most > 0 and redis.call('ZCARD', KEYS[1]) >= most then
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  return {'connections', math.max(1, first[2] - now)}
end
if cursor ~= '' and budget > 0 then
  if tonumber(redis.call('GET', KEYS[3]) or '0') >= budget then
    return {'replays', math.max(1, redis.call('PTTL', KEYS[3]))}
  end
  if redis.call('INCR', KEYS[3]) == 1 then redis.call('PEXPIRE', KEYS[3], ARGV[5]) end
end
local last = last_id(KEYS[4])
local at = ARGV[8] or ''
if at == '' then at = cursor == '' and last or cursor end
hold_lease(KEYS[1], KEYS[2], id, now + lease, lease, ARGV[7], at .. ' 0')
return {'ok', last}
