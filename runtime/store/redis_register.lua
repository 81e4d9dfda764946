#!lua flags=allow-oom
-- A lease for an owner; another owner of the same name loses its own at once.
--
-- ARGV[3]  owner   ARGV[4]  name   ARGV[5]  lease in ms
-- ARGV[6]  channel its client listens on   ARGV[7]  owners that are remembered
--
--   {system}:names    hash  owner -> name
--   {system}:holders  hash  name -> owner
--   and what redis_roster.lua lists
--
-- Answers the incarnation. It may run when memory is used up, as everything of a
-- lease: it writes little, and work must not move because of it.
-- with redis_base.lua redis_roster.lua
local INCARNATION = incarnation()
if not INCARNATION then return CHANGED end
local owner, name, ends = ARGV[3], ARGV[4], NOW + tonumber(ARGV[5])

local function forget(gone)
  local held = call('HGET', system('names'), gone)
  if held and call('HGET', system('holders'), held) == gone then
    call('HDEL', system('holders'), held)
  end
  remove_owner(gone)
end

local before = call('HGET', system('holders'), name)
if before and before ~= owner then forget(before) end
local old_name = call('HGET', system('names'), owner)
if not old_name and call('ZCARD', system('owners')) >= tonumber(ARGV[7]) then
  forget(call('ZRANGE', system('owners'), 0, 0)[1])
end
if old_name and old_name ~= name then forget(owner) end
lease(owner, ends)
call('HSET', system('names'), owner, name)
call('HSET', system('holders'), name, owner)
call('HSET', system('channels'), owner, ARGV[6])
settle()
return INCARNATION
