-- Jobs that follow jobs: workflows, and their steps.

ALTER TABLE backlite_jobs ADD COLUMN workflow TEXT;

ALTER TABLE backlite_jobs ADD COLUMN step INTEGER;

-- Steps before it have not ended: the key that it is to have then, or ''. Until then it has no key, and is not due.
ALTER TABLE backlite_jobs ADD COLUMN blocked TEXT;

ALTER TABLE backlite_completed ADD COLUMN workflow TEXT;

ALTER TABLE backlite_completed ADD COLUMN step INTEGER;

CREATE INDEX backlite_jobs_blocked ON backlite_jobs (queue, task, priority DESC, scheduled_at)
    WHERE blocked IS NOT NULL;

-- Callbacks are new jobs as JSON. `left`: nodes that have not ended; `ends`: how often all steps have.
CREATE TABLE backlite_workflows (
    id           TEXT    NOT NULL UNIQUE,
    name         TEXT,
    created_at   INTEGER NOT NULL,
    size         INTEGER NOT NULL,
    left         INTEGER NOT NULL,
    status       TEXT,
    finished_at  INTEGER,
    cancelled_at INTEGER,
    expires_at   INTEGER,
    ends         INTEGER NOT NULL DEFAULT 0,
    keep_for     INTEGER NOT NULL DEFAULT 0,
    on_success   TEXT,
    on_failure   TEXT,
    on_complete  TEXT
) STRICT;

CREATE INDEX backlite_workflows_expiry ON backlite_workflows (expires_at)
    WHERE expires_at IS NOT NULL;

-- `after` and `next`: numbers as JSON, last, as there may be many. `blocked`: by how many steps before it. `fallback`: a new
-- job as JSON.
CREATE TABLE backlite_steps (
    workflow  TEXT    NOT NULL,
    number    INTEGER NOT NULL,
    kind      TEXT    NOT NULL,
    job_id    TEXT,
    name      TEXT,
    status    TEXT,
    blocked   INTEGER NOT NULL,
    if_failed TEXT    NOT NULL,
    strip     INTEGER NOT NULL DEFAULT 0,
    fallback  TEXT,
    after     TEXT    NOT NULL,
    next      TEXT    NOT NULL,
    PRIMARY KEY (workflow, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX backlite_steps_name ON backlite_steps (workflow, name)
    WHERE name IS NOT NULL;
