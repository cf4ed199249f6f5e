-- append_entry: puts one event at the end of a user stream and announces it, as one step.
-- Included by scripts; every key that they pass in is in the user's own slot.
--
-- Entry fields: p = id of the entry before it ('0-0' for none), t = the publisher's token,
-- e = the event as a JSON object without its id. The body is never decoded: Lua would turn []
-- into {} and large integers into floats. Only the id is spliced in.
-- Announcement: "<prev> <id> <frame>", the frame as it goes to every client.

local function last_id(stream)
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  return newest and newest[1] or '0-0'
end

-- to: {stream, channel, publish ('PUBLISH' or 'SPUBLISH'; '' appends nothing), maxlen, ttl_ms},
-- one table for all that a step appends to a stream: `to.last` keeps its last id, `to.renewed`
-- whether its life was looked at.
local function append_entry(to, token, body)
  if to.publish == '' then return '', '' end
  local prev = to.last or last_id(to.stream)
  local id = redis.call('XADD', to.stream, 'MAXLEN', '~', to.maxlen, '*',
    'p', prev, 't', token, 'e', body)
  -- Renewed when a hundredth of it is over: a look costs less than a write that is replicated.
  if not to.renewed and redis.call('PTTL', to.stream) < to.ttl_ms * 0.99 then
    redis.call('PEXPIRE', to.stream, to.ttl_ms)
  end
  to.last, to.renewed = id, true
  redis.call(to.publish, to.channel, prev .. ' ' .. id .. ' id: ' .. id
    .. '\ndata: {"id":"' .. id .. '",' .. string.sub(body, 2) .. '\n\n')
  return id, prev
end
