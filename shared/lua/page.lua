-- page: one page of a user stream past a cursor, with proof that nothing is missing.
-- Included by scripts. The check and the read are one step: trimming in between would be silent.

local PAGE_BYTES = 1024 * 1024

local function parts(id) -- ids compare as (length, text): Lua's doubles would lose digits
  return string.match(id, '^(%d+)-(%d+)$')
end
local function less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end
local function before(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  if a_ms ~= b_ms then return less(a_ms, b_ms) end
  return less(a_seq, b_seq)
end

-- Returns {status, from, oldest id or '', entries, 1 if more remain}: at most `limit` entries, and
-- of 1 MiB together unless the first alone is larger.
--   status  'ok', 'trimmed' (entries after the cursor are gone) or 'journal_reset' (the cursor is
--           of another life of the stream)
--   from    the position that the entries follow; it equals the cursor when status is 'ok'
local function read_page(stream, cursor, limit)
  local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if not oldest then
    return {cursor == '0-0' and 'ok' or 'journal_reset', '0-0', '', {}, 0}
  end
  local edge = oldest[2][2] -- the position right before the oldest entry
  local status, from = 'ok', cursor
  if cursor ~= edge and #redis.call('XRANGE', stream, cursor, cursor) == 0 then
    status = before(cursor, edge) and 'trimmed' or 'journal_reset'
    from = edge
  end
  local first = from == '0-0' and '-' or '(' .. from
  local found = redis.call('XRANGE', stream, first, '+', 'COUNT', limit + 1)
  local page, bytes = {}, 0
  for i = 1, math.min(#found, limit) do
    bytes = bytes + #found[i][2][6]
    if i > 1 and bytes > PAGE_BYTES then break end
    page[i] = found[i]
  end
  return {status, from, oldest[1], page, #found > #page and 1 or 0}
end
