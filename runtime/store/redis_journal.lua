#!lua flags=no-writes
-- Events of an agent beyond a version, in order.
--
-- ARGV[3]  agent   ARGV[4]  version   ARGV[5]  how many at most   ARGV[6]  bytes, about
--
--   {org}:agent:<agent>     hash  forgotten: events that went from the beginning
--   {org}:journal:<agent>   list  of events
--
-- Answers [next, events]; next: there may be more beyond this version.
-- with redis_base.lua
local limit, rows, size = tonumber(ARGV[5]), {}, 0
local forgotten = tonumber(call('HGET', of_agent('agent', ARGV[3]), 'forgotten') or 0)
local from = math.max(tonumber(ARGV[4]) - forgotten, 0)
local found = call('LRANGE', of_agent('journal', ARGV[3]), from, from + limit - 1)
for at, event in ipairs(found) do
  if size > tonumber(ARGV[6]) then break end
  rows[at] = event
  size = size + #event
end
local more = #rows < #found or #found == limit
return '\146' .. optional(more and forgotten + from + #rows) .. array(rows)
