-- The SQLite store's tables.
--
-- Rows are written once and in order: almost every write of a commit lands at
-- the right-hand end of a table, next to the last one, so that a group commit
-- of many agents dirties few pages.  That is why agents are numbers here, why
-- what becomes of a message (`retry`, `outcome`) is not written into the
-- message, and why message ids, which begin with their time, come first in
-- the index that makes them unique.
--
-- Four tables follow behind.  `delivered` (whose messages are where) and `pending`
-- (which have no outcome yet) know only messages up to `meta.settled`.  A few
-- thousand at a time are settled together, sorted, so that most messages are
-- finished before they would have entered `pending`, and pages of `delivered`
-- are written once for many rows.  What is newer is found by walking the end
-- of `message`.  Pending messages are read when the store opens and kept in
-- memory from then on.  `journal_of` (whose events are where) knows those up to
-- `meta.journal_settled`; those after it are kept in memory too.  `term`, the index of documents, has those that are noted
-- in `unindexed` still under the terms that are noted there.
--
-- The version of an agent is the greatest in its journal, or its snapshot's when
-- the journal was forgotten.  Each document has the empty term too, so that
-- listing without terms is the same walk.
--
-- Rows are removed by `prune` and `purge` alone.  An agent that is being purged
-- has the address `~/<id>`, which no name can reach, until all it had is gone.
-- What must not be found again lower, once the last rows are gone, is in `meta`:
-- head_seq, feed_head, feed_floor, epoch_floor, forgotten.
--
-- Bodies are bytes that are never looked into.  `terms` and `rooms` are msgpack.

CREATE TABLE meta (
    name    TEXT PRIMARY KEY,
    value   TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE owner (
    id              TEXT PRIMARY KEY,
    name            TEXT NOT NULL,
    lease_until_ms  INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE agent (
    id       INTEGER PRIMARY KEY,
    address  TEXT NOT NULL UNIQUE,
    epoch    INTEGER NOT NULL DEFAULT 0,
    owner    TEXT
);

CREATE TABLE snapshot (
    agent    INTEGER PRIMARY KEY,
    version  INTEGER NOT NULL,
    body     BLOB NOT NULL,
    schema   INTEGER NOT NULL
);

CREATE TABLE journal (
    id       INTEGER PRIMARY KEY,
    agent    INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    name     TEXT NOT NULL,
    body     BLOB NOT NULL,
    schema   INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL,
    cause    TEXT
);

CREATE TABLE message (
    seq          INTEGER PRIMARY KEY,
    recipient    INTEGER NOT NULL,
    message_id   TEXT NOT NULL,
    sender       TEXT NOT NULL,
    body         BLOB NOT NULL,
    accepted_ms  INTEGER NOT NULL,
    reply_to     TEXT
);
CREATE UNIQUE INDEX message_once ON message (message_id, recipient);

CREATE TABLE delivered (
    recipient  INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    PRIMARY KEY (recipient, seq)
) WITHOUT ROWID;

CREATE TABLE pending (
    seq        INTEGER PRIMARY KEY,
    recipient  INTEGER NOT NULL
);

CREATE TABLE retry (
    seq            INTEGER PRIMARY KEY,
    attempts       INTEGER NOT NULL,
    not_before_ms  INTEGER NOT NULL,
    error          TEXT NOT NULL
);

CREATE TABLE outcome (
    seq          INTEGER PRIMARY KEY,
    status       TEXT NOT NULL,
    finished_ms  INTEGER NOT NULL,
    reply        BLOB,
    error        TEXT
);

CREATE TABLE reminder (
    agent   INTEGER NOT NULL,
    key     TEXT NOT NULL,
    due_ms  INTEGER NOT NULL,
    body    BLOB NOT NULL,
    PRIMARY KEY (agent, key)
) WITHOUT ROWID;
CREATE INDEX reminder_due ON reminder (due_ms);

CREATE TABLE step (
    id        INTEGER PRIMARY KEY,
    job       TEXT NOT NULL,
    key       TEXT NOT NULL,
    kind      TEXT NOT NULL,
    intent    BLOB NOT NULL,
    agent     TEXT NOT NULL,
    epoch     INTEGER NOT NULL,
    attempts  INTEGER NOT NULL,
    result    BLOB,
    at_ms     INTEGER NOT NULL
);
CREATE UNIQUE INDEX step_of_job ON step (job, key);
CREATE INDEX step_order ON step (job, id);

CREATE TABLE document (
    collection    TEXT NOT NULL,
    key           TEXT NOT NULL,
    organization  TEXT NOT NULL,
    revision      INTEGER NOT NULL,
    body          BLOB,
    terms         BLOB NOT NULL,
    updated_ms    INTEGER NOT NULL
);
CREATE UNIQUE INDEX document_key ON document (collection, key);

CREATE TABLE term (
    collection    TEXT NOT NULL,
    organization  TEXT NOT NULL,
    term          TEXT NOT NULL,
    key           TEXT NOT NULL,
    PRIMARY KEY (collection, organization, term, key)
) WITHOUT ROWID;
CREATE INDEX term_everywhere ON term (collection, term, key);

CREATE TABLE feed (
    cursor        INTEGER PRIMARY KEY,
    organization  TEXT NOT NULL,
    event         TEXT NOT NULL,  -- several events that differ by nothing else: msgpack of their names
    rooms         BLOB NOT NULL,
    at_ms         INTEGER NOT NULL,
    body          BLOB NOT NULL
);
CREATE INDEX feed_of_organization ON feed (organization, cursor);
