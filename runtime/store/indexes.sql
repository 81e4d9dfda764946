-- Indexes that the first release did not have.
--
-- Made when a file that lacks them is opened.  SQLite keeps an index up to date
-- whoever writes, so a file with them is still of schema 1 and an older release
-- can go back to it.

-- What is left of deleted documents, for `prune` and `purge`; of those that are there, nothing.
CREATE INDEX IF NOT EXISTS document_deleted ON document (updated_ms, organization)
WHERE body IS NULL;

-- For `purge`, which knows a step's organization by its agent.
CREATE INDEX IF NOT EXISTS step_of_agent ON step (agent);
