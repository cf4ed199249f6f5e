-- list_connections: a user's live connections.
-- KEYS  1 connections (zset)  2 connection details (hash)
-- Returns {{id, details as JSON, cursor and '1' if it lags, as of the last renewal}, ...}. One whose
-- details were lost is left out until its next renewal.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rows = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
  local details = redis.call('HMGET', KEYS[2], id, id .. '.at')
  if details[1] and details[2] then rows[#rows + 1] = {id, details[1], details[2]} end
end
return rows
