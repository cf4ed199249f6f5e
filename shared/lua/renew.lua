-- renew: keeps a connection's lease, and tells where the user stream ends, so that even a lost
-- last announcement is noticed.
-- include: append_entry
-- KEYS  1 connections (zset)  2 user stream
-- ARGV  1 connection id  2 lease ms  3 stream ttl ms
-- Returns the stream's last id. A stream that somebody watches does not expire.

local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return last_id(KEYS[2])
