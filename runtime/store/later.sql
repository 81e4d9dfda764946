-- What the first release did not have: made when a file that lacks it is opened.

-- Documents that the index does not have as they are now (see `schema.sql`).  A file
-- with this table is of schema 2: an older release would read the index alone.
CREATE TABLE IF NOT EXISTS unindexed (
    id            INTEGER PRIMARY KEY,
    collection    TEXT NOT NULL,
    key           TEXT NOT NULL,
    organization  TEXT NOT NULL,
    terms         BLOB NOT NULL
);

-- What is left of deleted documents, for `prune` and `purge`; of those that are there, nothing.
CREATE INDEX IF NOT EXISTS document_deleted ON document (updated_ms, organization)
WHERE body IS NULL;

-- For `purge`, which knows a step's organization by its agent.
CREATE INDEX IF NOT EXISTS step_of_agent ON step (agent);
