#!lua
-- Commits, each wholly or not at all, in order; later ones see the earlier ones.
--
-- ARGV[3]  the commits: msgpack, an array of the contract's records
-- ARGV[4]  pending messages of all agents from which on nothing is added
-- ARGV[5]  feed events that are kept, about
-- ARGV[6]  messages in one inbox from which on those from outside are refused
--
--   {system}:pending, {system}:head, {system}:cursor   ints, the counters
--   everything that redis_judge.lua and redis_write.lua list
--
-- Answers an array of ['ok', version, seqs, cursor] | ['no', reason, detail] |
-- ['defect', what]. A defect is a commit that no store could mean: nothing of it
-- was written, unless `what` begins with "torn", which no commit should reach.
-- Errors, with nothing written: TROUPE_CHANGED, TROUPE_FULL.
-- with redis_base.lua redis_roster.lua redis_inbox.lua redis_judge.lua redis_write.lua
local INCARNATION = incarnation()
if not INCARNATION then return CHANGED end
local commits, sends, done, events = cmsgpack.unpack(ARGV[3]), 0, 0, 0
for _, commit in ipairs(commits) do
  sends = sends + #(commit[SENDS] or '')
  done = done + #(commit[ACKS] or '') + #(commit[BURIES] or '')
  events = events + #(commit[FEED] or '')
end
local present = tonumber(call('GET', system('pending')) or 0)
if sends > done and present >= tonumber(ARGV[4]) then
  return redis.error_reply('TROUPE_FULL ' .. present .. ' messages are pending')
end
check(system('risen'), 'string')
FLOOR = tonumber(call('GET', system('floor')) or 0)
HEAD, CURSOR = reserve('head', sends), reserve('cursor', events)

local writing = false
local function commit_one(commit)
  local facts, one = {}, commit[AGENT] and agent_at(commit[AGENT])
  local reason, detail = judge(commit, one, facts, INCARNATION)
  if reason then return { 'no', reason, detail } end
  local plan = render(commit, one, facts)
  writing = true
  local seqs = write(plan, one)
  writing = false
  return { 'ok', one and one.version or 0, seqs, CURSOR.at }
end

local answers = {}
for at, commit in ipairs(commits) do
  local done, answer = pcall(commit_one, commit)
  if not done then
    local what = type(answer) == 'table' and answer.err or tostring(answer)
    answer = { 'defect', (writing and 'torn: ' or '') .. what }
    writing = false
  end
  answers[at] = answer
end
write_shared()
settle()
return pack(answers)
