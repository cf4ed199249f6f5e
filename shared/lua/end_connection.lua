-- end_connection: asks whoever serves a connection to end it, and gives its place back at once.
-- KEYS  1 connections (zset)  2 connection details (hash)  3 ended (of this one)
-- ARGV  1 connection id  2 channel  3 PUBLISH|SPUBLISH  4 ms to remember it: longer than a lease
-- Returns 1, or 0 where the user has no such connection. The announcement may be lost; its next
-- renewal then finds the mark.

if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1], ARGV[1] .. '.at')
redis.call('SET', KEYS[3], '1', 'PX', ARGV[4])
redis.call(ARGV[3], ARGV[2], '!end ' .. ARGV[1])
return 1
