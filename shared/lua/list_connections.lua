-- list_connections: a user's live connections.
-- KEYS  1 connections (zset)  2 connection details (hash)
-- Returns {{id, details as JSON, cursor and '1' if it lags, as of the last renewal}, ...}; what was
-- lost is ''.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rows = {}
for i, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
  local details = redis.call('HMGET', KEYS[2], id, id .. '.at')
  rows[i] = {id, details[1] or '', details[2] or ''}
end
return rows
