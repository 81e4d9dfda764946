#!lua
-- Documents as they are answered, and where they are listed.
--
--   {system}:documents:<collection>   hash  key -> revision, live, organization, terms, updated
--   {system}:bodies:<collection>      hash  key -> body
--   {system}:index:<collection>\0<organization>\0<term>   zset of keys, scores 0
--
-- The organization '' of an index is everybody's, its term '' every document's.
local function document_row(collection, key)
  local content = call('HGET', system('bodies:' .. collection), key)
  if not content then return nil end
  local kept = call('HGET', system('documents:' .. collection), key)
  local revision, _, organization, terms, updated = cmsgpack.unpack(kept)
  return '\150' .. pack(key, organization, revision) .. content .. pack(terms, updated)
end

-- The indexes that a document with all of these terms is in, the shortest first.
local function indexes_of(collection, organization, terms)
  if #terms == 0 then terms = { '' } end
  local names, sizes = {}, {}
  for at, term in ipairs(terms) do
    names[at] = system('index:' .. collection .. '\0' .. organization .. '\0' .. term)
    sizes[names[at]] = call('ZCARD', names[at])
  end
  table.sort(names, function(one, other) return sizes[one] < sizes[other] end)
  return names, sizes[names[1]]
end

local function is_in_all(names, key)
  for at = 2, #names do
    if not call('ZSCORE', names[at], key) then return false end
  end
  return true
end
