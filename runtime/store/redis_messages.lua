#!lua flags=no-writes
-- Messages of an agent beyond a seq, in order.
--
-- ARGV[3]  agent   ARGV[4]  'inbox': the pending ones, 'history': all
-- ARGV[5]  seq   ARGV[6]  how many at most   ARGV[7]  their bytes, about
--
-- Keys (read): what redis_inbox.lua lists.
--
-- Answers [next, messages]; next: there may be more beyond this seq.
-- with redis_base.lua redis_roster.lua redis_inbox.lua
local address, after, limit = ARGV[3], ARGV[5], tonumber(ARGV[6])
local PART = 16  -- read together: no more than these are held beside an answer that is full

local function history()
  local rows, size, last = {}, 0, tonumber(after)
  while #rows < limit do
    local part = math.min(limit - #rows, PART)
    local from = string.format('%.0f-0', last + 1)
    local found = call('XRANGE', of_agent('inbox', address), from, '+', 'COUNT', part)
    for _, entry in ipairs(found) do
      local sent = entry[2][2]
      local _, seq, id = cmsgpack.unpack_limit(sent, 2)
      local kept = call('HGET', of_agent('known', address), id)
      rows[#rows + 1] = joined(sent, kept)
      size, last = size + #sent, seq
      if size > tonumber(ARGV[7]) then return rows, last end
    end
    if #found < part then return rows, false end
  end
  return rows, last
end

local rows, last
if ARGV[4] == 'inbox' then
  rows, last = waiting_messages(address, after, limit, tonumber(ARGV[7]))
else
  rows, last = history()
end
return '\146' .. optional(last) .. array(rows)
