#!lua flags=no-writes
-- Documents that carry all of some terms, by key: a part of the walk through them.
--
-- ARGV[3]  collection   ARGV[4]  organization, '' for everybody's   ARGV[5]  terms, msgpack
-- ARGV[6]  where the walk begins: '+' or '-' for its end, else '(' and a key
-- ARGV[7]  '1': descending   ARGV[8]  documents at most; '' to count them only
-- ARGV[9]  keys looked at in one part   ARGV[10]  bytes, about
--
-- Keys (read): what redis_document.lua lists.
--
-- Answers [next, count, documents]; next: go on from this key.
-- with redis_base.lua redis_document.lua
local collection, part, limit = ARGV[3], tonumber(ARGV[9]), tonumber(ARGV[8])
local names, smallest = indexes_of(collection, ARGV[4], cmsgpack.unpack(ARGV[5]))
if not limit and #names == 1 then return '\147' .. NIL .. pack(smallest) .. array({}) end

local keys
if ARGV[7] == '1' then
  keys = call('ZREVRANGEBYLEX', names[1], ARGV[6], '-', 'LIMIT', 0, part)
else
  keys = call('ZRANGEBYLEX', names[1], ARGV[6], '+', 'LIMIT', 0, part)
end
local rows, size, count, last = {}, 0, 0, nil
for _, key in ipairs(keys) do
  if limit and (count == limit or size > tonumber(ARGV[10])) then break end
  last = key
  if is_in_all(names, key) then
    count = count + 1
    if limit then
      rows[count] = document_row(collection, key)
      size = size + #rows[count]
    end
  end
end
local more = last and (last ~= keys[#keys] or #keys == part)
return '\147' .. optional(more and last) .. pack(count) .. array(rows)
