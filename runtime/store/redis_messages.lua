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

local function history()
  local rows, size, last = {}, 0, nil
  local from = string.format('%.0f-0', tonumber(after) + 1)
  local found = call('XRANGE', of_agent('inbox', address), from, '+', 'COUNT', limit)
  for _, entry in ipairs(found) do
    if size > tonumber(ARGV[7]) then return rows, last end
    local sent = entry[2][2]
    local _, seq, id = cmsgpack.unpack_limit(sent, 2)
    local kept = call('HGET', of_agent('known', address), id)
    rows[#rows + 1] = joined(sent, kept)
    size, last = size + #sent, seq
  end
  return rows, #found == limit and last
end

local rows, last
if ARGV[4] == 'inbox' then
  rows, last = waiting_messages(address, after, limit, tonumber(ARGV[7]))
else
  rows, last = history()
end
return '\146' .. optional(last) .. array(rows)
