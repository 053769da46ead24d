-- What people see and steer: lists by end, tags, errors, progress, log lines, waits for results, statistics, tasks.

ALTER TABLE backlite_jobs ADD COLUMN noted INTEGER;

ALTER TABLE backlite_jobs ADD COLUMN progress REAL;

ALTER TABLE backlite_jobs ADD COLUMN progress_message TEXT;

ALTER TABLE backlite_completed ADD COLUMN noted INTEGER;

ALTER TABLE backlite_completed ADD COLUMN progress REAL;

ALTER TABLE backlite_completed ADD COLUMN progress_message TEXT;

CREATE INDEX backlite_jobs_parent ON backlite_jobs (parent)
    WHERE parent IS NOT NULL;

CREATE INDEX backlite_completed_parent ON backlite_completed (parent)
    WHERE parent IS NOT NULL;

CREATE INDEX backlite_completed_ended ON backlite_completed (queue, task, status, finished_at);

-- A job that is deleted leaves its unique keys to others.
CREATE INDEX backlite_unique_job ON backlite_unique (job_id);

CREATE TABLE backlite_tags (
    number INTEGER PRIMARY KEY,
    job_id TEXT    NOT NULL,
    tag    TEXT    NOT NULL,
    UNIQUE (job_id, tag)
) STRICT;

CREATE INDEX backlite_tags_tag ON backlite_tags (tag);

INSERT OR IGNORE INTO backlite_tags (job_id, tag)
SELECT jobs.id, tag.value
FROM backlite_completed AS jobs CROSS JOIN json_each(CASE WHEN json_valid(tags) THEN tags ELSE '[]' END) AS tag
ORDER BY jobs.seq, tag.key;

INSERT OR IGNORE INTO backlite_tags (job_id, tag)
SELECT jobs.id, tag.value
FROM backlite_jobs AS jobs CROSS JOIN json_each(CASE WHEN json_valid(tags) THEN tags ELSE '[]' END) AS tag
ORDER BY jobs.seq, tag.key;

-- One row for each attempt that went wrong.
CREATE TABLE backlite_errors (
    job_id      TEXT    NOT NULL,
    fence       INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    type        TEXT    NOT NULL,
    message     TEXT    NOT NULL,
    traceback   TEXT,
    owner       TEXT,
    started_at  INTEGER,
    finished_at INTEGER NOT NULL,
    duration    INTEGER,
    PRIMARY KEY (job_id, fence)
) STRICT, WITHOUT ROWID;

CREATE TABLE backlite_lines (
    job_id  TEXT    NOT NULL,
    fence   INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    level   TEXT    NOT NULL,
    text    TEXT    NOT NULL,
    PRIMARY KEY (job_id, fence, number)
) STRICT, WITHOUT ROWID;

-- Who waits for a job to end.
CREATE TABLE backlite_watches (
    job_id TEXT NOT NULL,
    owner  TEXT NOT NULL,
    PRIMARY KEY (job_id, owner)
) STRICT, WITHOUT ROWID;

CREATE INDEX backlite_watches_owner ON backlite_watches (owner);

-- Counts and histograms by the minute (span 60000), summed up later by the hour (3600000). What "run" and "wait" are
-- is told by their buckets.
CREATE TABLE backlite_stats (
    queue  TEXT    NOT NULL,
    span   INTEGER NOT NULL,
    start  INTEGER NOT NULL,
    what   TEXT    NOT NULL,
    bucket INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (queue, span, start, what, bucket)
) STRICT, WITHOUT ROWID;

CREATE TABLE backlite_tasks (
    queue         TEXT    NOT NULL,
    task          TEXT    NOT NULL,
    title         TEXT    NOT NULL,
    description   TEXT    NOT NULL,
    schema        TEXT,
    registered_at INTEGER NOT NULL,
    PRIMARY KEY (queue, task)
) STRICT, WITHOUT ROWID;

ALTER TABLE backlite_queues ADD COLUMN limits TEXT;
