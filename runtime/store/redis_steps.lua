#!lua flags=no-writes
-- Steps of a job in the order of their first intent.
--
-- ARGV[3]  job   ARGV[4]  steps to pass over   ARGV[5]  how many at most   ARGV[6]  bytes, about
--
--   {system}:steps:<job>   hash  f<key> facts, i<key> intent, r<key> result
--   {system}:order:<job>   list  their keys
--
-- Answers [next, steps]; next: there may be more after so many.
-- with redis_base.lua
local from, limit, rows, size = tonumber(ARGV[4]), tonumber(ARGV[5]), {}, 0
local keys = call('LRANGE', system('order:' .. ARGV[3]), from, from + limit - 1)
for at, key in ipairs(keys) do
  if size > tonumber(ARGV[6]) then break end
  local kept = call('HMGET', system('steps:' .. ARGV[3]), 'f' .. key, 'i' .. key, 'r' .. key)
  local kind, _, epoch, attempts, made = cmsgpack.unpack(kept[1])
  rows[at] = '\151' .. pack(key, kind) .. kept[2] .. pack(epoch, attempts) .. (kept[3] or NIL)
    .. pack(made)
  size = size + #rows[at]
end
local more = #rows < #keys or #keys == limit
return '\146' .. optional(more and from + #rows) .. array(rows)
