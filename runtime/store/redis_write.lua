#!lua
-- Writing a commit that was judged: first all of it is rendered, then written.
--
--   {org}:journal:<agent>             list    of events
--   {org}:snapshot:<agent>            string  version, snapshot
--   {org}:agent:<agent>               hash    retried: some message was
--   {org}:known:<agent>               hash    message id -> seq, and what has become of it
--   {org}:awaited:<agent>\0<id>       set     channels of who waits for the outcome
--   {org}:reminders:<agent>           hash    reminder key -> body
--   {system}:due                      zset    agent \0 reminder key -> due time (ms)
--   {system}:finished                 list    finished_ms, agent, message id; oldest first
--   {system}:dead                     zset    agent \0 message id -> finished_ms
--   {system}:steps:<job>              hash    f<key> facts, i<key> intent, r<key> result
--   {system}:order:<job>              list    keys of steps, in order of first intent
--   {system}:documents:<collection>   hash    key -> its record
--   {system}:bodies:<collection>      hash    key -> body
--   {system}:index:<collection>\0<organization>\0<term>   zset of keys, scores 0
--   {system}:deleted                  zset    collection \0 key -> deleted at (ms)
--   {system}:feed                     stream  cursor-0 -> `o` organization, `e` the event
--   {system}:floor                    int     cursor up to which the feed was forgotten
--   {system}:collections              set     of all collections
--   {system}:saved                    zset    agent -> time (ms) of its oldest event, where
--                                             a snapshot covers it
--   {org}:jobs                        set     jobs in which its agents have begun steps
--   {system}:head, {system}:cursor, {system}:pending   ints
--
-- Redis never undoes: what could raise (a part of a wrong type, a key that holds
-- another type) raises in `render_*`, so that `write_*` has nothing left to fail at.
-- The organization '' of an index is everybody's, its term '' every document's.
local FEED_MAX = tonumber(ARGV[5])

-- Seqs and cursors are reserved for all commits of the call and the rest is given
-- back: should a script end in the middle, numbers are missing and none comes twice.
local function reserve(name, count)
  local key = system(name)
  local last = tonumber(count > 0 and call('INCRBY', key, count) or call('GET', key) or 0)
  return { key = key, at = last - count, first = last - count, last = last }
end

local HEAD, CURSOR, FLOOR, PENDING, FINISHED = nil, nil, nil, 0, {}

-- rendering

local function render_events(events, one, cause)
  local rendered = {}
  for at, event in ipairs(events) do
    rendered[at] = '\150' .. pack(one.version + at, text(event[1])) .. body(event[2])
      .. pack(whole(event[3]), NOW, cause)
  end
  return rendered
end

local function render_snapshot(snapshot, version)
  return pack(version) .. '\146' .. body(snapshot[1]) .. pack(whole(snapshot[2]))
end

-- Channels of the clients that wait for a message's outcome.
local function awaiting(one, id)
  return call('SMEMBERS', of_agent('awaited', one.address) .. '\0' .. id)
end

local function render_fates(commit, one, facts)
  local fates, acks = {}, commit[ACKS] or {}
  for at = facts.at_once and 2 or 1, #acks do
    local ack = acks[at]
    local id, was = ack[1], facts.messages[ack[1]]
    local kept = fate(was, 'processed', was.attempts, was.not_before, NOW, ack[2], nil)
    fates[#fates + 1] = { id = id, gone = 'done', kept = kept, tell = awaiting(one, id) }
  end
  for _, bury in ipairs(commit[BURIES] or {}) do
    local id, was = bury[1], facts.messages[bury[1]]
    local kept = fate(was, 'dead', was.attempts, was.not_before, NOW, nil, bury[2])
    fates[#fates + 1] = { id = id, gone = 'dead', kept = kept, tell = awaiting(one, id) }
  end
  for _, retry in ipairs(commit[RETRIES] or {}) do
    local was = facts.messages[retry[1]]
    local kept = fate(was, 'pending', was.attempts + 1, whole(retry[2]), nil, nil, retry[3])
    fates[#fates + 1] = { id = retry[1], gone = false, kept = kept }
  end
  check(one.known, 'hash')
  check(system('finished'), 'list')
  check(system('dead'), 'zset')
  return fates
end

local function render_reminders(reminders, one)
  check(of_agent('reminders', one.address), 'hash')
  check(system('due'), 'zset')
  local rendered = {}
  for at, remind in ipairs(reminders) do
    rendered[at] = {
      key = text(remind[1]), due = maybe(whole, remind[2]), body = body(remind[3]),
    }
  end
  return rendered
end

local function step_change(job, key, found, field, content)
  check(system('order:' .. job), 'list')
  check(of_organization('jobs', found.agent), 'set')
  return {
    job = job, key = key, field = field, content = content, agent = found.agent,
    facts = pack(found.kind, found.agent, found.epoch, found.attempts, found.at, found.ended),
  }
end

local function render_steps(commit, one, facts)
  local changes = {}
  for _, intent in ipairs(commit[INTENTS] or {}) do
    local job, key = intent[1], intent[2]
    local found, field = facts.steps[job .. '\0' .. key], nil
    if not found then
      found, field = { kind = text(intent[3]), attempts = 0, ended = false }, 'i'
      facts.steps[job .. '\0' .. key] = found
    end
    found.agent, found.epoch, found.at = one.address, one.epoch, NOW
    found.attempts = found.attempts + 1
    changes[#changes + 1] = step_change(job, key, found, field, field and body(intent[4]))
  end
  for _, result in ipairs(commit[RESULTS] or {}) do
    local job, key = result[1], result[2]
    local found = facts.steps[job .. '\0' .. key]
    found.ended, found.at = true, NOW
    changes[#changes + 1] = step_change(job, key, found, 'r', body(result[3]))
  end
  return changes
end

local function index(collection, organization, term)
  return system('index:' .. collection .. '\0' .. organization .. '\0' .. term)
end

-- Index keys that a document with this record is in.
local function indexes(collection, found)
  local keys = {}
  if not found.live then return keys end
  for _, organization in ipairs({ '', found.organization }) do
    keys[index(collection, organization, '')] = true
    for _, term in ipairs(found.terms) do keys[index(collection, organization, term)] = true end
  end
  return keys
end

-- What a put changes; nil: it deletes what is absent.
local function render_put(put, facts)
  local collection, key, content = put[1], put[2], maybe(body, put[4])
  local found = facts.documents[collection .. '\0' .. key]
  if not content and not found.live then return nil end
  local before = indexes(collection, found)
  found.revision, found.live = found.revision + 1, content ~= nil
  found.organization, found.terms = put[3], found.live and texts(put[5]) or {}
  local after = indexes(collection, found)
  local change = { collection = collection, key = text(key), body = content, out = {}, into = {} }
  change.is_new = found.revision == 1
  change.kept = pack(found.revision, found.live, text(found.organization), found.terms, NOW)
  for name in pairs(before) do
    check(name, 'zset')
    if not after[name] then change.out[#change.out + 1] = name end
  end
  for name in pairs(after) do
    check(name, 'zset')
    if not before[name] then change.into[#change.into + 1] = name end
  end
  check(system('bodies:' .. collection), 'hash')
  check(system('deleted'), 'zset')
  check(system('collections'), 'set')
  return change
end

local function render_feed(feed)
  check(system('feed'), 'stream')
  local rendered = {}
  for at, event in ipairs(feed) do
    rendered[at] = {
      organization = event[1],
      event = pack(text(event[1]), text(event[2]), texts(event[3]), whole(event[4])) .. body(event[5]),
    }
  end
  return rendered
end

local function render_turn(commit, one, facts, plan)
  local version = one.version
  if commit[EVENTS] then
    plan.events = render_events(commit[EVENTS], one, commit[ACKS] and commit[ACKS][1][1])
    version = version + #plan.events
  end
  if commit[SNAPSHOT] then
    check(system('saved'), 'zset')
    plan.snapshot = render_snapshot(commit[SNAPSHOT], version)
  end
  if facts.messages then
    check_places(one)
    plan.fates = render_fates(commit, one, facts)
  end
  if commit[REMINDERS] then plan.reminders = render_reminders(commit[REMINDERS], one) end
  if facts.steps then plan.steps = render_steps(commit, one, facts) end
end

local function render_sends(commit, facts)
  local sends = {}
  for at, send in ipairs(commit[SENDS]) do sends[at] = letter(unpack(send, 1, 5)) end
  if facts.at_once then
    local reply = maybe(body, commit[ACKS][1][2])
    sends[1].fate = pack('processed', 0, 0, NOW) .. (reply or NIL) .. NIL
  end
  return sends
end

local function render(commit, one, facts)
  local plan = {}
  if one then render_turn(commit, one, facts, plan) end
  if commit[SENDS] then plan.sends = render_sends(commit, facts) end
  if commit[PUTS] then
    plan.puts = {}
    for _, put in ipairs(commit[PUTS]) do
      plan.puts[#plan.puts + 1] = render_put(put, facts)
    end
  end
  if commit[FEED] then plan.feed = render_feed(commit[FEED]) end
  return plan
end

-- writing

local function write_events(events, one)
  local key = of_agent('journal', one.address)
  for _, event in ipairs(events) do call('RPUSH', key, event) end
  one.version = one.version + #events
end

local function write_snapshot(snapshot, one)
  call('SET', of_agent('snapshot', one.address), snapshot)
  local oldest = call('LINDEX', of_agent('journal', one.address), 0)
  if oldest then call('ZADD', system('saved'), event_time(oldest), one.address) end
end

local function write_fates(fates, one)
  local gone = 0
  for _, item in ipairs(fates) do
    call('HSET', one.known, item.id, item.kept)
    if item.gone then
      gone = gone + 1
      call('ZREM', one.pending, item.id)
      if item.gone == 'dead' then
        call('ZADD', system('dead'), NOW, one.address .. '\0' .. item.id)
      else
        FINISHED[#FINISHED + 1] = pack(NOW, one.address, item.id)
      end
      for _, channel in ipairs(item.tell) do
        ring(system('ring:' .. channel), { 'outcome', one.address, item.id })
      end
    elseif not one.retried then
      one.retried = true
      call('HSET', of_agent('agent', one.address), 'retried', 1)
    end
  end
  if gone > 0 then finished(one, gone) end
  PENDING = PENDING - gone
end

local function write_reminders(reminders, one)
  local bodies = of_agent('reminders', one.address)
  for _, remind in ipairs(reminders) do
    local member = one.address .. '\0' .. remind.key
    if remind.due == nil then
      call('ZREM', system('due'), member)
      call('HDEL', bodies, remind.key)
    else
      call('ZADD', system('due'), remind.due, member)
      call('HSET', bodies, remind.key, remind.body)
      if call('ZRANGE', system('due'), 0, 0)[1] == member then
        ring(system('ring'), { 'due', math.max(remind.due - NOW, 0) })
      end
    end
  end
end

local function write_steps(changes)
  for _, change in ipairs(changes) do
    local key = system('steps:' .. change.job)
    call('HSET', key, 'f' .. change.key, change.facts)
    if change.field then call('HSET', key, change.field .. change.key, change.content) end
    if change.field == 'i' then call('RPUSH', system('order:' .. change.job), change.key) end
    if change.field ~= 'r' then call('SADD', of_organization('jobs', change.agent), change.job) end
  end
end

local function write_puts(changes)
  for _, change in ipairs(changes) do
    local collection, key = change.collection, change.key
    call('HSET', system('documents:' .. collection), key, change.kept)
    if change.is_new then call('SADD', system('collections'), collection) end
    if change.body == nil then
      call('HDEL', system('bodies:' .. collection), key)
      call('ZADD', system('deleted'), NOW, collection .. '\0' .. key)
    else
      call('HSET', system('bodies:' .. collection), key, change.body)
      call('ZREM', system('deleted'), collection .. '\0' .. key)
    end
    for _, name in ipairs(change.out) do call('ZREM', name, key) end
    for _, name in ipairs(change.into) do call('ZADD', name, 0, key) end
  end
end

local function write_sends(letters)
  local seqs = {}
  for at, sent in ipairs(letters) do
    HEAD.at = HEAD.at + 1
    seqs[at] = HEAD.at
    if sent.fate then
      enter(sent, HEAD.at)
      call('HSET', sent.to.known, sent.id, pack(HEAD.at) .. sent.fate)
      FINISHED[#FINISHED + 1] = pack(NOW, sent.to.address, sent.id)
    else
      deliver(sent, HEAD.at)
      PENDING = PENDING + 1
    end
  end
  return seqs
end

local function write_feed(events)
  for _, event in ipairs(events) do
    CURSOR.at = CURSOR.at + 1
    call('XADD', system('feed'), CURSOR.at .. '-0',
      'o', event.organization, 'e', '\150' .. pack(CURSOR.at) .. event.event)
  end
  ring(system('ring'), { 'feed' })
end

-- Write a plan; the seqs of what was sent.
local function write(plan, one)
  if plan.events then write_events(plan.events, one) end
  if plan.snapshot then write_snapshot(plan.snapshot, one) end
  if plan.fates then write_fates(plan.fates, one) end
  if plan.reminders then write_reminders(plan.reminders, one) end
  if plan.steps then write_steps(plan.steps) end
  if plan.puts then write_puts(plan.puts) end
  local seqs = plan.sends and write_sends(plan.sends) or {}
  if plan.feed then write_feed(plan.feed) end
  return seqs
end

-- Forget the feed's beginning beyond FEED_MAX, a tenth of it at a time.
local function trim_feed()
  if CURSOR.at - FLOOR > FEED_MAX * 1.1 then
    call('XTRIM', system('feed'), 'MINID', CURSOR.at - FEED_MAX + 1)
    call('SET', system('floor'), CURSOR.at - FEED_MAX)
  end
end

-- Write what the commits of a call share, once.
local function write_shared()
  for _, numbers in ipairs({ HEAD, CURSOR }) do
    if numbers.at < numbers.last then call('DECRBY', numbers.key, numbers.last - numbers.at) end
  end
  if PENDING ~= 0 then call('INCRBY', system('pending'), PENDING) end
  if CURSOR.at > CURSOR.first then trim_feed() end
  bulk('RPUSH', system('finished'), FINISHED, 1)
end
