#!lua
-- Inboxes: messages arrive once, are read in order, and reminders become messages.
--
--   {system}:head             int     seq of the latest message
--   {system}:pending          int     pending messages of all agents
--   {system}:due              zset    agent \0 reminder key -> due time (ms)
--   {org}:inbox:<agent>       stream  seq-0 -> `m`: the message as it was sent
--   {org}:known:<agent>       hash    message id -> seq, and what has become of it
--   {org}:pending:<agent>     zset    message id -> seq
--   {org}:reminders:<agent>   hash    reminder key -> body
--
-- A message is answered as what was sent followed by what has become of it. One that
-- nothing has happened to yet is in `pending` and not in `known`.
local UNTOUCHED, NOW_ALONE = pack('pending', 0, 0, nil, nil, nil), pack(NOW, nil)

-- A message to be delivered, all but its seq. `pending` and `known` have been read by
-- then, so only what is written unread is checked.
local function letter(id, sender, recipient, content, reply_to)
  local one = agent_at(recipient)
  check(one.inbox, 'stream')
  check_places(one)
  return {
    to = one, id = id, head = pack(text(id), text(sender), text(recipient)),
    content = body(content), tail = reply_to and pack(NOW, text(reply_to)) or NOW_ALONE,
  }
end

-- Among the agent's messages, whether or not anybody has yet to handle it.
local function enter(sent, seq)
  call('XADD', sent.to.inbox, format('%d-0', seq), 'm',
    pack(seq) .. sent.head .. sent.content .. sent.tail)
end

local function deliver(sent, seq)
  local one, number = sent.to, format('%d', seq)
  enter(sent, seq)
  call('ZADD', one.pending, number, sent.id)
  arrived(one, number)
end

-- What is kept in `known` of a message that something has happened to.
local function fate(was, status, attempts, not_before, finished_ms, reply, problem)
  return pack(was.seq, status, attempts, not_before, finished_ms)
    .. (reply and body(reply) or NIL) .. (problem and pack(text(problem)) or NIL)
end

local function was_received(one, id)
  return one.count > 0 and call('ZSCORE', one.pending, id)
    or call('HEXISTS', one.known, id) == 1
end

-- seq, attempts and not_before of a pending message; nil: it is none.
local function pending_message(one, id)
  local seq = call('ZSCORE', one.pending, id)
  if not seq then return nil end
  local kept = one.retried and call('HGET', one.known, id)
  if not kept then return tonumber(seq), 0, 0 end
  local _, _, _, attempts, not_before = cmsgpack.unpack_limit(kept, 4)
  return tonumber(seq), attempts, not_before
end

-- A message as it is answered: what was sent, and what is kept in `known`.
local function joined(sent, kept)
  return '\157' .. sent .. (kept and string.sub(kept, unpack_one(kept) + 1) or UNTOUCHED)
end

-- One message as it is answered; nil when it is not there (any more).
local function message(address, id, seq)
  local at = seq .. '-0'
  local found = call('XRANGE', of_agent('inbox', address), at, at)[1]
  return found and joined(found[2][2], call('HGET', of_agent('known', address), id))
end

-- Pending messages of an agent beyond `after`, until `limit` of them or `size_max`
-- bytes are passed; and the last seq that was looked at when that was so.
local function waiting_messages(address, after, limit, size_max)
  local rows, size, last = {}, 0, nil
  local found = call('ZRANGEBYSCORE', of_agent('pending', address), '(' .. after, '+inf',
    'WITHSCORES', 'LIMIT', 0, limit)
  for at = 1, #found, 2 do
    if size > size_max then return rows, last end
    local row = message(address, found[at], found[at + 1])
    last = tonumber(found[at + 1])
    if row then
      rows[#rows + 1] = row
      size = size + #row
    end
  end
  return rows, #found == 2 * limit and last or nil
end

-- Put up to `limit` due reminders into their inboxes; true when more are due.
local function fire_due(limit)
  local due = call('ZRANGEBYSCORE', system('due'), '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, limit)
  for at = 1, #due, 2 do
    local address, key = string.match(due[at], '^(.-)%z(.*)$')
    local id = format('reminder:%s:%.0f', key, tonumber(due[at + 1]))
    local bodies = of_agent('reminders', address)
    local before = was_received(agent_at(address), id)
    local sent = letter(id, address, address, call('HGET', bodies, key))
    call('ZREM', system('due'), due[at])
    call('HDEL', bodies, key)
    if not before then
      call('INCR', system('pending'))
      deliver(sent, call('INCR', system('head')))
    end
  end
  return #due == 2 * limit
end
