#!lua flags=no-writes
-- One message, and what became of it; nothing: it was never accepted.
--
-- ARGV[3]  agent   ARGV[4]  message id
--
-- Keys (read): what redis_inbox.lua lists.
-- with redis_base.lua redis_roster.lua redis_inbox.lua
local one, id = agent_at(ARGV[3]), ARGV[4]
local seq = call('ZSCORE', one.pending, id)
if not seq then
  local kept = call('HGET', one.known, id)
  if not kept then return NIL end
  local _, number = unpack_one(kept)
  seq = number
end
return message(ARGV[3], id, seq) or NIL
