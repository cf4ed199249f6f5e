-- renew: keeps a connection's lease, and tells where the user stream ends, so that even a lost
-- last announcement is noticed.
-- include: append_entry
-- include: lease
-- KEYS  1 connections (zset)  2 connection details (hash)  3 user stream  4 ended (of this one)
-- ARGV  1 connection id  2 lease ms  3 stream ttl ms  4 its cursor, and '1' if it lags
--       5 details as JSON, in case they were lost with the lease
-- Returns {the stream's last id, 1 if somebody asked for the end of this connection}. A stream that
-- somebody watches does not expire.

if redis.call('EXISTS', KEYS[4]) == 1 then return {last_id(KEYS[3]), 1} end
local time, lease = redis.call('TIME'), tonumber(ARGV[2])
local now = time[1] * 1000 + math.floor(time[2] / 1000)
hold_lease(KEYS[1], KEYS[2], ARGV[1], now + lease, lease, ARGV[5], ARGV[4])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return {last_id(KEYS[3]), 0}
