-- What is to be seen of jobs that are not as they should be.

-- name: backlog
-- Of one level of what is let in: how many are pending, how many due by :late_by, when the first is due.
SELECT
    (
        SELECT count(*) FROM (
            SELECT 1 FROM backlite_jobs INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND due_at IS NOT NULL
              AND queue = :queue AND task = :task AND priority = :priority
            LIMIT :most
        )
    ),
    (
        SELECT count(*) FROM (
            SELECT 1 FROM backlite_jobs INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND queue = :queue AND task = :task AND priority = :priority
              AND due_at <= :late_by
            LIMIT :most
        )
    ),
    (
        SELECT due_at FROM backlite_jobs INDEXED BY backlite_jobs_pending
        WHERE status = 'pending' AND due_at IS NOT NULL
          AND queue = :queue AND task = :task AND priority = :priority
        ORDER BY due_at LIMIT 1
    )

-- name: claims_seen
-- By queue and owner: how many run, of how many the lease had ended, and when the first lease ends.
SELECT queue, coalesce(owner, ''), count(*), count(*) FILTER (WHERE due_at <= :ended_by), min(due_at)
FROM backlite_jobs INDEXED BY backlite_jobs_running
WHERE status = 'running'
GROUP BY owner, queue

-- name: queues_seen
SELECT queue, paused_at IS NOT NULL, limits FROM backlite_queues ORDER BY queue
