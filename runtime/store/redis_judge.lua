#!lua
-- The rules of a commit: the first reason against it, in the contract's order.
--
--   {org}:agent:<agent>               hash  epoch, owner, forgotten, retried
--   {org}:journal:<agent>             list  its length gives the version
--   {org}:pending:<agent>             zset  message id -> seq
--   {org}:known:<agent>               hash  message id -> seq, and what has become of it
--   {system}:documents:<collection>   hash  key -> revision, live, organization, terms, updated
--   {system}:steps:<job>              hash  f<key> -> kind, agent, epoch, attempts, at, ended
--   {system}:forgotten                int   latest finish (ms) of a forgotten message
--
-- It only reads. A commit is the contract's msgpack array, with nil for an empty
-- part; the names below say what is where. What was read on the way is left in
-- `facts`, for writing.
local ORGANIZATION, AGENT, FENCE, EXPECTED, ACKS, RETRIES, BURIES = 1, 2, 3, 4, 5, 6, 7
local EVENTS, SNAPSHOT, SENDS, REMINDERS, INTENTS, RESULTS, PUTS, FEED = 8, 9, 10, 11, 12, 13, 14, 15
local ABSENT, ANY = 0, -1

local function starts(value, with)
  return find(value, with, 1, true) == 1
end

local function foreign(organization, sends)
  local own = organization .. '/'
  for _, send in ipairs(sends) do
    local inside = starts(send[3], own) or starts(send[3], 'system/')
    if not inside or not starts(send[2], own) then return 'foreign_organization', send[3] end
  end
end

local function fenced(fence, expected, one, present)
  if fence[1] ~= present then return 'stale_incarnation', 'now ' .. present end
  if one.epoch == 0 or fence[2] ~= one.epoch then return 'stale_epoch', 'now ' .. one.epoch end
  if version_of(one) ~= expected and expected ~= nil then
    return 'version_conflict', 'now ' .. one.version
  end
end

-- A document's record, read once a commit; what is deleted keeps its revision.
local function document(facts, collection, key)
  local where = collection .. '\0' .. key
  facts.documents = facts.documents or {}
  local found = facts.documents[where]
  if not found then
    local kept = call('HGET', system('documents:' .. collection), key)
    found = { revision = 0, live = false, organization = '', terms = {} }
    if kept then
      found.revision, found.live, found.organization, found.terms = cmsgpack.unpack(kept)
    end
    facts.documents[where] = found
  end
  return found
end

-- Each put is judged against what the earlier ones of its commit leave.
local function conflicting_put(organization, puts, facts)
  local live, revision, owner = {}, {}, {}
  for _, put in ipairs(puts) do
    local where = put[1] .. '\0' .. put[2]
    local kept = document(facts, put[1], put[2])
    if live[where] == nil then
      live[where], revision[where], owner[where] = kept.live, kept.revision, kept.organization
    end
    if (live[where] and owner[where] ~= put[3])
      or (organization ~= put[3] and organization ~= 'system') then
      return 'foreign_organization', put[1] .. '/' .. put[2]
    end
    local now = live[where] and revision[where] or ABSENT
    if put[6] ~= ANY and put[6] ~= now then
      return 'revision_conflict', put[1] .. '/' .. put[2]
    end
    if live[where] or put[4] ~= nil then revision[where] = revision[where] + 1 end
    live[where], owner[where] = put[4] ~= nil, put[3]
  end
end

-- The milliseconds of a ULID; nothing: it is none.
local ULID = '^[0-7][0-9A-HJKMNP-TV-Z]+$'
local DIGITS = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
local function ulid_ms(id)
  if #id ~= 26 or not find(id, ULID) then return nil end
  local at_ms = 0
  for at = 1, 10 do at_ms = at_ms * 32 + find(DIGITS, string.sub(id, at, at), 1, true) - 1 end
  return at_ms
end

local FORGOTTEN
local function is_expired(id)
  FORGOTTEN = FORGOTTEN or tonumber(call('GET', system('forgotten')) or -1)
  if FORGOTTEN < 0 then return false end
  local made_ms = ulid_ms(id)
  return made_ms ~= nil and made_ms <= FORGOTTEN
end

local function duplicate(sends)
  local sent = {}
  for _, send in ipairs(sends) do
    local where = #sends > 1 and send[3] .. '\0' .. send[1] or 1
    if sent[where] or was_received(agent_at(send[3]), send[1]) then return 'duplicate', send[1] end
    if is_expired(send[1]) then return 'expired', send[1] end
    sent[where] = true
  end
end

-- Messages from outside find no room where too many wait already.
local INBOX_MAX = tonumber(ARGV[6])
local function without_room(sends)
  for _, send in ipairs(sends) do
    if agent_at(send[3]).count >= INBOX_MAX then return 'inbox_full', send[3] end
  end
end

-- Whether the commit's first send is a message that it handles itself.
local function at_once(commit)
  local first, ack = (commit[SENDS] or {})[1], (commit[ACKS] or {})[1]
  return first and ack and first[3] == commit[AGENT] and first[1] == ack[1]
end

local function not_pending(items, from, one, facts)
  facts.messages = facts.messages or {}
  for at = from, #items do
    local id = items[at][1]
    local seq, attempts, not_before = pending_message(one, id)
    if not seq or facts.messages[id] then return 'not_pending', id end
    facts.messages[id] = { seq = seq, attempts = attempts, not_before = not_before }
  end
end

-- A step's record, read once a commit; false: no intent was recorded.
local function step(facts, job, key)
  local where = job .. '\0' .. key
  facts.steps = facts.steps or {}
  local found = facts.steps[where]
  if found == nil then
    local kept = call('HGET', system('steps:' .. job), 'f' .. key)
    found = false
    if kept then
      found = {}
      found.kind, found.agent, found.epoch, found.attempts, found.at, found.ended =
        cmsgpack.unpack(kept)
    end
    facts.steps[where] = found
  end
  return found
end

local function conflicting_step(intents, results, one, facts)
  local begun, ended = {}, {}
  for _, intent in ipairs(intents or {}) do
    local found = step(facts, intent[1], intent[2])
    if found and found.ended then return 'step_conflict', intent[2] end
    begun[intent[1] .. '\0' .. intent[2]] = true
  end
  for _, result in ipairs(results or {}) do
    local where = result[1] .. '\0' .. result[2]
    local found = step(facts, result[1], result[2])
    local open = found and not found.ended and found.agent == one.address
      and found.epoch == one.epoch
    if ended[where] or not (begun[where] or open) then return 'step_conflict', result[2] end
    ended[where] = true
  end
end

-- What a commit of an agent alone can be refused for.
local function judge_turn(commit, one, facts)
  local reason, detail
  facts.at_once = at_once(commit)
  if facts.at_once and one.count > 0 then return 'overtaking', commit[ACKS][1][1] end
  for part = ACKS, BURIES do
    if commit[part] then
      local from = part == ACKS and facts.at_once and 2 or 1
      reason, detail = not_pending(commit[part], from, one, facts)
      if reason then return reason, detail end
    end
  end
  if commit[INTENTS] or commit[RESULTS] then
    return conflicting_step(commit[INTENTS], commit[RESULTS], one, facts)
  end
end

-- The first reason against a commit and its detail; nothing: it may be written.
local function judge(commit, one, facts, present)
  local sends, reason, detail = commit[SENDS], nil, nil
  if sends and commit[ORGANIZATION] ~= 'system' then
    reason, detail = foreign(commit[ORGANIZATION], sends)
  end
  if one and not reason then
    reason, detail = fenced(commit[FENCE], commit[EXPECTED], one, present)
  end
  if commit[PUTS] and not reason then
    reason, detail = conflicting_put(commit[ORGANIZATION], commit[PUTS], facts)
  end
  if sends and not reason then reason, detail = duplicate(sends) end
  if one and not reason then return judge_turn(commit, one, facts) end
  if sends and not reason then reason, detail = without_room(sends) end
  return reason, detail
end
