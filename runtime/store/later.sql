-- What the first release did not have: made when a file that lacks it is opened.

-- Documents that the index does not have as they are now (see `schema.sql`).  A file
-- with this table is of schema 2: an older release would read the index alone.
CREATE TABLE IF NOT EXISTS unindexed (
    id            INTEGER PRIMARY KEY,
    collection    TEXT NOT NULL,
    key           TEXT NOT NULL,
    organization  TEXT NOT NULL,
    terms         BLOB NOT NULL  -- empty: it is not in the index
);

-- Whose events are where (see `schema.sql`).  It takes the place of the first release's
-- index, which knew all events.
CREATE TABLE IF NOT EXISTS journal_of (
    agent    INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    id       INTEGER NOT NULL,
    PRIMARY KEY (agent, version)
) WITHOUT ROWID;
INSERT INTO journal_of SELECT agent, version, id FROM journal
WHERE EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'journal_of_agent')
ORDER BY agent, version;
INSERT INTO meta SELECT 'journal_settled', (SELECT coalesce(max(id), 0) FROM journal)
FROM sqlite_schema WHERE name = 'journal_of_agent';
DROP INDEX IF EXISTS journal_of_agent;

-- What is left of deleted documents, for `prune` and `purge`; of those that are there, nothing.
CREATE INDEX IF NOT EXISTS document_deleted ON document (updated_ms, organization)
WHERE body IS NULL;

-- For `purge`, which knows a step's organization by its agent.
CREATE INDEX IF NOT EXISTS step_of_agent ON step (agent);
