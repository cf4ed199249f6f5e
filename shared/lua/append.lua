-- append: events of any kind, once, in order, however often the call is repeated.
-- include: append_entry
-- KEYS  1 user stream
-- ARGV  1 channel  2 PUBLISH|SPUBLISH  3 maxlen  4 stream ttl ms  5 token  6 '1' on a retry
--       then a body for each event
-- Returns their ids. The first has the token, the others token:2, token:3, ... A retry looks for
-- these among the latest 1,000 entries first: the reply to the first try may have been lost after
-- it was done. What was trimmed since has the id ''.

local FIRST = 7

if ARGV[6] == '1' then
  local places, ids, found = {}, {}, false
  for i = FIRST, #ARGV do
    local place = i - FIRST + 1
    ids[place] = ''
    places[place == 1 and ARGV[5] or ARGV[5] .. ':' .. place] = place
  end
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1000)) do
    local place = places[entry[2][4]]
    if place then ids[place], found = entry[1], true end
  end
  if found then return ids end
end
local ids = {}
local to = {stream = KEYS[1], channel = ARGV[1], publish = ARGV[2], maxlen = ARGV[3],
  ttl_ms = ARGV[4]}
for i = FIRST, #ARGV do
  local place = i - FIRST + 1
  ids[place] = append_entry(to, place == 1 and ARGV[5] or ARGV[5] .. ':' .. place, ARGV[i])
end
return ids
