#!lua flags=allow-oom
-- Give agents up; those that the owner does not hold are passed over.
--
-- ARGV[3]  owner   ARGV[4]  addresses, msgpack
--
-- Keys: what redis_roster.lua lists.
-- with redis_base.lua redis_roster.lua
if not incarnation() then return CHANGED end
for _, address in ipairs(cmsgpack.unpack(ARGV[4])) do
  local one = agent_at(address)
  if one.owner == ARGV[3] then move(one, nil) end
end
settle()
return 1
