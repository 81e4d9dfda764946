#!lua flags=allow-oom
-- Draw the incarnation anew when this is not the server it was drawn on: it was
-- restarted, promoted or emptied, and may have lost accepted data. Of many clients
-- that see it at once, one draws.
--
-- ARGV[3]  the new incarnation   ARGV[4]  the layout of what is written from now on
-- ARGV[5]  '1': the append-only file is whole
--
--   {system}:server    hash  incarnation, run_id, replid, layout, whole, since
--
-- Answers [incarnation, whether it was drawn now].
-- with redis_base.lua
local key, info = system('server'), call('INFO', 'server') .. call('INFO', 'replication')
local run_id = string.match(info, 'run_id:(%x+)')
local replid = string.match(info, 'master_replid:(%x+)')
local kept = call('HMGET', key, 'incarnation', 'run_id', 'replid')
if kept[1] and kept[2] == run_id and kept[3] == replid then return pack({ kept[1], false }) end
call('HSET', key, 'incarnation', ARGV[3], 'run_id', run_id, 'replid', replid,
  'layout', ARGV[4], 'whole', ARGV[5], 'since', NOW)
return pack({ ARGV[3], true })
