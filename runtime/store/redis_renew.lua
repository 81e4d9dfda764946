#!lua flags=allow-oom
-- A longer lease; 0 when the owner is unknown or was superseded by its name. One of 0 ms is
-- given up, and told to whoever waits.
--
-- ARGV[3]  owner   ARGV[4]  lease in ms   ARGV[5]  channel its client listens on
--
-- Keys: what redis_roster.lua lists.
-- with redis_base.lua redis_roster.lua
if not incarnation() then return CHANGED end
local owner = ARGV[3]
if not call('ZSCORE', system('owners'), owner) then return 0 end
lease(owner, NOW + tonumber(ARGV[4]))
if call('HGET', system('channels'), owner) ~= ARGV[5] then
  call('HSET', system('channels'), owner, ARGV[5])
end
if ARGV[4] == '0' then
  notice_lapses()
  settle()
end
return 1
