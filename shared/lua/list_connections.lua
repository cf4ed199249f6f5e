-- list_connections: a user's live connections.
-- include: append_entry
-- KEYS  1 connections (zset)  2 connection details (hash)  3 user stream, where lags are wanted
-- Returns {{id, details as JSON, cursor and '1' if it lags, as of the last renewal}, ...}; where lags
-- are wanted, each with the ms between its cursor and the stream's last entry: 0 of one that does not
-- lag. No entry is read for that but the last. One whose details were lost is left out until its next
-- renewal.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local rows = {}
local latest_ms

local function ms(id) return tonumber(string.match(id, '^%d+')) end

local function behind_ms(at) -- of a message's stream nothing is known here
  local cursor = string.match(at, '^(%d+%-%d+) 1$')
  if not cursor then return '0' end
  latest_ms = latest_ms or ms(last_id(KEYS[3]))
  return string.format('%.0f', math.max(0, latest_ms - ms(cursor)))
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
  local details = redis.call('HMGET', KEYS[2], id, id .. '.at')
  if details[1] and details[2] then
    local row = {id, details[1], details[2]}
    if KEYS[3] then row[4] = behind_ms(details[2]) end
    rows[#rows + 1] = row
  end
end
return rows
