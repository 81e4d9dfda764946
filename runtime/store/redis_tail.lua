#!lua flags=no-writes
-- Events of the feed beyond a cursor, in order: a part of the walk through them.
--
-- ARGV[3]  cursor, -1 for the head   ARGV[4]  how many at most
-- ARGV[5]  organization, '' for everybody's   ARGV[6]  the cursor's incarnation, '' for any
-- ARGV[7]  events looked at in one part   ARGV[8]  bytes, about
--
--   {system}:feed     stream  cursor-0 -> `o` organization, `e` the event
--   {system}:cursor   int     the feed's head
--   {system}:floor    int     cursor up to which the feed was forgotten
--   {system}:server   hash    incarnation
--
-- Answers [reset, cursor, more, incarnation, events]. A cursor is void when it is of
-- another incarnation, beyond the head, or before events that are not kept any more.
-- with redis_base.lua
local after, limit = tonumber(ARGV[3]), tonumber(ARGV[4])
local head = tonumber(call('GET', system('cursor')) or 0)
local present = call('HGET', system('server'), 'incarnation') or ''

local function number(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

local floor = tonumber(call('GET', system('floor')) or 0)
local is_void = after < floor or after > head or (ARGV[6] ~= '' and ARGV[6] ~= present)
local reset = after >= 0 and is_void
local start = after < 0 and head or reset and floor or after
local rows, size, cursor = {}, 0, start
local part = tonumber(ARGV[7])
local from = string.format('%.0f-0', start + 1)
local found = limit > 0 and call('XRANGE', system('feed'), from, '+', 'COUNT', part) or {}
for _, entry in ipairs(found) do
  if #rows == limit or size > tonumber(ARGV[8]) then break end
  cursor = number(entry)
  if ARGV[5] == '' or entry[2][2] == ARGV[5] then
    rows[#rows + 1] = entry[2][4]
    size = size + #entry[2][4]
  end
end
local walked = limit > 0 and (#found == 0 or cursor == number(found[#found]))
local more = not walked or #found == part
if not more and #rows < limit then cursor = head end
return '\149' .. pack(reset) .. pack(cursor) .. pack(more) .. pack(present) .. array(rows)
