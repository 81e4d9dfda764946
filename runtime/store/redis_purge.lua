#!lua flags=allow-oom
-- Remove an organization: one piece of one kind of what it has.
--
-- ARGV[3]  what: agents, sent, jobs, documents, deleted, feed   ARGV[4]  organization
-- ARGV[5]  where the last piece has stopped   ARGV[6]  rows looked at, about
-- ARGV[7]  of what: addresses (msgpack), an address of the system, or a collection
--
--   all keys of its agents, {org}:jobs
--   {system}:due, {system}:saved, {system}:pending, {system}:epoch_floor
--   {system}:waiting:<owner>, {system}:fresh:<owner>   the agents' places
--   {org}:inbox, :known, :pending of agents of `system`, for what it has sent them
--   {system}:order:<job>, {system}:steps:<job>
--   {system}:documents, :bodies, :index of a collection; {system}:deleted
--   {system}:feed
--
-- Answers [rows, next]; next: there is more, go on from there.
-- with redis_base.lua redis_roster.lua redis_document.lua
if not incarnation() then return CHANGED end
local organization, place, limit = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])

local function is_its(address)
  return find(address, organization .. '/', 1, true) == 1
end

-- An agent vanishes at once, with its epoch remembered; its memory is freed behind it.
local function purge_agent(address)
  local one, found = agent_at(address), 0
  local rows = call('LLEN', of_agent('journal', address)) + call('XLEN', one.inbox)
  for _, key in ipairs(call('HKEYS', of_agent('reminders', address))) do
    call('ZREM', system('due'), address .. '\0' .. key)
  end
  call('ZREM', system('saved'), address)
  call('ZREM', waiting_at(one.owner), address)
  if one.owner then call('ZREM', fresh_at(one.owner), address) end
  if one.count > 0 then call('DECRBY', system('pending'), one.count) end
  if one.epoch > tonumber(call('GET', system('epoch_floor')) or 0) then
    call('SET', system('epoch_floor'), one.epoch)
  end
  for _, name in ipairs({ 'agent', 'journal', 'snapshot', 'inbox', 'known', 'pending', 'reminders' }) do
    found = found + call('UNLINK', of_agent(name, address))
  end
  AGENTS[address] = nil
  return found > 0 and rows + 1 or 0
end

local function agents()
  local rows = 0
  for _, address in ipairs(cmsgpack.unpack(ARGV[7])) do rows = rows + purge_agent(address) end
  if rows > 0 then ring(system('ring'), { 'everything' }) end
  return rows, nil
end

-- Messages of the organization in an inbox of the system.
local function sent()
  local one, rows, last = agent_at(ARGV[7]), 0, nil
  local found = call('XRANGE', one.inbox, (place + 1) .. '-0', '+', 'COUNT', limit)
  local gone = 0
  for _, entry in ipairs(found) do
    local _, seq, id, sender = cmsgpack.unpack_limit(entry[2][2], 3)
    last = seq
    if is_its(sender) then
      gone = gone + call('ZREM', one.pending, id)
      call('HDEL', one.known, id)
      call('XDEL', one.inbox, entry[1])
      rows = rows + 1
    end
  end
  if gone > 0 then
    finished(one, gone)
    call('DECRBY', system('pending'), gone)
    ring(system('ring'), { 'everything' })
  end
  return rows, #found == limit and last
end

local function purge_steps(job)
  local facts, order, others = system('steps:' .. job), system('order:' .. job), {}
  local keys = call('LRANGE', order, 0, -1)
  for _, key in ipairs(keys) do
    local _, agent = cmsgpack.unpack(call('HGET', facts, 'f' .. key))
    if is_its(agent) then
      call('HDEL', facts, 'f' .. key, 'i' .. key, 'r' .. key)
    else
      others[#others + 1] = key
    end
  end
  call('UNLINK', order)
  bulk('RPUSH', order, others, 1)
  return #keys - #others
end

-- Steps that its agents have begun.
local function jobs()
  local list = of_organization('jobs', organization .. '/')
  local rows, job = 0, nil
  repeat
    job = call('SPOP', list)
    if job then rows = rows + purge_steps(job) end
  until not job or rows >= limit
  return rows, job and 0
end

local function index(name, term)
  return system('index:' .. ARGV[7] .. '\0' .. name .. '\0' .. term)
end

local function documents()
  local keys = call('ZRANGE', index(organization, ''), 0, limit - 1)
  for _, key in ipairs(keys) do
    local _, _, _, terms = cmsgpack.unpack(call('HGET', system('documents:' .. ARGV[7]), key))
    terms[#terms + 1] = ''
    for _, term in ipairs(terms) do
      call('ZREM', index(organization, term), key)
      call('ZREM', index('', term), key)
    end
    call('HDEL', system('documents:' .. ARGV[7]), key)
    call('HDEL', system('bodies:' .. ARGV[7]), key)
  end
  return #keys, #keys == limit and 0
end

local function deleted()
  local found, rows = call('ZRANGE', system('deleted'), place, place + limit - 1), 0
  for _, member in ipairs(found) do
    local collection, key = string.match(member, '^(.-)%z(.*)$')
    local kept = call('HGET', system('documents:' .. collection), key)
    local _, _, whose = cmsgpack.unpack(kept)
    if whose == organization then
      call('HDEL', system('documents:' .. collection), key)
      call('ZREM', system('deleted'), member)
      rows = rows + 1
    end
  end
  return rows, #found == limit and place + #found - rows
end

local function feed()
  local rows, last = 0, nil
  local found = call('XRANGE', system('feed'), (place + 1) .. '-0', '+', 'COUNT', limit)
  for _, entry in ipairs(found) do
    last = tonumber(string.match(entry[1], '^%d+'))
    if entry[2][2] == organization then rows = rows + call('XDEL', system('feed'), entry[1]) end
  end
  return rows, #found == limit and last
end

local work = {
  agents = agents, sent = sent, jobs = jobs, documents = documents, deleted = deleted, feed = feed,
}
local rows, following = work[ARGV[3]]()
settle()
return '\146' .. pack(rows) .. optional(following)
