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
local limit, rows, size, more = tonumber(ARGV[5]), {}, 0, true
local forgotten = tonumber(call('HGET', of_agent('agent', ARGV[3]), 'forgotten') or 0)
local from = math.max(tonumber(ARGV[4]) - forgotten, 0)
local PART = 16  -- read together: no more than these are held beside an answer that is full

local function answer()
  return '\146' .. optional(more and forgotten + from + #rows) .. array(rows)
end

while more and #rows < limit do
  local at, part = from + #rows, math.min(limit - #rows, PART)
  local found = call('LRANGE', of_agent('journal', ARGV[3]), at, at + part - 1)
  for _, event in ipairs(found) do
    rows[#rows + 1] = event
    size = size + #event
    if size > tonumber(ARGV[6]) then return answer() end
  end
  more = #found == part
end
return answer()
