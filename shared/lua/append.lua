-- append: one event of any kind, once, however often the call is repeated.
-- include: append_entry
-- KEYS  1 user stream
-- ARGV  1 channel  2 PUBLISH|SPUBLISH  3 maxlen  4 stream ttl ms  5 token  6 '1' on a retry  7 body
-- Returns {id, prev}. A retry looks for its token among the latest 1,000 entries first: the reply
-- to the first try may have been lost after it was done.

if ARGV[6] == '1' then
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1000)) do
    if entry[2][4] == ARGV[5] then return {entry[1], entry[2][2]} end
  end
end
local id, prev = append_entry(
  {stream = KEYS[1], channel = ARGV[1], publish = ARGV[2], maxlen = ARGV[3], ttl_ms = ARGV[4]},
  ARGV[5], ARGV[7])
return {id, prev}
