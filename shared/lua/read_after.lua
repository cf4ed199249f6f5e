-- read_after: the page of a user stream past a cursor.
-- include: page
-- KEYS  1 user stream
-- ARGV  1 cursor 'ms-seq'  2 limit
-- Returns what read_page does: {status, from, oldest id or '', entries, 1 if more remain}.

return read_page(KEYS[1], ARGV[1], tonumber(ARGV[2]))
