-- Jobs that come again. `timing` and `job` are JSON, `declared_by` too: see StoredSchedule.

CREATE TABLE backlite_schedules (
    name         TEXT    NOT NULL PRIMARY KEY,
    version      INTEGER NOT NULL,
    timing       TEXT    NOT NULL,
    job          TEXT    NOT NULL,
    missed       TEXT    NOT NULL,
    overlap      INTEGER NOT NULL,
    jitter       INTEGER NOT NULL,
    max_runs     INTEGER,
    declared     TEXT,
    declared_by  TEXT    NOT NULL DEFAULT '[]',
    removed      INTEGER NOT NULL DEFAULT 0,
    paused_at    INTEGER,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    next_at      INTEGER,
    runs         INTEGER NOT NULL DEFAULT 0,
    skipped      INTEGER NOT NULL DEFAULT 0,
    last_instant INTEGER,
    last_at      INTEGER,
    last_job_id  TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX backlite_schedules_next ON backlite_schedules (next_at)
    WHERE next_at IS NOT NULL;
