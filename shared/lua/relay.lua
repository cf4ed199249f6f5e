-- relay: one user's events from an event outbox, each once, whoever relays and however often.
-- include: append_entry
-- KEYS  1 user stream  2 relayed (hash: outbox -> the last position of it that is in the stream)
-- ARGV  1 channel  2 PUBLISH|SPUBLISH  3 maxlen  4 stream ttl ms  5 outbox
--       then position, body, ... in rising order of positions
-- Returns how many were appended. What is not above the last position was appended before: by a
-- relay that died before it deleted the rows, or since this one was held up and another took over.
-- Positions stay below 2^53, which Lua's numbers hold exactly.

local last = tonumber(redis.call('HGET', KEYS[2], ARGV[5]) or '0')
local to = {stream = KEYS[1], channel = ARGV[1], publish = ARGV[2], maxlen = ARGV[3],
  ttl_ms = ARGV[4]}
local appended = 0
for i = 6, #ARGV, 2 do
  if tonumber(ARGV[i]) > last then
    append_entry(to, ARGV[5] .. ':' .. ARGV[i], ARGV[i + 1])
    redis.call('HSET', KEYS[2], ARGV[5], ARGV[i]) -- each, since the next append may fail
    appended = appended + 1
  end
end
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return appended
