-- What people and handlers ask of workflows. As everywhere, INDEXED BY and CROSS JOIN keep to the way that is meant,
-- whatever ANALYZE has counted; and each answer is one JSON array, as every row more waits for the interpreter.

-- name: flows
-- These workflows, in their order; of one that is not there, or has expired, null.
SELECT json_group_array(json((
    SELECT json_object(
        'id', id, 'name', name, 'created_at', created_at, 'left', flows.left, 'size', size, 'status', status,
        'finished_at', finished_at, 'cancelled_at', cancelled_at, 'expires_at', expires_at, 'ends', ends
    )
    FROM backlite_workflows AS flows INDEXED BY sqlite_autoindex_backlite_workflows_1
    WHERE flows.id = wanted.value AND coalesce(expires_at > :now, true)
))) FROM json_each(:ids) AS wanted

-- name: flow_nodes
-- All nodes of a workflow, with what is told of their jobs, live or completed.
SELECT json_group_array(json_array(
    json_array(number, kind, steps.job_id, steps.name, steps.status, steps.blocked, if_failed, json_array()),
    json(after),
    CASE
        WHEN live.id IS NOT NULL THEN json_array(
            live.queue, live.task, live.status, live.attempt, live.max_attempts, live.scheduled_at, live.started_at,
            NULL, live.progress, live.error
        )
        WHEN kept.id IS NOT NULL THEN json_array(
            kept.queue, kept.task, kept.status, kept.attempt, kept.max_attempts, kept.scheduled_at, kept.started_at,
            kept.finished_at, kept.progress, kept.error
        )
    END
))
FROM backlite_steps AS steps
LEFT JOIN backlite_jobs AS live INDEXED BY sqlite_autoindex_backlite_jobs_1 ON live.id = steps.job_id
LEFT JOIN backlite_completed AS kept INDEXED BY sqlite_autoindex_backlite_completed_1
    ON kept.id = steps.job_id AND live.id IS NULL
WHERE steps.workflow = :id

-- name: flow_places
-- The next workflows before an id, the greatest first: how they have ended, or whether anything of them has.
SELECT json_group_array(json_array(id, status, begun, kept)) FROM (
    SELECT id, status, flows.left < size OR ends > 0 AS begun, coalesce(expires_at > :now, true) AS kept
    FROM backlite_workflows AS flows INDEXED BY sqlite_autoindex_backlite_workflows_1
    WHERE id < :before
    ORDER BY id DESC LIMIT :size
)

-- name: flows_running
-- The workflows of all that runs, which is not much.
SELECT json_group_array(workflow) FROM backlite_jobs INDEXED BY backlite_jobs_running
WHERE status = 'running' AND workflow IS NOT NULL

-- name: flows_tried
-- Those of these workflows of which one of the first nodes, below :number, has been tried.
SELECT json_group_array(wanted.value) FROM json_each(:ids) AS wanted
WHERE EXISTS (
    SELECT 1 FROM backlite_steps AS steps
    CROSS JOIN backlite_jobs AS jobs INDEXED BY sqlite_autoindex_backlite_jobs_1
    WHERE steps.workflow = wanted.value AND steps.number < :number AND steps.blocked = 0
      AND jobs.id = steps.job_id AND jobs.attempt > 0
)

-- name: nodes_before
-- Kinds of the nodes of a workflow up to a number (NULL: of all), and what each comes after.
SELECT json_group_array(json_array(number, kind, json(after))) FROM backlite_steps
WHERE workflow = :id AND number <= coalesce(:number, 9223372036854775807)

-- name: nodes_at
-- The same of these nodes; null where there is none.
SELECT json_group_array(json((
    SELECT json_array(number, kind, json(after)) FROM backlite_steps AS steps
    WHERE steps.workflow = :id AND steps.number = wanted.value
))) FROM json_each(:numbers) AS wanted

-- name: results_at
-- What these nodes have left, in their order, and whether anything is kept of them; null where one has not ended.
SELECT json_group_array(json((
    SELECT json_array(
        json_array(number, kind, steps.job_id, steps.name, steps.status, steps.blocked, if_failed, json_array()),
        kept.id IS NOT NULL, CAST(kept.result AS TEXT)
    )
    FROM backlite_steps AS steps
    LEFT JOIN backlite_completed AS kept INDEXED BY sqlite_autoindex_backlite_completed_1 ON kept.id = steps.job_id
    WHERE steps.workflow = :id AND steps.number = wanted.value AND steps.status IS NOT NULL
))) FROM json_each(:numbers) AS wanted
