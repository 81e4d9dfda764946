#!lua flags=no-writes
-- What a client hears first on a connection: whose server this is, and how full.
--
-- ARGV[3]  the layout this client knows
--
--   {system}:server    hash  incarnation, run_id, replid, layout, whole
--   {system}:owners    zset  owner -> end of its lease (ms)
--   {system}:kept      hash  since (ms), rows
--   {system}:head, {system}:cursor, {system}:pending   ints
--
-- Answers [incarnation, restarted, whole, messages, events, pending, owners whose lease
-- is live, what was forgotten up to (ms), rows forgotten]; the incarnation is '' when this is not the server it was drawn on: then
-- redis_draw.lua must run.
-- with redis_base.lua
local layout, run_id, whole = unpack(call('HMGET', system('server'), 'layout', 'run_id', 'whole'))
if layout and layout ~= ARGV[3] then return redis.error_reply('TROUPE_LAYOUT ' .. layout) end
local present, restarted = incarnation(), false
if run_id ~= string.match(call('INFO', 'server'), 'run_id:(%x+)') then
  present, restarted = nil, run_id ~= false
end
local owners = call('ZRANGEBYSCORE', system('owners'), '(' .. NOW, '+inf')
local since, forgotten = unpack(call('HMGET', system('kept'), 'since', 'rows'))
local function counter(name) return tonumber(call('GET', system(name)) or 0) end
return pack({ present or '', restarted, whole ~= '0', counter('head'), counter('cursor'),
  counter('pending'), owners, tonumber(since or 0), tonumber(forgotten or 0) })
