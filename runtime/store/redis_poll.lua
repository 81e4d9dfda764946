#!lua flags=allow-oom
-- One look of a poll: what waits for an owner beyond a seq, and what it could claim.
--
-- ARGV[3]  owner   ARGV[4]  seq   ARGV[5]  messages at most   ARGV[6]  their bytes, about
-- ARGV[7]  look at agents whose latest message is beyond this seq
-- ARGV[8]  '1' when an earlier part of this look has found messages
-- ARGV[9]  agents in one part   ARGV[10]  reminders fired at once
-- ARGV[11] seqs looked at in one part
--
-- Keys: what redis_roster.lua and redis_inbox.lua list.
--
-- Answers [again, head, next, cut, ready, news, event_ms, messages]. Again:
-- reminders are still due. Next: more agents have news; go on with this ARGV[7].
-- Cut: messages beyond the last of these may be left out. News: worth answering at
-- once. event_ms: something changes by itself in so many milliseconds.
-- with redis_base.lua redis_roster.lua redis_inbox.lua
if not incarnation() then return CHANGED end
local owner, after, limit = ARGV[3], ARGV[4], tonumber(ARGV[5])
notice_lapses()
if fire_due(tonumber(ARGV[10])) then
  settle()
  return '\152' .. pack(true, 0) .. NIL .. pack(false, 0, false) .. NIL .. array({})
end

-- The first seq that waits at any of these.
local function first_of(agents)
  local first = math.huge
  for at = 1, #agents, 2 do
    local found = call('ZRANGEBYSCORE', of_agent('pending', agents[at]), '(' .. after, '+inf',
      'WITHSCORES', 'LIMIT', 0, 1)
    if found[2] then first = math.min(first, tonumber(found[2])) end
  end
  return first
end

-- Where the messages are: [seq, agent, id], in order; where to go on; whether there may be more
-- beyond them. No two have one seq, so no more are found than seqs are looked at: as many as there
-- are, or from the first that is found.
local function found_messages(head)
  local found, part, seqs = {}, tonumber(ARGV[9]), tonumber(ARGV[11])
  local agents = call('ZRANGEBYSCORE', system('fresh:' .. owner), '(' .. ARGV[7], '+inf',
    'WITHSCORES', 'LIMIT', 0, part)
  local is_long, last = head - after > seqs, '+inf'
  if is_long then last = first_of(agents) + seqs end
  for at = 1, #agents, 2 do
    local ids = call('ZRANGEBYSCORE', of_agent('pending', agents[at]), '(' .. after, last,
      'WITHSCORES', 'LIMIT', 0, limit)
    for place = 1, #ids, 2 do
      found[#found + 1] = { tonumber(ids[place + 1]), agents[at], ids[place] }
    end
  end
  table.sort(found, function(one, other) return one[1] < other[1] end)
  return found, #agents == 2 * part and tonumber(agents[#agents]), is_long
end

local function read(found)
  local rows, size = {}, 0
  for at = 1, math.min(limit, #found) do
    if size > tonumber(ARGV[6]) then break end
    local seq, address, id = unpack(found[at])
    rows[at] = message(address, id, seq)
    size = size + #rows[at]
  end
  return rows
end

local function ready_agents()
  if not is_live(owner) then return 0 end
  local count = 0
  for _, holder in ipairs(deserted()) do count = count + call('ZCARD', waiting_at(holder)) end
  return count
end

-- Whether this is worth answering at once; remembers that it was. Messages are;
-- ready agents are when one became ready since, or the owner took or gave up some.
local function is_news(messages, ready)
  local told = tonumber(call('HGET', system('told'), owner) or 0)
  local risen = tonumber(call('GET', system('risen')) or 0) + 1
  local known = call('ZSCORE', system('owners'), owner)
  local news = messages or (ready > 0 and known and told < risen) or false
  if news and known and told ~= risen then call('HSET', system('told'), owner, risen) end
  return news
end

local function next_event()
  local soonest
  for _, name in ipairs({ 'due', 'lapsing' }) do
    local first = tonumber(call('ZRANGE', system(name), 0, 0, 'WITHSCORES')[2])
    if first and (not soonest or first < soonest) then soonest = first end
  end
  return soonest and math.max(soonest - NOW, 0)
end

settle()
local head = tonumber(call('GET', system('head')) or 0)
local found, more, is_long = found_messages(head)
local rows = read(found)
local is_cut = #rows < #found or is_long and #rows > 0
local ready, news = 0, false
if not more then
  ready = ready_agents()
  news = is_news(#rows > 0 or ARGV[8] == '1', ready)
end
return '\152' .. pack(false) .. pack(head) .. optional(more) .. pack(is_cut) .. pack(ready)
  .. pack(news) .. optional(next_event()) .. array(rows)
