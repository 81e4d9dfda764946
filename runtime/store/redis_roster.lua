#!lua
-- Who may hold agents, who holds which, whose inbox waits, and who is to be rung.
--
--   {system}:owners           zset  owner -> end of its lease (ms)
--   {system}:lapsing          zset  the same, until the lapse has been noticed
--   {system}:channels         hash  owner -> its client's ring channel
--   {system}:told             hash  owner -> `risen` when its poll last had news
--   {system}:risen            int   grows whenever an agent becomes ready
--   {system}:deserted         set   holders without a live lease that agents wait at
--   {system}:waiting:<owner>  zset  agent -> seq of its first pending message; the
--                                   owner '' is nobody; without agents of `system`
--   {system}:fresh:<owner>    zset  agent -> seq of its latest message while held
--   {system}:epoch_floor      int   greatest epoch of an agent that was purged
--   {org}:agent:<agent>       hash  epoch, owner, retried: some message was,
--                                   forgotten: events gone from the journal's beginning
--   {org}:journal:<agent>     list  of events; its length gives the version
--   {org}:pending:<agent>     zset  message id -> seq
--
-- Invariant: an agent is in `waiting` of its holder exactly while it has pending
-- messages, and in `fresh` at least then: what a poll finds there without any it
-- passes over. Safety never rests here: a lease only tells whether claiming would
-- be rude.
--
-- What arrives and what is finished is entered in `waiting` and `fresh` once, when
-- the script ends (`settle`), for all agents of a holder together.
--
-- Rings are published once, then: on `<prefix>{system}:ring` what concerns
-- everybody, on `<prefix>{system}:ring:<channel>` what one client waits for. A ring that
-- is forbidden is a lost one: by then all is written.
local RINGS, RUNG, RISEN = {}, {}, 0
local LIVE, CHANNELS, AGENTS, TOUCHED = {}, {}, {}, {}

local WAITING, FRESH = {}, {}
local function waiting_at(owner)
  owner = owner or ''
  local key = WAITING[owner]
  if not key then
    key = system('waiting:' .. owner)
    WAITING[owner], FRESH[owner] = key, system('fresh:' .. owner)
  end
  return key
end

local function fresh_at(owner)
  return FRESH[owner] or system('fresh:' .. owner)
end

local function ring(channel, key)
  local rings = RINGS[channel]
  if not rings then
    rings = {}
    RINGS[channel] = rings
  end
  rings[#rings + 1] = key
end

local function channel_of(owner)
  local channel = CHANNELS[owner]
  if channel == nil then
    channel = call('HGET', system('channels'), owner)
    CHANNELS[owner] = channel
  end
  return channel
end

local function ring_owner(owner)
  if RUNG[owner] or not channel_of(owner) then return end
  RUNG[owner] = true
  ring(system('ring:' .. channel_of(owner)), { 'poll', owner })
end

local function is_live(owner)
  if not owner then return false end
  local live = LIVE[owner]
  if live == nil then
    local ends = call('ZSCORE', system('owners'), owner)
    live = ends ~= false and tonumber(ends) > NOW
    LIVE[owner] = live
    -- Noticed already where the clock was set back since: it lapses once more.
    if live then call('ZADD', system('lapsing'), 'NX', ends, owner) end
  end
  return live
end

-- Announce leases that have ended since somebody last looked.
local function notice_lapses()
  for _, owner in ipairs(call('ZRANGEBYSCORE', system('lapsing'), '-inf', NOW)) do
    call('ZREM', system('lapsing'), owner)
    if call('EXISTS', waiting_at(owner)) == 1 then
      call('SADD', system('deserted'), owner)
      RISEN = RISEN + 1
    end
  end
end

local function agent_at(address)
  local one = AGENTS[address]
  if not one then
    local row = call('HMGET', of_agent('agent', address), 'epoch', 'owner', 'forgotten', 'retried')
    local pending = of_agent('pending', address)
    one = {
      address = address,
      epoch = tonumber(row[1] or 0),
      owner = row[2],
      forgotten = tonumber(row[3] or 0),
      retried = row[4],
      reserved = find(address, 'system/', 1, true) == 1,
      pending = pending,
      known = of_agent('known', address),
      inbox = of_agent('inbox', address),
      count = call('ZCARD', pending),
      version = false, first = false, last = false, touched = false,
    }
    AGENTS[address] = one
  end
  return one
end

local function version_of(one)
  if not one.version then
    one.version = one.forgotten + call('LLEN', of_agent('journal', one.address))
  end
  return one.version
end

local function first_pending(one)
  return call('ZRANGE', one.pending, 0, 0, 'WITHSCORES')[2]
end

local function touch(one)
  if not one.touched then
    one.touched = true
    TOUCHED[#TOUCHED + 1] = one
  end
end

-- Raises unless the holder's keys are what they must be; nothing of them is read
-- for the first time after this.
local PLACES = {}
local function check_places(one)
  if PLACES[one.owner] then return end
  PLACES[one.owner] = true
  check(system('deserted'), 'set')
  check(waiting_at(one.owner), 'zset')
  if not one.owner then return end
  check(fresh_at(one.owner), 'zset')
  is_live(one.owner)
  channel_of(one.owner)
end

-- A message is in the agent's inbox; its seq is beyond every earlier one.
local function arrived(one, seq)
  one.count, one.last = one.count + 1, seq
  if one.count == 1 then
    one.first = seq
    if not one.reserved and not is_live(one.owner) then RISEN = RISEN + 1 end
  end
  if one.owner then ring_owner(one.owner) end
  touch(one)
end

-- So many of the agent's messages are done or dead.
local function finished(one, gone)
  one.count, one.first = one.count - gone, false
  touch(one)
end

-- What `waiting` of each holder gains and loses.
local function changes()
  local gained, lost = {}, {}
  for _, one in ipairs(TOUCHED) do
    local key = waiting_at(one.owner)
    if not one.reserved and one.count > 0 then
      local list = gained[key] or {}
      gained[key] = list
      list[#list + 1] = one.first or first_pending(one)
      list[#list + 1] = one.address
      if one.owner and not is_live(one.owner) then call('SADD', system('deserted'), one.owner) end
    elseif not one.reserved then
      local list = lost[key] or {}
      lost[key] = list
      list[#list + 1] = one.address
    end
    if one.owner and one.last then
      key = fresh_at(one.owner)
      local list = gained[key] or {}
      gained[key] = list
      list[#list + 1] = one.last
      list[#list + 1] = one.address
    end
    one.touched, one.first, one.last = false, false, false
  end
  TOUCHED = {}
  return gained, lost
end

-- Enter what has changed and ring: before claims are read, and when the script ends.
local function settle()
  local gained, lost = changes()
  for key, list in pairs(gained) do bulk('ZADD', key, list, 2) end
  for key, list in pairs(lost) do bulk('ZREM', key, list, 1) end
  if RISEN > 0 then
    call('INCRBY', system('risen'), RISEN)
    ring(system('ring'), { 'poll' })
  end
  for channel, rings in pairs(RINGS) do redis.pcall('PUBLISH', channel, pack(rings)) end
  RISEN, RINGS, RUNG = 0, {}, {}
end

-- Make `owner` the holder under the next epoch, or with nil nobody. The agent must
-- not have changed since `settle`.
local function move(one, owner)
  call('HDEL', system('told'), owner or one.owner)
  call('ZREM', waiting_at(one.owner), one.address)
  if one.owner then call('ZREM', fresh_at(one.owner), one.address) end
  one.owner = owner
  local key = of_agent('agent', one.address)
  if owner then
    if one.epoch == 0 then one.epoch = tonumber(call('GET', system('epoch_floor')) or 0) end
    one.epoch = one.epoch + 1
    call('HSET', key, 'epoch', one.epoch, 'owner', owner)
  else
    call('HDEL', key, 'owner')
  end
  if one.count == 0 then return end
  if owner then
    local last = call('ZREVRANGE', one.pending, 0, 0, 'WITHSCORES')[2]
    call('ZADD', fresh_at(owner), last, one.address)
  end
  if not one.reserved then
    call('ZADD', waiting_at(owner), first_pending(one), one.address)
    if not owner then RISEN = RISEN + 1 end
  end
end

-- Forget an owner: what it held can be claimed, its fences live until then.
local function remove_owner(owner)
  for _, name in ipairs({ 'owners', 'lapsing' }) do call('ZREM', system(name), owner) end
  for _, name in ipairs({ 'channels', 'told', 'names' }) do call('HDEL', system(name), owner) end
  LIVE[owner] = false
  if call('EXISTS', waiting_at(owner)) == 1 then
    call('SADD', system('deserted'), owner)
    RISEN = RISEN + 1
  end
end

local function lease(owner, ends)
  call('ZADD', system('owners'), ends, owner)
  call('ZADD', system('lapsing'), ends, owner)
  call('SREM', system('deserted'), owner)
end

-- Holders whose agents may be claimed: nobody (''), and those without a live lease.
local function deserted()
  local found = { '' }
  for _, owner in ipairs(call('SMEMBERS', system('deserted'))) do
    if not is_live(owner) then found[#found + 1] = owner end
  end
  return found
end
