-- list_connections: a user's live connections.
-- include: append_entry
-- KEYS  1 connections (zset)  2 connection details (hash)  3 user stream, where lags are wanted
-- ARGV  1 most entries that are counted
-- Returns {{id, details as JSON, cursor and '1' if it lags, as of the last renewal}, ...}; where lags
-- are wanted, each with how many entries come after its cursor, and how many ms lie between that and
-- the last one: 0 of one that does not lag. One whose details were lost is left out until its next
-- renewal.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rows = {}

local function ms(id) return tonumber(string.match(id, '^%d+')) end

local function behind(at) -- of a message's stream nothing is known here
  local cursor = string.match(at, '^(%d+%-%d+) 1$')
  if not cursor then return '0', '0' end
  local entries = #redis.call('XRANGE', KEYS[3], '(' .. cursor, '+', 'COUNT', ARGV[1])
  local since = entries > 0 and math.max(0, ms(last_id(KEYS[3])) - ms(cursor)) or 0
  return tostring(entries), string.format('%.0f', since)
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
  local details = redis.call('HMGET', KEYS[2], id, id .. '.at')
  if details[1] and details[2] then
    local row = {id, details[1], details[2]}
    if KEYS[3] then row[4], row[5] = behind(details[2]) end
    rows[#rows + 1] = row
  end
end
return rows
