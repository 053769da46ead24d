-- Workflows: their rows, their nodes, and what becomes of the jobs of these, by statements for any number of them. Nodes
-- are found by workflow and number, jobs by ids that travel in an array, one by one.

-- name: add_workflow
INSERT INTO backlite_workflows (id, name, created_at, size, left, on_success, on_failure, on_complete)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: add_nodes
-- Run with many rows, by `many`.
INSERT INTO backlite_steps (workflow, number, kind, job_id, name, blocked, if_failed, fallback, after, next)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: add_first_steps
-- The jobs of new nodes, by `many` too: those that wait for nothing, and have nothing that most jobs have not. To name a
-- column is to look whether it belongs into an index.
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, priority, waits_from, workflow, step
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: add_steps
-- The others.
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, priority, waits_from,
    key, timeout, parent, meta, tags, workflow, step, blocked
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: known_workflows
-- Which of these are there, though they may have expired.
SELECT json_group_array(flows.id)
FROM json_each(:ids)
    CROSS JOIN backlite_workflows AS flows INDEXED BY sqlite_autoindex_backlite_workflows_1
WHERE flows.id = json_each.value

-- name: live_workflows
-- Which of these have not expired.
SELECT json_group_array(flows.id) FILTER (WHERE coalesce(flows.expires_at > :now, true))
FROM json_each(:ids)
    CROSS JOIN backlite_workflows AS flows INDEXED BY sqlite_autoindex_backlite_workflows_1
WHERE flows.id = json_each.value

-- name: flow
SELECT
    id, name, created_at, left, size, status, finished_at, cancelled_at, expires_at, ends, keep_for,
    on_success, on_failure, on_complete
FROM backlite_workflows WHERE id = :id

-- name: put_flow
UPDATE backlite_workflows
SET
    left = :left, size = :size, status = :status, finished_at = :finished_at, cancelled_at = :cancelled_at,
    expires_at = :expires_at, ends = :ends, keep_for = :keep_for
WHERE id = :id

-- part: node
-- A node as an array in the order of the fields of `Step`.
json_array(number, kind, job_id, name, status, blocked, if_failed, json(next), json(fallback), strip)

-- name: nodes
-- Some of a workflow, in the order of :numbers. To join them would have SQLite walk over all, for a filter.
SELECT '[' || coalesce(group_concat((
    SELECT {node} FROM backlite_steps AS steps WHERE steps.workflow = :workflow AND steps.number = wanted.value
)), '') || ']'
FROM json_each(:numbers) AS wanted

-- name: waiting_nodes
-- Those that wait for others, without what comes after them.
SELECT '[' || coalesce(group_concat((
    SELECT json_array(number, kind, job_id, name, status, blocked, if_failed, json_array(), NULL, strip)
    FROM backlite_steps AS steps
    WHERE steps.workflow = :workflow AND steps.number = wanted.value AND status IS NULL AND blocked > 0
)), '') || ']'
FROM json_each(:numbers) AS wanted

-- name: next_of_open
-- What comes after those of :numbers that have not ended, each sort once, and how many it is that of; NULL: others.
WITH following (next) AS MATERIALIZED (
    SELECT (
        SELECT next FROM backlite_steps AS steps
        WHERE steps.workflow = :workflow AND steps.number = wanted.value AND status IS NULL
    )
    FROM json_each(:numbers) AS wanted
)
SELECT next, count(*) FROM following GROUP BY next

-- name: live_nodes
-- All of a workflow that have not ended.
SELECT json_group_array({node})
FROM (SELECT * FROM backlite_steps INDEXED BY sqlite_autoindex_backlite_steps_1 WHERE workflow = :workflow AND status IS NULL ORDER BY number)

-- name: put_nodes
-- Their rows are there. No UPDATE, which would be free to walk over all nodes of the workflow.
INSERT INTO backlite_steps (workflow, number, kind, status, blocked, if_failed, strip, after, next)
SELECT :workflow, value, '', :status, :blocked, '', :strip, '', '' FROM json_each(:numbers) WHERE true
ON CONFLICT (workflow, number) DO UPDATE SET
    status = excluded.status, blocked = excluded.blocked, strip = excluded.strip

-- name: put_next
UPDATE backlite_steps SET next = :next WHERE workflow = :workflow AND number = :number

-- name: named
SELECT EXISTS (
    SELECT 1 FROM backlite_steps INDEXED BY backlite_steps_name WHERE workflow = :workflow AND name = :name
)

-- name: endings
-- How nodes have ended, of all sorts that there are.
SELECT DISTINCT kind, status, if_failed FROM backlite_steps INDEXED BY sqlite_autoindex_backlite_steps_1 WHERE workflow = :workflow

-- name: keys_of_blocked
-- The keys that these jobs are to have, and how many turns their queues have.
SELECT DISTINCT jobs.queue, jobs.blocked, (
    SELECT turns FROM backlite_queues AS known WHERE known.queue = jobs.queue
)
FROM json_each(:ids) AS wanted CROSS JOIN backlite_jobs AS jobs
WHERE jobs.id = wanted.value AND +jobs.blocked <> ''

-- name: unblock
-- Due now, or when it was meant to be, where that is later; a wait is never longer than it was meant, whatever the wall
-- clock did since.
UPDATE backlite_jobs INDEXED BY sqlite_autoindex_backlite_jobs_1
SET
    key = nullif(blocked, ''), blocked = NULL,
    waits_from = CASE WHEN waits_from IS NULL AND scheduled_at > :at THEN NULL ELSE :at END,
    scheduled_at = max(:at, min(scheduled_at, :at + coalesce(scheduled_at - waits_from, scheduled_at))),
    due_at = max(:at, min(scheduled_at, :at + coalesce(scheduled_at - waits_from, scheduled_at)))
WHERE id IN (SELECT value FROM json_each(:ids)) AND +blocked IS NOT NULL

-- name: skip
-- To be ended: blocked jobs (id, reason).
UPDATE backlite_jobs NOT INDEXED
SET cancelled_at = :at, error = json_extract(value, '$[1]')
FROM (
    WITH held (seq, value) AS MATERIALIZED (
        SELECT jobs.seq, skipped.value FROM json_each(:jobs) AS skipped CROSS JOIN backlite_jobs AS jobs
        WHERE jobs.id = json_extract(skipped.value, '$[0]') AND +jobs.blocked IS NOT NULL
    )
    SELECT seq, value FROM held
) AS again
WHERE backlite_jobs.seq = again.seq

-- name: block_pending
UPDATE backlite_jobs INDEXED BY sqlite_autoindex_backlite_jobs_1
SET blocked = coalesce(blocked, key, ''), key = NULL, due_at = NULL
WHERE id IN (SELECT value FROM json_each(:ids)) AND +status = 'pending'

-- name: able_to_run
-- Which of these completed jobs still have their payloads.
SELECT json_group_array(jobs.id) FILTER (WHERE payload IS NOT NULL)
FROM json_each(:ids) AS wanted CROSS JOIN backlite_completed AS jobs
WHERE jobs.id = wanted.value

-- name: block_completed
-- As if they had not run.
INSERT INTO backlite_jobs (
    id, queue, task, priority, payload, meta, attempt, max_attempts, crashes, created_at, scheduled_at, due_at,
    timeout, parent, tags, noted, progress, progress_message, workflow, step, blocked
)
SELECT
    jobs.id, queue, task, priority, payload, meta, attempt, max(max_attempts, attempt + 1), 0,
    created_at, scheduled_at, NULL, timeout, jobs.parent, tags, noted, progress, progress_message, workflow, step,
    coalesce(jobs.key, '')
FROM json_each(:ids) AS wanted CROSS JOIN backlite_completed AS jobs
WHERE jobs.id = wanted.value
ORDER BY wanted.id

-- name: blocked_of
-- Which of these jobs wait for others.
SELECT json_group_array(jobs.id) FILTER (WHERE jobs.blocked IS NOT NULL)
FROM json_each(:ids) AS wanted CROSS JOIN backlite_jobs AS jobs
WHERE jobs.id = wanted.value

-- part: jobs_of_flow
(SELECT job_id FROM backlite_steps INDEXED BY sqlite_autoindex_backlite_steps_1 WHERE workflow = :workflow AND job_id IS NOT NULL)

-- name: close_jobs
-- For how long they are kept; without their payloads those that are to be so: what was cancelled as its queue says, and
-- what was skipped also if a step that has failed can run again, as then it is to run after that.
UPDATE backlite_completed INDEXED BY sqlite_autoindex_backlite_completed_1
SET
    expires_at = :expires_at,
    payload = CASE
        WHEN payload IS NULL THEN NULL
        WHEN (
            SELECT strip FROM backlite_steps AS steps
            WHERE steps.workflow = :workflow AND steps.number = backlite_completed.step
        ) THEN NULL
        WHEN status <> 'cancelled' THEN payload
        WHEN EXISTS (
            SELECT 1 FROM backlite_queues AS known
            WHERE known.queue = backlite_completed.queue AND keeps AND keep_payload
        ) THEN payload
        WHEN (
            SELECT status FROM backlite_steps AS steps
            WHERE steps.workflow = :workflow AND steps.number = backlite_completed.step
        ) = 'skipped' AND EXISTS (
            SELECT 1 FROM backlite_steps AS steps INDEXED BY sqlite_autoindex_backlite_steps_1
            WHERE steps.workflow = :workflow AND steps.status = 'failed' AND NOT steps.strip
        ) THEN payload
    END
WHERE id IN {jobs_of_flow}

-- name: reopen_jobs
UPDATE backlite_completed INDEXED BY sqlite_autoindex_backlite_completed_1 SET expires_at = NULL
WHERE id IN {jobs_of_flow} AND +expires_at IS NOT NULL

-- name: beside_flow
-- The ids of its jobs that have something beside them.
SELECT json_group_array(id) FROM (
    SELECT jobs.id FROM backlite_steps AS steps INDEXED BY sqlite_autoindex_backlite_steps_1 CROSS JOIN backlite_completed AS jobs
    WHERE steps.workflow = :workflow AND jobs.id = steps.job_id AND coalesce(jobs.tags, jobs.noted) IS NOT NULL
    UNION ALL
    SELECT jobs.id FROM backlite_steps AS steps INDEXED BY sqlite_autoindex_backlite_steps_1 CROSS JOIN backlite_jobs AS jobs
    WHERE steps.workflow = :workflow AND steps.status IS NULL AND jobs.id = steps.job_id
      AND coalesce(jobs.tags, jobs.noted) IS NOT NULL
)

-- name: turns_of_flow
-- The queues and keys of its pending jobs that have a turn.
SELECT DISTINCT jobs.queue, jobs.key
FROM backlite_steps AS steps INDEXED BY sqlite_autoindex_backlite_steps_1 CROSS JOIN backlite_jobs AS jobs
WHERE steps.workflow = :workflow AND steps.status IS NULL AND jobs.id = steps.job_id
  AND +jobs.status = 'pending' AND +jobs.key IS NOT NULL AND +jobs.due_at IS NOT NULL

-- name: remove_completed
DELETE FROM backlite_completed INDEXED BY sqlite_autoindex_backlite_completed_1 WHERE id IN {jobs_of_flow}

-- name: remove_live
DELETE FROM backlite_jobs INDEXED BY sqlite_autoindex_backlite_jobs_1
WHERE id IN (SELECT job_id FROM backlite_steps INDEXED BY sqlite_autoindex_backlite_steps_1 WHERE workflow = :workflow AND status IS NULL)

-- name: remove_nodes
DELETE FROM backlite_steps WHERE workflow = :workflow

-- name: remove_flow
DELETE FROM backlite_workflows WHERE id = :workflow

-- name: runs
SELECT EXISTS (
    SELECT 1 FROM backlite_steps AS steps INDEXED BY sqlite_autoindex_backlite_steps_1 CROSS JOIN backlite_jobs AS jobs
    WHERE steps.workflow = :workflow AND steps.status IS NULL AND jobs.id = steps.job_id
      AND +jobs.status = 'running'
)

-- name: flow_watched
-- Whether somebody waits for it or for one of its nodes. Most often nobody waits for anything.
SELECT EXISTS (SELECT 1 FROM backlite_watches AS anybody) AND (
    EXISTS (SELECT 1 FROM backlite_watches WHERE job_id = :workflow)
    OR EXISTS (
        SELECT 1 FROM backlite_steps AS steps INDEXED BY sqlite_autoindex_backlite_steps_1 CROSS JOIN backlite_watches AS watches
        WHERE steps.workflow = :workflow AND watches.job_id = steps.job_id
    )
)

-- name: unsuccessful_of_flow
-- The jobs of its steps that have failed or were cancelled, not those that were skipped.
SELECT json_group_array(job_id) FROM (
    SELECT job_id FROM backlite_steps INDEXED BY sqlite_autoindex_backlite_steps_1
    WHERE workflow = :workflow AND kind = 'step' AND status IN ('failed', 'cancelled')
    ORDER BY number
)

-- name: expired_flows
SELECT id, size FROM backlite_workflows INDEXED BY backlite_workflows_expiry
WHERE expires_at <= :now ORDER BY expires_at LIMIT :limit
