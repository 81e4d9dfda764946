#!lua
-- What every script begins with: its common arguments, names of keys, bytes.
--
-- ARGV[1]  prefix of all keys
-- ARGV[2]  the time in milliseconds, or '' for this server's own clock
--
--   {system}:server  hash  incarnation, the server it was drawn on, layout
--
-- Keys of an agent carry its organization as hash tag; what is asked for without
-- naming one carries {system}. `\0` separates parts that may be any text.
--
-- Rows are kept as the msgpack they are answered as, so that reading one is
-- concatenation. cmsgpack does not know the binary type, so bodies come, stay and
-- go as msgpack that is never unpacked. `text`, `whole` and `body` raise on what is
-- none: a commit is rendered before its first write, so a wrong part writes nothing.
--
-- Every string a script makes is hashed over all its bytes: few and late
-- concatenations are what makes a commit quick.
local PREFIX = ARGV[1]
local call, pack, unpack_one = redis.call, cmsgpack.pack, cmsgpack.unpack_one
local byte, find, format, number_at = string.byte, string.find, string.format, struct.unpack
local ipairs, type, tonumber, error = ipairs, type, tonumber, error
local NOW = tonumber(ARGV[2])
if not NOW then
  local time = call('TIME')
  NOW = time[1] * 1000 + math.floor(time[2] / 1000)
end
local NIL = '\192'

local function system(name)
  return PREFIX .. '{system}:' .. name
end

-- Key of an agent's `name`, from its address `organization/kind:key`.
local TAGS, NAMES = {}, {}
local function of_agent(name, address)
  local tag = TAGS[address]
  if not tag then
    local slash = find(address, '/', 1, true) or #address + 1
    tag = PREFIX .. '{' .. string.sub(address, 1, slash - 1) .. '}:'
    TAGS[address], NAMES[address] = tag, ':' .. string.sub(address, slash + 1)
  end
  return tag .. name .. NAMES[address]
end

-- Key of an organization's `name`, from the address of one of its agents.
local function of_organization(name, address)
  local slash = find(address, '/', 1, true) or #address + 1
  return PREFIX .. '{' .. string.sub(address, 1, slash - 1) .. '}:' .. name
end

local function text(value)
  if type(value) ~= 'string' then error('a text is missing', 0) end
  return value
end

local function whole(value)
  if type(value) ~= 'number' or value % 1 ~= 0 then error('a whole number is missing', 0) end
  return value
end

-- Bytes as msgpack: a head of the binary type that says how many follow.
local HEADS = { [196] = { 2, '>B' }, [197] = { 3, '>I2' }, [198] = { 5, '>I4' } }
local function body(value)
  local head = type(value) == 'string' and HEADS[byte(value)]
  if not head or #value < head[1] or number_at(head[2], value, 2) ~= #value - head[1] then
    error('a body is missing', 0)
  end
  return value
end

local function texts(list)
  local count = 0
  for _, value in pairs(list) do
    text(value)
    count = count + 1
  end
  if count ~= #list then error('a text is missing', 0) end
  return list
end

local function maybe(kind, value)
  if value == nil then return nil end
  return kind(value)
end

-- One command for many arguments, a bounded number at a time; `step` belong together.
local function bulk(command, key, given, step)
  local most = 1000 * step
  for at = 1, #given, most do
    call(command, key, unpack(given, at, math.min(at + most - 1, #given)))
  end
end

-- When an event of a journal was recorded: behind its body, which is passed over.
local function event_time(event)
  local offset = cmsgpack.unpack_limit(event, 2, 1)
  local head = HEADS[byte(event, offset + 1)]
  offset = offset + head[1] + number_at(head[2], event, offset + 2)
  local _, _, at_ms = cmsgpack.unpack_limit(event, 2, offset)
  return at_ms
end

-- A value, or nil where it is false.
local function optional(value)
  return value and pack(value) or NIL
end

-- A msgpack array of parts that are msgpack already.
local function array(parts)
  local size = #parts
  local head = size < 16 and string.char(144 + size) or '\221' .. struct.pack('>I4', size)
  return head .. table.concat(parts)
end

-- Raises unless the key holds this type or nothing: asked before a first write,
-- because what a script has written stays when it fails.
local CHECKED = {}
local function check(key, kind)
  if CHECKED[key] then return end
  local found = call('TYPE', key).ok
  if found ~= 'none' and found ~= kind then
    error(key .. ' holds a ' .. found .. ' where a ' .. kind .. ' belongs', 0)
  end
  CHECKED[key] = true
end

-- The store's incarnation; nil when this server is not the one it was drawn on
-- (restarted, promoted, emptied): then a client must greet it first.
local function incarnation()
  local kept = call('HMGET', system('server'), 'incarnation', 'replid')
  local present = string.match(call('INFO', 'replication'), 'master_replid:(%x+)')
  if kept[2] ~= present then return nil end
  return kept[1]
end
local CHANGED = redis.error_reply('TROUPE_CHANGED this server holds no incarnation of its own')
