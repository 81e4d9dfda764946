#!lua flags=allow-oom
-- Take agents for an owner, each under its next epoch.
--
-- ARGV[3]  owner   ARGV[4]  how many at most
-- ARGV[5]  addresses, msgpack; '' for those that wait and nobody holds
-- ARGV[6]  reminders fired at once   ARGV[7]  rows after which no more agent is taken
-- ARGV[8]  bytes of messages in one activation, and of events, about   ARGV[9]  messages in it
-- ARGV[10] bytes after which no more agent is taken
--
--   {org}:journal:<agent>    list    read
--   {org}:snapshot:<agent>   string  read
--   and what redis_roster.lua and redis_inbox.lua list
--
-- Answers [again, more, seen, activations, cut]. Again: reminders are still due, nothing
-- was taken. More: enough for one script; `seen` addresses have been dealt with. Cut:
-- agents that have more events or messages than their activation.
-- with redis_base.lua redis_roster.lua redis_inbox.lua
if not incarnation() then return CHANGED end
local owner, limit = ARGV[3], tonumber(ARGV[4])
notice_lapses()
if fire_due(tonumber(ARGV[6])) then
  settle()
  return pack({ true, false, 0, {}, {} })
end
settle()

-- Agents that nobody with a live lease holds, longest waiting first.
local function ready()
  local found = {}
  for _, holder in ipairs(deserted()) do
    local some = call('ZRANGE', waiting_at(holder), 0, limit - 1, 'WITHSCORES')
    if holder ~= '' and #some == 0 then call('SREM', system('deserted'), holder) end
    for at = 1, #some, 2 do found[#found + 1] = { some[at], tonumber(some[at + 1]) } end
  end
  table.sort(found, function(one, other) return one[2] < other[2] end)
  local addresses = {}
  for at = 1, math.min(limit, #found) do addresses[at] = found[at][1] end
  return addresses
end

local cut = {}

-- Events of an agent beyond a version, until so many bytes are passed; whether there are more.
local function latest_events(one, version, size_max)
  local events, size = {}, 0
  local from, ends = math.max(version - one.forgotten, 0), version_of(one) - one.forgotten
  local PART = 16  -- read together: no more than these are held beside an answer that is full
  while from + #events < ends do
    local at = from + #events
    for _, event in ipairs(call('LRANGE', of_agent('journal', one.address), at, at + PART - 1)) do
      if size > size_max then return events, true end
      events[#events + 1] = event
      size = size + #event
    end
  end
  return events, false
end

local function activation(one, abandoned)
  local kept = call('GET', of_agent('snapshot', one.address)) or pack(0) .. NIL
  local _, version = unpack_one(kept)
  local events, is_cut = latest_events(one, version, tonumber(ARGV[8]))
  local messages, last = waiting_messages(one.address, 0, tonumber(ARGV[9]), tonumber(ARGV[8]))
  if is_cut or last then cut[#cut + 1] = pack(one.address) end
  local row = '\152' .. pack(one.address, one.epoch, one.version) .. kept
    .. array(events) .. array(messages) .. pack(abandoned)
  return row, 1 + #events + #messages
end

local taken, rows, bytes, seen = {}, 0, 0, 0
local function is_full()
  return rows >= tonumber(ARGV[7]) or bytes > tonumber(ARGV[10])
end

if limit > 0 and is_live(owner) then
  local addresses = ARGV[5] == '' and ready() or cmsgpack.unpack(ARGV[5])
  for _, address in ipairs(addresses) do
    if #taken == limit or is_full() then break end
    seen = seen + 1
    local one = agent_at(address)
    if one.owner ~= owner and not is_live(one.owner) then
      local abandoned = not not one.owner
      move(one, owner)
      local row, size = activation(one, abandoned)
      taken[#taken + 1] = row
      rows, bytes = rows + size, bytes + #row
    end
  end
end
settle()
local more = #taken < limit and is_full()
return '\149' .. pack(false) .. pack(more) .. pack(seen) .. array(taken) .. array(cut)
