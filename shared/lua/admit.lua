-- admit: lets a connection in, or says why not and when to come back. A refusal changes nothing.
-- KEYS  1 connections (zset: connection id by the end of its lease, ms)  2 replay (counter)
-- ARGV  1 connection id  2 lease ms  3 most connections, 0 for any number  4 '1' for a replay
--       5 most replays in a window, 0 for any number  6 window ms
-- Returns {'ok', 0}, {'connections', ms until a lease may end} or {'replays', ms until the window
-- ends}. The window is fixed: it begins with its first replay, and nothing renews it.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease, most, budget = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if most > 0 and redis.call('ZCARD', KEYS[1]) >= most then
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  return {'connections', math.max(1, first[2] - now)}
end
if ARGV[4] == '1' and budget > 0 then
  if tonumber(redis.call('GET', KEYS[2]) or '0') >= budget then
    return {'replays', math.max(1, redis.call('PTTL', KEYS[2]))}
  end
  if redis.call('INCR', KEYS[2]) == 1 then redis.call('PEXPIRE', KEYS[2], ARGV[6]) end
end
redis.call('ZADD', KEYS[1], now + lease, ARGV[1])
redis.call('PEXPIRE', KEYS[1], lease)
return {'ok', 0}
