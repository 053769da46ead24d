-- Schedules: jobs that come again. They are found by name, or along the index of those that will be due, which is named as
-- SQLite would walk over the table where it has counted a few.

-- name: add_schedule
INSERT INTO backlite_schedules (
    name, version, timing, job, missed, overlap, jitter, max_runs, declared, declared_by, removed, paused_at,
    created_at, updated_at, next_at, runs, skipped, last_instant, last_at, last_job_id
)
VALUES (
    :name, 1, :timing, :job, :missed, :overlap, :jitter, :max_runs, :declared, :declared_by, :removed, :paused_at,
    :created_at, :updated_at, :next_at, :runs, :skipped, :last_instant, :last_at, :last_job_id
)
ON CONFLICT (name) DO NOTHING

-- name: change_schedule
UPDATE backlite_schedules
SET
    version = version + 1, timing = :timing, job = :job, missed = :missed, overlap = :overlap, jitter = :jitter,
    max_runs = :max_runs, declared = :declared, declared_by = :declared_by, removed = :removed,
    paused_at = :paused_at, created_at = :created_at, updated_at = :updated_at, next_at = :next_at, runs = :runs,
    skipped = :skipped, last_instant = :last_instant, last_at = :last_at, last_job_id = :last_job_id
WHERE name = :name AND version = :expected

-- name: delete_schedule
DELETE FROM backlite_schedules WHERE name = :name

-- part: schedule
SELECT
    name, version, timing, job, missed, overlap, jitter, max_runs, declared, declared_by, removed, paused_at,
    created_at, updated_at, next_at, runs, skipped, last_instant, last_at, last_job_id

-- name: schedules
{schedule}
FROM backlite_schedules ORDER BY name

-- name: schedule
{schedule}
FROM backlite_schedules WHERE name = :name

-- name: due_schedules
{schedule}
FROM backlite_schedules INDEXED BY backlite_schedules_next
WHERE next_at <= :now
ORDER BY next_at, name LIMIT :limit

-- name: next_tick
SELECT min(next_at) FROM backlite_schedules INDEXED BY backlite_schedules_next WHERE next_at IS NOT NULL

-- name: ticking
-- What there is of a schedule of this version, and whether its last job is live.
SELECT runs, max_runs, EXISTS (SELECT 1 FROM backlite_jobs AS jobs WHERE jobs.id = last_job_id)
FROM backlite_schedules
WHERE name = :name AND version = :version

-- name: tick
UPDATE backlite_schedules
SET
    version = version + 1, runs = runs + :added, skipped = skipped + :skipped, next_at = :next_at,
    last_instant = coalesce(:last_instant, last_instant),
    last_at = CASE WHEN :added > 0 THEN :at ELSE last_at END, last_job_id = coalesce(:last_job_id, last_job_id)
WHERE name = :name
