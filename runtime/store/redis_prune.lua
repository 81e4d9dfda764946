#!lua flags=allow-oom
-- Forget what nobody needs any more: a piece of a round, oldest first.
--
-- ARGV[3]  forget what ended before (ms)   ARGV[4]  rows at most
-- ARGV[5]  jobs that have ended, msgpack   ARGV[6]  dead messages to pass over
-- ARGV[7]  bytes of a journal that are read, about
--
--   {system}:order:<job>, {system}:steps:<job>   list, hash   steps of the jobs
--   {org}:jobs                         set     jobs in which its agents have begun steps
--   {system}:finished                  list    finished_ms, agent, message id; oldest first
--   {system}:dead                      zset    agent \0 message id -> finished_ms; with
--                                              processed ones that ended out of order
--   {org}:known:<agent>                hash    message id -> seq, and what became of it
--   {org}:inbox:<agent>                stream  the messages
--   {system}:documents:<collection>    hash    dead letters, and what is left of deleted ones
--   {system}:forgotten                 int     latest finish (ms) of a forgotten message
--   {system}:feed, {system}:floor      stream, int   the feed, and where it begins
--   {system}:saved                     zset    agent -> time (ms) of its oldest event
--   {org}:journal:<agent>              list    of events
--   {org}:snapshot:<agent>             string  version, snapshot
--   {org}:agent:<agent>                hash    forgotten: events gone from the beginning
--   {system}:deleted                   zset    collection \0 key -> deleted at (ms)
--   {system}:kept                      hash    since (ms), rows forgotten so far
--
-- Answers [rows, more, dead messages that were passed over]. No more than ARGV[4] rows
-- are looked at. A message that was purged meanwhile is no more what `finished` says:
-- what is kept of it must agree.
-- with redis_base.lua
if not incarnation() then return CHANGED end
local before, left = tonumber(ARGV[3]), tonumber(ARGV[4])
local rows, passed = 0, tonumber(ARGV[6])
local BYTES_MAX, PART = tonumber(ARGV[7]), 16  -- events read together

local function forget_steps(job)
  local order, begun = system('order:' .. job), {}
  local keys = call('LRANGE', order, 0, left - 1)
  for _, key in ipairs(keys) do
    local _, agent = cmsgpack.unpack(call('HGET', system('steps:' .. job), 'f' .. key))
    begun[of_organization('jobs', agent)] = true
    call('HDEL', system('steps:' .. job), 'f' .. key, 'i' .. key, 'r' .. key)
  end
  call('LTRIM', order, #keys, -1)
  if call('EXISTS', order) == 0 then  -- a purge finds the rest of them by the job
    for jobs in pairs(begun) do call('SREM', jobs, job) end
  end
  rows, left = rows + #keys, left - #keys
end

-- Forget a message if it ended as it is said to; whether it did.
local function forget_message(finished_ms, address, id)
  local known = of_agent('known', address)
  local kept = call('HGET', known, id)
  if not kept then return false end
  local _, seq, _, _, _, ended_ms = cmsgpack.unpack_limit(kept, 5)
  if ended_ms ~= finished_ms then return false end
  call('HDEL', known, id)
  call('XDEL', of_agent('inbox', address), seq .. '-0')
  rows = rows + 1
  return true
end

-- A place of `finished` beyond this one whose message ended before; nil: none is found.
-- A few are looked at, ever farther apart: they miss fewer than those that are passed.
local function older_beyond(at)
  local gap, entry = 0, nil
  repeat
    at, gap = at + gap + 1, 2 * gap + 1
    entry = call('LINDEX', system('finished'), at)
    if entry and cmsgpack.unpack(entry) < before then return at end
  until not entry
end

-- What is too young and yet stands before older ones ended under a clock that was ahead:
-- it goes to `dead`, which is in order of time, and no longer keeps those behind it.
local function forget_processed()
  local latest, seen, older = nil, 0, -1
  for _, entry in ipairs(call('LRANGE', system('finished'), 0, left - 1)) do
    local finished_ms, address, id = cmsgpack.unpack(entry)
    if finished_ms >= before then
      if older < seen then older = older_beyond(seen) end
      if not older then break end
      call('ZADD', system('dead'), finished_ms, address .. '\0' .. id)
    elseif forget_message(finished_ms, address, id) then
      latest = math.max(latest or 0, finished_ms)
    end
    seen = seen + 1
  end
  if seen > 0 then call('LTRIM', system('finished'), seen, -1) end
  left = left - seen
  return latest
end

local function has_letter(address, id)
  local kept = call('HGET', system('documents:dead_letter'), address .. '/' .. id)
  if not kept then return false end
  local _, live = cmsgpack.unpack(kept)
  return live
end

local function forget_dead()
  local latest
  local found = call('ZRANGEBYSCORE', system('dead'), '-inf', '(' .. ARGV[3], 'WITHSCORES',
    'LIMIT', passed, left)
  for at = 1, #found, 2 do
    local address, id = string.match(found[at], '^(.-)%z(.*)$')
    local finished_ms = tonumber(found[at + 1])
    if has_letter(address, id) then
      passed = passed + 1
    else
      call('ZREM', system('dead'), found[at])
      if forget_message(finished_ms, address, id) then latest = math.max(latest or 0, finished_ms) end
    end
  end
  left = left - #found / 2
  return latest
end

local function forget_messages()
  local latest = math.max(forget_processed() or -1, left > 0 and forget_dead() or -1)
  if latest > tonumber(call('GET', system('forgotten')) or -1) then
    call('SET', system('forgotten'), latest)
  end
end

local function forget_feed()
  local last, count = nil, 0
  for _, entry in ipairs(call('XRANGE', system('feed'), '-', '+', 'COUNT', left)) do
    local _, cursor, _, _, _, at_ms = cmsgpack.unpack_limit(entry[2][4], 5, 1)
    if at_ms >= before then break end
    last, count = cursor, count + 1
  end
  if last then
    call('XTRIM', system('feed'), 'MINID', last + 1)
    call('SET', system('floor'), last)
  end
  rows, left = rows + count, left - count
end

-- How many of a journal's first events may go now, when the next was recorded, and whether
-- that one stays only because enough has been read.
local function old_events(journal, covered)
  local count, size = 0, 0
  while true do
    local found = call('LRANGE', journal, count, count + PART - 1)
    for _, event in ipairs(found) do
      local at_ms = event_time(event)
      local is_kept = count >= covered or at_ms >= before
      if is_kept or count == left or size > BYTES_MAX then return count, at_ms, not is_kept end
      count, size = count + 1, size + #event
    end
    if #found < PART then return count, nil, false end
  end
end

local function forget_events(address)
  local journal, agent = of_agent('journal', address), of_agent('agent', address)
  local gone = tonumber(call('HGET', agent, 'forgotten') or 0)
  local _, covered = unpack_one(call('GET', of_agent('snapshot', address)))
  local count, oldest, more = old_events(journal, covered - gone)
  if count > 0 then
    call('LTRIM', journal, count, -1)
    call('HINCRBY', agent, 'forgotten', count)
  end
  if oldest and gone + count < covered then
    call('ZADD', system('saved'), oldest, address)
  else
    call('ZREM', system('saved'), address)
  end
  rows, left = rows + count, more and 0 or left - count
end

local function forget_journals()
  while left > 0 do
    local address = call('ZRANGEBYSCORE', system('saved'), '-inf', '(' .. ARGV[3], 'LIMIT', 0, 1)[1]
    if not address then return end
    forget_events(address)
  end
end

local function forget_deleted()
  local found = call('ZRANGEBYSCORE', system('deleted'), '-inf', '(' .. ARGV[3], 'LIMIT', 0, left)
  for _, member in ipairs(found) do
    local collection, key = string.match(member, '^(.-)%z(.*)$')
    call('HDEL', system('documents:' .. collection), key)
    call('ZREM', system('deleted'), member)
  end
  rows, left = rows + #found, left - #found
end

for _, job in ipairs(cmsgpack.unpack(ARGV[5])) do
  if left > 0 then forget_steps(job) end
end
for _, forget in ipairs({ forget_messages, forget_feed, forget_journals, forget_deleted }) do
  if left > 0 then forget() end
end
call('HSET', system('kept'), 'since', ARGV[3])
if rows > 0 then call('HINCRBY', system('kept'), 'rows', rows) end
return pack({ rows, left == 0, left == 0 and passed or 0 })
