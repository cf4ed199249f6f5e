-- lease: a connection's place among those of its user, held until a time.
-- Included by scripts. The keys live as long as the longest lease in them: processes may differ in
-- their keepalives.

local function live_for(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end

-- connections: zset of ids by the end of their lease, ms; details: hash of '<id>' and '<id>.at'.
local function hold_lease(connections, details, id, ends_at, lease_ms, about, at)
  redis.call('ZADD', connections, ends_at, id)
  redis.call('HSET', details, id, about, id .. '.at', at)
  live_for(connections, lease_ms)
  live_for(details, lease_ms)
end
