#!lua flags=no-writes
-- One document; nothing: it is absent.
--
-- ARGV[3]  collection   ARGV[4]  key
--
-- Keys (read): what redis_document.lua lists.
-- with redis_base.lua redis_document.lua
return document_row(ARGV[3], ARGV[4]) or NIL
