-- The life of a job: live jobs, completed ones, and the sequence of fences.

CREATE TABLE backlite_jobs (
    seq          INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    queue        TEXT    NOT NULL,
    task         TEXT    NOT NULL,
    status       TEXT    NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'running')),
    priority     INTEGER NOT NULL DEFAULT 0 CHECK (priority BETWEEN -10 AND 10),
    key          TEXT,
    payload      BLOB    NOT NULL,
    meta         TEXT,
    attempt      INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    max_attempts INTEGER NOT NULL CHECK (max_attempts >= 1),
    crashes      INTEGER NOT NULL DEFAULT 0 CHECK (crashes >= 0),
    fence        INTEGER,
    owner        TEXT,
    created_at   INTEGER NOT NULL,
    scheduled_at INTEGER NOT NULL,
    due_at       INTEGER,
    started_at   INTEGER,
    error        TEXT,
    CHECK (status = 'pending' OR (fence IS NOT NULL AND owner IS NOT NULL AND due_at IS NOT NULL))
) STRICT;

CREATE INDEX backlite_jobs_pending ON backlite_jobs (queue, task, priority DESC, due_at)
    WHERE status = 'pending' AND due_at IS NOT NULL;

CREATE INDEX backlite_jobs_running ON backlite_jobs (queue, task, due_at)
    WHERE status = 'running';

CREATE INDEX backlite_jobs_owner ON backlite_jobs (owner)
    WHERE status = 'running';

CREATE INDEX backlite_jobs_key ON backlite_jobs (queue, key)
    WHERE status = 'running' AND key IS NOT NULL;

CREATE TABLE backlite_completed (
    seq          INTEGER PRIMARY KEY,
    id           TEXT    NOT NULL UNIQUE,
    queue        TEXT    NOT NULL,
    task         TEXT    NOT NULL,
    status       TEXT    NOT NULL CHECK (status IN ('succeeded', 'failed', 'cancelled')),
    priority     INTEGER NOT NULL,
    key          TEXT,
    payload      BLOB,
    meta         TEXT,
    attempt      INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    crashes      INTEGER NOT NULL,
    fence        INTEGER,
    owner        TEXT,
    created_at   INTEGER NOT NULL,
    scheduled_at INTEGER NOT NULL,
    started_at   INTEGER,
    finished_at  INTEGER NOT NULL,
    duration     INTEGER,
    error        TEXT,
    expires_at   INTEGER
) STRICT;

CREATE INDEX backlite_completed_expiry ON backlite_completed (expires_at)
    WHERE expires_at IS NOT NULL;

CREATE TABLE backlite_fence (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    value    INTEGER NOT NULL
) STRICT;

INSERT INTO backlite_fence (only_row, value) VALUES (1, 0);
