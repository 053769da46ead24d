-- What decides whether and when jobs run: keys that take turns, unique keys, limits, pauses, cancellations.

ALTER TABLE backlite_jobs ADD COLUMN timeout INTEGER;

ALTER TABLE backlite_jobs ADD COLUMN parent TEXT;

ALTER TABLE backlite_jobs ADD COLUMN tags TEXT;

ALTER TABLE backlite_jobs ADD COLUMN cancelled_at INTEGER;

ALTER TABLE backlite_completed ADD COLUMN timeout INTEGER;

ALTER TABLE backlite_completed ADD COLUMN parent TEXT;

ALTER TABLE backlite_completed ADD COLUMN tags TEXT;

ALTER TABLE backlite_completed ADD COLUMN cancelled_at INTEGER;

DROP INDEX backlite_jobs_key;

-- What runs of a key, and what is let in.
CREATE INDEX backlite_jobs_key ON backlite_jobs (queue, key, status, due_at)
    WHERE key IS NOT NULL AND due_at IS NOT NULL;

-- What waits for its turn.
CREATE INDEX backlite_jobs_waiting ON backlite_jobs (queue, key, task, priority DESC, scheduled_at)
    WHERE key IS NOT NULL AND status = 'pending' AND due_at IS NULL;

CREATE INDEX backlite_jobs_cancelled ON backlite_jobs (owner)
    WHERE cancelled_at IS NOT NULL;

CREATE TABLE backlite_unique (
    queue    TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    job_id   TEXT    NOT NULL,
    added_at INTEGER NOT NULL,
    until    INTEGER NOT NULL,
    look_at  INTEGER NOT NULL,
    PRIMARY KEY (queue, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX backlite_unique_look ON backlite_unique (look_at);

CREATE TABLE backlite_queues (
    queue        TEXT    NOT NULL PRIMARY KEY,
    paused_at    INTEGER,
    keeps        INTEGER NOT NULL DEFAULT 0,
    keep_for     INTEGER,
    keep_payload INTEGER NOT NULL DEFAULT 0,
    turns        INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX backlite_queues_paused ON backlite_queues (queue)
    WHERE paused_at IS NOT NULL;

CREATE TABLE backlite_starts (
    queue  TEXT    NOT NULL,
    number INTEGER NOT NULL,
    owner  TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (queue, number)
) STRICT, WITHOUT ROWID;
