-- The SQLite store's statements, by name.
--
-- `{rows}` stands where the values of one or many rows go: `(?, ?), (?, ?)`.
-- CROSS JOIN fixes the order of a join: from what is wanted to where it is.
-- (A row value `IN (VALUES ...)` would walk the whole index instead.)
-- `{a message}` stands for the part of that name: what several statements say alike.

-- part: an agent
a.id, a.address, a.epoch, a.owner,
       max(coalesce((SELECT max(j.version) FROM journal_of j WHERE j.agent = a.id), 0),
           coalesce((SELECT s.version FROM snapshot s WHERE s.agent = a.id), 0))

-- part: an event
j.version, j.name, j.body, j.schema, j.at_ms, j.cause

-- part: a message
m.seq, m.message_id, m.sender, a.address, m.body, m.accepted_ms, m.reply_to,
       coalesce(o.status, 'pending'), coalesce(r.attempts, 0), coalesce(r.not_before_ms, 0),
       o.finished_ms, o.reply, iif(o.seq IS NULL, r.error, o.error)

-- part: its fate
     CROSS JOIN agent a ON a.id = m.recipient
     LEFT JOIN retry r ON r.seq = m.seq
     LEFT JOIN outcome o ON o.seq = m.seq

-- part: a document
d.key, d.organization, d.revision, d.body, d.terms, d.updated_ms

-- name: agent_by_address
WITH wanted (address) AS (VALUES {rows})
SELECT {an agent}
FROM wanted CROSS JOIN agent a ON a.address = wanted.address

-- name: agent_by_id
WITH wanted (id) AS (VALUES {rows})
SELECT {an agent}
FROM wanted CROSS JOIN agent a ON a.id = wanted.id

-- name: meta_all
SELECT name, value FROM meta

-- name: meta_set
INSERT OR REPLACE INTO meta VALUES {rows}

-- name: agent_last
SELECT max(id) FROM agent

-- name: agent_new
INSERT INTO agent (id, address) VALUES {rows}

-- name: agent_hold
UPDATE agent SET epoch = ?, owner = ? WHERE id = ?

-- name: journal_new
INSERT INTO journal VALUES {rows}

-- name: journal_last
SELECT max(id) FROM journal

-- name: journal_recent
SELECT id, agent, version FROM journal WHERE id > ? ORDER BY id

-- name: settle_journal
INSERT INTO journal_of SELECT agent, version, id FROM journal WHERE id > ? ORDER BY agent, version

-- name: journal_page
SELECT {an event}
FROM journal_of o CROSS JOIN journal j ON j.id = o.id
WHERE o.agent = ? AND o.version > ? ORDER BY o.version LIMIT ?

-- name: journal_by_id
WITH wanted (id) AS (VALUES {rows})
SELECT {an event}
FROM wanted CROSS JOIN journal j ON j.id = wanted.id

-- name: snapshot_set
INSERT OR REPLACE INTO snapshot VALUES {rows}

-- name: snapshot_get
SELECT version, body, schema FROM snapshot WHERE agent = ?

-- name: reminder_set
INSERT OR REPLACE INTO reminder VALUES {rows}

-- name: reminder_drop
DELETE FROM reminder WHERE agent = ? AND key = ?

-- name: reminder_due
SELECT r.due_ms, a.address, r.key, r.agent, r.body
FROM reminder r CROSS JOIN agent a ON a.id = r.agent
WHERE r.due_ms <= ? ORDER BY r.due_ms, a.address, r.key LIMIT ?

-- name: reminder_next
SELECT min(due_ms) FROM reminder

-- name: owner_all
SELECT id, name, lease_until_ms FROM owner

-- name: owner_set
INSERT OR REPLACE INTO owner VALUES (?, ?, ?)

-- name: owner_drop
DELETE FROM owner WHERE id = ?

-- name: message_known
WITH wanted (message_id, recipient, address) AS (VALUES {rows})
SELECT wanted.address, m.message_id
FROM wanted CROSS JOIN message m
     ON m.message_id = wanted.message_id AND m.recipient = wanted.recipient

-- name: message_last
SELECT max(seq) FROM message

-- name: message_new
INSERT INTO message VALUES {rows}

-- name: pending_drop
DELETE FROM pending WHERE seq IN (VALUES {rows})

-- name: pending_settled
SELECT p.seq, p.recipient, m.message_id
FROM pending p CROSS JOIN message m ON m.seq = p.seq ORDER BY p.seq

-- name: pending_recent
SELECT m.seq, m.recipient, m.message_id
FROM message m LEFT JOIN outcome o ON o.seq = m.seq
WHERE m.seq > ? AND o.seq IS NULL ORDER BY m.seq

-- name: settle_delivered
INSERT INTO delivered SELECT recipient, seq FROM message WHERE seq > ? ORDER BY recipient, seq

-- name: settle_pending
INSERT INTO pending SELECT m.seq, m.recipient
FROM message m LEFT JOIN outcome o ON o.seq = m.seq
WHERE m.seq > ? AND o.seq IS NULL ORDER BY m.seq

-- name: retry_set
INSERT INTO retry VALUES {rows}
ON CONFLICT (seq) DO UPDATE SET attempts = attempts + 1,
    not_before_ms = excluded.not_before_ms, error = excluded.error

-- name: outcome_new
INSERT INTO outcome VALUES {rows}

-- name: message_by_seq
WITH wanted (seq) AS (VALUES {rows})
SELECT {a message}
FROM wanted CROSS JOIN message m ON m.seq = wanted.seq
{its fate}

-- name: message_page
SELECT {a message}
FROM delivered d CROSS JOIN message m ON m.seq = d.seq
{its fate}
WHERE d.recipient = ? AND d.seq > ? ORDER BY d.seq LIMIT ?

-- name: message_page_recent
SELECT {a message}
FROM message m
{its fate}
WHERE m.recipient = ? AND m.seq > ? ORDER BY m.seq LIMIT ?

-- name: message_one
SELECT {a message}
FROM message m
{its fate}
WHERE m.message_id = ? AND m.recipient = ?

-- name: step_known
WITH wanted (job, key) AS (VALUES {rows})
SELECT s.job, s.key, s.id, s.agent, s.epoch, s.result IS NOT NULL
FROM wanted CROSS JOIN step s ON s.job = wanted.job AND s.key = wanted.key

-- name: step_new
INSERT INTO step (job, key, kind, intent, agent, epoch, attempts, result, at_ms) VALUES {rows}

-- name: step_repeat
UPDATE step SET agent = ?, epoch = ?, attempts = attempts + 1, at_ms = ? WHERE id = ?

-- name: step_end
UPDATE step SET result = ?, at_ms = ? WHERE id = ?

-- name: step_all
SELECT key, kind, intent, epoch, attempts, result, at_ms FROM step WHERE job = ? ORDER BY id

-- name: document_known
WITH wanted (collection, key) AS (VALUES {rows})
SELECT d.collection, d.key, d.organization, d.revision, d.body IS NOT NULL, d.terms
FROM wanted CROSS JOIN document d ON d.collection = wanted.collection AND d.key = wanted.key

-- name: document_set
INSERT INTO document VALUES {rows}
ON CONFLICT (collection, key) DO UPDATE SET
    organization = excluded.organization, revision = excluded.revision, body = excluded.body,
    terms = excluded.terms, updated_ms = excluded.updated_ms

-- name: document_get
SELECT {a document} FROM document d
WHERE d.collection = ? AND d.key = ? AND d.body IS NOT NULL

-- name: document_many
WITH wanted (collection, key) AS (VALUES {rows})
SELECT {a document}
FROM wanted CROSS JOIN document d ON d.collection = wanted.collection AND d.key = wanted.key
WHERE d.body IS NOT NULL

-- name: unindexed_all
SELECT id, collection, key, organization, terms FROM unindexed ORDER BY id

-- name: unindexed_new
INSERT INTO unindexed VALUES {rows}

-- name: unindexed_drop
DELETE FROM unindexed WHERE id IN (VALUES {rows})

-- name: document_page
SELECT {a document}
FROM term t CROSS JOIN document d ON d.collection = t.collection AND d.key = t.key
WHERE t.collection = ? AND t.term = ?

-- name: term_page
SELECT t.key FROM term t WHERE t.collection = ? AND t.term = ?

-- name: term_count
SELECT count(*) FROM term t WHERE t.collection = ? AND t.term = ?

-- name: term_other
 AND EXISTS (SELECT 1 FROM term x WHERE x.collection = t.collection
             AND x.organization = t.organization AND x.term = ? AND x.key = t.key)

-- name: term_new
INSERT INTO term VALUES {rows}

-- name: term_drop
DELETE FROM term WHERE collection = ? AND organization = ? AND term = ? AND key = ?

-- name: feed_last
SELECT max(cursor) FROM feed

-- name: feed_new
INSERT INTO feed VALUES {rows}

-- name: feed_page
SELECT cursor, organization, event, rooms, at_ms, body FROM feed
WHERE cursor > ? ORDER BY cursor LIMIT ?

-- name: feed_page_of
SELECT cursor, organization, event, rooms, at_ms, body FROM feed
WHERE organization = ? AND cursor > ? ORDER BY cursor LIMIT ?

-- What follows removes rows.

-- name: prune_first
SELECT accepted_ms FROM message WHERE seq > ? ORDER BY seq LIMIT 1

-- name: prune_outcomes
SELECT seq, status, finished_ms FROM outcome WHERE seq > ? ORDER BY seq LIMIT ?

-- name: prune_letter
SELECT EXISTS (SELECT 1 FROM document d WHERE d.collection = ?
               AND d.key = a.address || '/' || m.message_id AND d.body IS NOT NULL)
FROM message m CROSS JOIN agent a ON a.id = m.recipient WHERE m.seq = ?

-- name: prune_feed
SELECT cursor, event, at_ms FROM feed WHERE cursor > ? ORDER BY cursor LIMIT ?

-- name: prune_oldest
SELECT at_ms FROM journal WHERE id > ? ORDER BY id LIMIT 1

-- name: prune_journal
SELECT j.id, j.agent, j.version, j.at_ms, coalesce(s.version, 0),
       (SELECT min(o.version) FROM journal_of o WHERE o.agent = j.agent)
FROM journal j LEFT JOIN snapshot s ON s.agent = j.agent
WHERE j.id > ? ORDER BY j.id LIMIT ?

-- name: prune_deleted
SELECT rowid FROM document
WHERE body IS NULL AND updated_ms < ? ORDER BY updated_ms LIMIT ?

-- name: prune_steps
SELECT id FROM step WHERE job = ? ORDER BY id LIMIT ?

-- name: purge_agents
SELECT id, address FROM agent WHERE address >= ? AND address < ? ORDER BY address LIMIT ?

-- name: purge_hide
UPDATE agent SET address = ?, owner = NULL WHERE id = ?

-- name: purge_reminders
DELETE FROM reminder WHERE agent = ?

-- name: purge_inbox
SELECT seq FROM delivered WHERE recipient = ? ORDER BY seq LIMIT ?

-- name: purge_journal
SELECT id, agent, version FROM journal_of WHERE agent = ? ORDER BY version LIMIT ?

-- name: purge_snapshot
DELETE FROM snapshot WHERE agent = ?

-- name: purge_agent
DELETE FROM agent WHERE id = ?

-- name: purge_collection
SELECT min(collection) FROM document WHERE collection > ?

-- name: purge_documents
SELECT key FROM term WHERE collection = ? AND organization = ? AND term = '' ORDER BY key LIMIT ?

-- name: purge_deleted
SELECT rowid FROM document INDEXED BY document_deleted
WHERE body IS NULL AND organization = ? LIMIT ?

-- name: purge_steps
SELECT id FROM step WHERE agent >= ? AND agent < ? ORDER BY agent LIMIT ?

-- name: purge_feed
SELECT cursor, event FROM feed WHERE organization = ? ORDER BY cursor LIMIT ?

-- name: purge_senders
SELECT d.seq, m.sender, m.message_id
FROM delivered d CROSS JOIN message m ON m.seq = d.seq
WHERE d.recipient = ? AND d.seq > ? ORDER BY d.seq LIMIT ?

-- name: message_recipient
WITH wanted (seq) AS (VALUES {rows})
SELECT m.recipient, m.seq FROM wanted CROSS JOIN message m ON m.seq = wanted.seq

-- name: delivered_drop
DELETE FROM delivered WHERE recipient = ? AND seq = ?

-- name: message_drop
DELETE FROM message WHERE seq IN (VALUES {rows})

-- name: outcome_drop
DELETE FROM outcome WHERE seq IN (VALUES {rows})

-- name: retry_drop
DELETE FROM retry WHERE seq IN (VALUES {rows})

-- name: journal_drop
DELETE FROM journal WHERE id IN (VALUES {rows})

-- name: journal_of_drop
DELETE FROM journal_of WHERE agent = ? AND version = ?

-- name: step_drop
DELETE FROM step WHERE id IN (VALUES {rows})

-- name: feed_drop
DELETE FROM feed WHERE cursor IN (VALUES {rows})

-- name: document_drop
DELETE FROM document WHERE rowid IN (VALUES {rows})

-- name: document_row
WITH wanted (collection, key) AS (VALUES {rows})
SELECT d.rowid, d.collection, d.key, d.organization, d.terms
FROM wanted CROSS JOIN document d ON d.collection = wanted.collection AND d.key = wanted.key
