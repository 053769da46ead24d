-- What people ask for, and what they do to jobs. A list is a merge of walks along indexes: each statement gives the next
-- places of a walk, as one JSON array, from a place on, which is sought in two steps, as a comparison of row values
-- would seek its first part alone. INDEXED BY, NOT INDEXED (but by seq) and CROSS JOIN keep to the walk, whatever
-- ANALYZE has counted, maybe when there were few jobs, when it is cheaper to read all of them; and where
-- jobs are joined, the rest of what is wanted of them is no condition of the WHERE, for which SQLite may walk over the
-- whole table to build a Bloom filter. What is done to jobs is done to those that `states_of` and `kept_of` have found.

-- name: pending_levels
-- The queues, tasks and priorities that have pending jobs with a due time: one seek each.
WITH RECURSIVE level (queue, task, priority) AS (
    SELECT coalesce(:queue, ''), '', 0
    UNION ALL
    SELECT jobs.queue, jobs.task, jobs.priority
    FROM level CROSS JOIN backlite_jobs AS jobs NOT INDEXED
    WHERE jobs.seq = coalesce(
        (
            SELECT seq FROM backlite_jobs AS below INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND due_at IS NOT NULL
              AND below.queue = level.queue AND below.task = level.task AND below.priority < level.priority
            ORDER BY priority DESC LIMIT 1
        ),
        (
            SELECT seq FROM backlite_jobs AS next INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND due_at IS NOT NULL
              AND next.queue = level.queue AND next.task > level.task
            ORDER BY task, priority DESC LIMIT 1
        ),
        CASE WHEN :queue IS NULL THEN (
            SELECT seq FROM backlite_jobs AS next INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND due_at IS NOT NULL AND next.queue > level.queue
            ORDER BY queue, task, priority DESC LIMIT 1
        ) END
    )
)
SELECT json_group_array(json_array(queue, task, priority)) FROM level WHERE task <> ''

-- name: pending_after
-- Of each of :walks (queue, task, priority, due time, seq) the next places after that, due by :until.
SELECT json_group_array(json((
    SELECT json_group_array(json_array(due_at, seq)) FROM (
        SELECT due_at, seq FROM (
            SELECT due_at, seq FROM backlite_jobs AS twin INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND twin.queue = json_extract(walk.value, '$[0]')
              AND twin.task = json_extract(walk.value, '$[1]') AND twin.priority = json_extract(walk.value, '$[2]')
              AND twin.due_at = json_extract(walk.value, '$[3]') AND twin.seq > json_extract(walk.value, '$[4]')
            ORDER BY seq LIMIT :size
        )
        UNION ALL
        SELECT due_at, seq FROM (
            SELECT due_at, seq FROM backlite_jobs AS later INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND later.queue = json_extract(walk.value, '$[0]')
              AND later.task = json_extract(walk.value, '$[1]') AND later.priority = json_extract(walk.value, '$[2]')
              AND later.due_at > json_extract(walk.value, '$[3]') AND later.due_at <= :until
            ORDER BY due_at, seq LIMIT :size
        )
        LIMIT :size
    )
))) FROM json_each(:walks) AS walk

-- name: pending_before
-- The same backwards: due from :until on.
SELECT json_group_array(json((
    SELECT json_group_array(json_array(due_at, seq)) FROM (
        SELECT due_at, seq FROM (
            SELECT due_at, seq FROM backlite_jobs AS twin INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND twin.queue = json_extract(walk.value, '$[0]')
              AND twin.task = json_extract(walk.value, '$[1]') AND twin.priority = json_extract(walk.value, '$[2]')
              AND twin.due_at = json_extract(walk.value, '$[3]') AND twin.seq < json_extract(walk.value, '$[4]')
            ORDER BY seq DESC LIMIT :size
        )
        UNION ALL
        SELECT due_at, seq FROM (
            SELECT due_at, seq FROM backlite_jobs AS earlier INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND earlier.queue = json_extract(walk.value, '$[0]')
              AND earlier.task = json_extract(walk.value, '$[1]')
              AND earlier.priority = json_extract(walk.value, '$[2]')
              AND earlier.due_at < json_extract(walk.value, '$[3]') AND earlier.due_at >= :until
            ORDER BY due_at DESC, seq DESC LIMIT :size
        )
        LIMIT :size
    )
))) FROM json_each(:walks) AS walk

-- name: count_pending
-- How many of at most :looks there are, and how many were looked at: of all.
SELECT count(*), count(*) FROM (
    SELECT 1 FROM backlite_jobs INDEXED BY backlite_jobs_pending
    WHERE status = 'pending' AND queue = :queue AND task = :task AND priority = :priority
      AND due_at >= :since AND due_at <= :until
    LIMIT :looks
)

-- part: follows
-- Of jobs that wait for their turn, with priorities from above.
FROM walk CROSS JOIN backlite_jobs AS jobs NOT INDEXED
    WHERE jobs.seq = coalesce(
        CASE WHEN walk.fits THEN (
            SELECT seq FROM backlite_jobs AS twin INDEXED BY backlite_jobs_waiting
            WHERE twin.key = walk.key AND status = 'pending' AND due_at IS NULL
              AND twin.queue = walk.queue AND twin.task = walk.task AND twin.priority = walk.priority
              AND twin.scheduled_at = walk.scheduled_at AND twin.seq > walk.seq
            ORDER BY seq LIMIT 1
        ) END,
        CASE WHEN :task IS NULL OR walk.task = :task THEN (
            SELECT seq FROM backlite_jobs AS later INDEXED BY backlite_jobs_waiting
            WHERE later.key = walk.key AND status = 'pending' AND due_at IS NULL
              AND later.queue = walk.queue AND later.task = walk.task AND later.priority = walk.priority
              AND later.scheduled_at > max(walk.scheduled_at, :above) AND later.scheduled_at <= :until
            ORDER BY scheduled_at, seq LIMIT 1
        ) END,
        CASE WHEN :task IS NULL OR walk.task = :task THEN (
            SELECT seq FROM backlite_jobs AS below INDEXED BY backlite_jobs_waiting
            WHERE below.key = walk.key AND status = 'pending' AND due_at IS NULL
              AND below.queue = walk.queue AND below.task = walk.task AND below.priority < walk.priority
            ORDER BY priority DESC, scheduled_at, seq LIMIT 1
        ) END,
        CASE WHEN :task IS NULL OR walk.task < :task THEN (
            SELECT seq FROM backlite_jobs AS other INDEXED BY backlite_jobs_waiting
            WHERE other.key = walk.key AND status = 'pending' AND due_at IS NULL
              AND other.queue = walk.queue AND other.task > walk.task AND other.task >= coalesce(:task, '')
            ORDER BY task, priority DESC, scheduled_at, seq LIMIT 1
        ) END,
        (
            SELECT seq FROM backlite_jobs AS next INDEXED BY backlite_jobs_waiting
            WHERE next.key > walk.key AND status = 'pending' AND due_at IS NULL AND next.queue = walk.queue
            ORDER BY key, task, priority DESC, scheduled_at, seq LIMIT 1
        ),
        CASE WHEN :queue IS NULL THEN (
            SELECT seq FROM backlite_jobs AS next INDEXED BY backlite_jobs_waiting
            WHERE next.key IS NOT NULL AND status = 'pending' AND due_at IS NULL AND next.queue > walk.queue
            ORDER BY queue, key, task, priority DESC, scheduled_at, seq LIMIT 1
        ) END
    )

-- part: precedes
-- The same backwards: :above and :until are the other way round.
FROM walk CROSS JOIN backlite_jobs AS jobs NOT INDEXED
    WHERE jobs.seq = coalesce(
        CASE WHEN walk.fits THEN (
            SELECT seq FROM backlite_jobs AS twin INDEXED BY backlite_jobs_waiting
            WHERE twin.key = walk.key AND status = 'pending' AND due_at IS NULL
              AND twin.queue = walk.queue AND twin.task = walk.task AND twin.priority = walk.priority
              AND twin.scheduled_at = walk.scheduled_at AND twin.seq < walk.seq
            ORDER BY seq DESC LIMIT 1
        ) END,
        CASE WHEN :task IS NULL OR walk.task = :task THEN (
            SELECT seq FROM backlite_jobs AS earlier INDEXED BY backlite_jobs_waiting
            WHERE earlier.key = walk.key AND status = 'pending' AND due_at IS NULL
              AND earlier.queue = walk.queue AND earlier.task = walk.task AND earlier.priority = walk.priority
              AND earlier.scheduled_at < min(walk.scheduled_at, :above) AND earlier.scheduled_at >= :until
            ORDER BY scheduled_at DESC, seq DESC LIMIT 1
        ) END,
        CASE WHEN :task IS NULL OR walk.task = :task THEN (
            SELECT seq FROM backlite_jobs AS above INDEXED BY backlite_jobs_waiting
            WHERE above.key = walk.key AND status = 'pending' AND due_at IS NULL
              AND above.queue = walk.queue AND above.task = walk.task AND above.priority > walk.priority
            ORDER BY priority, scheduled_at DESC, seq DESC LIMIT 1
        ) END,
        CASE WHEN :task IS NULL OR walk.task > :task THEN (
            SELECT seq FROM backlite_jobs AS other INDEXED BY backlite_jobs_waiting
            WHERE other.key = walk.key AND status = 'pending' AND due_at IS NULL
              AND other.queue = walk.queue AND other.task < walk.task AND other.task <= coalesce(:task, x'')
            ORDER BY task DESC, priority, scheduled_at DESC, seq DESC LIMIT 1
        ) END,
        (
            SELECT seq FROM backlite_jobs AS next INDEXED BY backlite_jobs_waiting
            WHERE next.key < walk.key AND status = 'pending' AND due_at IS NULL AND next.queue = walk.queue
            ORDER BY key DESC, task DESC, priority, scheduled_at DESC, seq DESC LIMIT 1
        ),
        CASE WHEN :queue IS NULL THEN (
            SELECT seq FROM backlite_jobs AS next INDEXED BY backlite_jobs_waiting
            WHERE next.key IS NOT NULL AND status = 'pending' AND due_at IS NULL AND next.queue < walk.queue
            ORDER BY queue DESC, key DESC, task DESC, priority, scheduled_at DESC, seq DESC LIMIT 1
        ) END
    )

-- name: waiting_after
-- The next :size jobs after a place in their index, one by one; those that do not fit are where the walk, having
-- sought something that does, came to.
WITH RECURSIVE walk (queue, key, task, priority, scheduled_at, seq, fits, number) AS (
    SELECT :from_queue, :from_key, :from_task, :from_priority, :from_instant, :from_seq, true, 0
    UNION ALL
    SELECT
        jobs.queue, jobs.key, jobs.task, jobs.priority, jobs.scheduled_at, jobs.seq,
        coalesce(jobs.task = :task, true) AND jobs.scheduled_at > :above AND jobs.scheduled_at <= :until,
        walk.number + 1
    {follows} AND walk.number < :size
)
SELECT json_group_array(json_array(queue, key, task, -priority, scheduled_at, seq, fits)) FROM walk WHERE number > 0

-- name: waiting_before
WITH RECURSIVE walk (queue, key, task, priority, scheduled_at, seq, fits, number) AS (
    SELECT :from_queue, :from_key, :from_task, :from_priority, :from_instant, :from_seq, true, 0
    UNION ALL
    SELECT
        jobs.queue, jobs.key, jobs.task, jobs.priority, jobs.scheduled_at, jobs.seq,
        coalesce(jobs.task = :task, true) AND jobs.scheduled_at < :above AND jobs.scheduled_at >= :until,
        walk.number + 1
    {precedes} AND walk.number < :size
)
SELECT json_group_array(json_array(queue, key, task, -priority, scheduled_at, seq, fits)) FROM walk WHERE number > 0

-- name: waiting_queues
-- The queues of which jobs wait for a turn: one seek each.
WITH RECURSIVE waiting (queue) AS (
    SELECT ''
    UNION ALL
    SELECT (
        SELECT queue FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_waiting
        WHERE key IS NOT NULL AND status = 'pending' AND due_at IS NULL AND jobs.queue > waiting.queue
        ORDER BY queue LIMIT 1
    )
    FROM waiting WHERE queue IS NOT NULL
)
SELECT json_group_array(queue) FROM waiting WHERE queue <> ''

-- name: count_waiting
-- How many of at most :looks are wanted, and how many were looked at.
SELECT count(*) FILTER (WHERE fits), count(*) FROM (
    SELECT coalesce(task = :task, true) AND scheduled_at >= :since AND scheduled_at <= :until AS fits
    FROM backlite_jobs INDEXED BY backlite_jobs_waiting
    WHERE queue = :queue AND key IS NOT NULL AND status = 'pending' AND due_at IS NULL
    LIMIT :looks
)

-- name: blocked_levels
-- The queues, tasks and priorities that have jobs which wait for other steps of their workflows: one seek each.
WITH RECURSIVE level (queue, task, priority) AS (
    SELECT coalesce(:queue, ''), '', 0
    UNION ALL
    SELECT jobs.queue, jobs.task, jobs.priority
    FROM level CROSS JOIN backlite_jobs AS jobs NOT INDEXED
    WHERE jobs.seq = coalesce(
        (
            SELECT seq FROM backlite_jobs AS below INDEXED BY backlite_jobs_blocked
            WHERE blocked IS NOT NULL AND below.queue = level.queue AND below.task = level.task AND below.priority < level.priority
            ORDER BY priority DESC LIMIT 1
        ),
        (
            SELECT seq FROM backlite_jobs AS next INDEXED BY backlite_jobs_blocked
            WHERE blocked IS NOT NULL AND next.queue = level.queue AND next.task > level.task
            ORDER BY task, priority DESC LIMIT 1
        ),
        CASE WHEN :queue IS NULL THEN (
            SELECT seq FROM backlite_jobs AS next INDEXED BY backlite_jobs_blocked
            WHERE blocked IS NOT NULL AND next.queue > level.queue
            ORDER BY queue, task, priority DESC LIMIT 1
        ) END
    )
)
SELECT json_group_array(json_array(queue, task, priority)) FROM level WHERE task <> ''

-- name: blocked_after
-- The next places of one level, public due time and seq.
SELECT json_group_array(json_array(scheduled_at, seq)) FROM (
    SELECT scheduled_at, seq FROM (
        SELECT scheduled_at, seq FROM backlite_jobs INDEXED BY backlite_jobs_blocked
        WHERE blocked IS NOT NULL AND queue = :queue AND task = :task AND priority = :priority
          AND scheduled_at = :at AND seq > :seq
        ORDER BY seq LIMIT :size
    )
    UNION ALL
    SELECT scheduled_at, seq FROM (
        SELECT scheduled_at, seq FROM backlite_jobs INDEXED BY backlite_jobs_blocked
        WHERE blocked IS NOT NULL AND queue = :queue AND task = :task AND priority = :priority
          AND scheduled_at > :at AND scheduled_at <= :until
        ORDER BY scheduled_at, seq LIMIT :size
    )
    LIMIT :size
)

-- name: blocked_before
SELECT json_group_array(json_array(scheduled_at, seq)) FROM (
    SELECT scheduled_at, seq FROM (
        SELECT scheduled_at, seq FROM backlite_jobs INDEXED BY backlite_jobs_blocked
        WHERE blocked IS NOT NULL AND queue = :queue AND task = :task AND priority = :priority
          AND scheduled_at = :at AND seq < :seq
        ORDER BY seq DESC LIMIT :size
    )
    UNION ALL
    SELECT scheduled_at, seq FROM (
        SELECT scheduled_at, seq FROM backlite_jobs INDEXED BY backlite_jobs_blocked
        WHERE blocked IS NOT NULL AND queue = :queue AND task = :task AND priority = :priority
          AND scheduled_at < :at AND scheduled_at >= :until
        ORDER BY scheduled_at DESC, seq DESC LIMIT :size
    )
    LIMIT :size
)

-- name: count_blocked
SELECT count(*), count(*) FROM (
    SELECT 1 FROM backlite_jobs INDEXED BY backlite_jobs_blocked
    WHERE blocked IS NOT NULL AND queue = :queue AND task = :task AND priority = :priority
      AND scheduled_at >= :since AND scheduled_at <= :until
    LIMIT :looks
)

-- name: running_places
-- All that runs, whoever runs it: that is not much, and walked over whole.
SELECT json_group_array(json_array(coalesce(started_at, 0), seq))
FROM backlite_jobs INDEXED BY backlite_jobs_running
WHERE status = 'running' AND coalesce(queue = :queue, true) AND coalesce(task = :task, true)
  AND coalesce(owner = :owner, true)

-- name: count_running
SELECT count(*), count(*) FROM backlite_jobs INDEXED BY backlite_jobs_running
WHERE status = 'running' AND coalesce(queue = :queue, true) AND coalesce(task = :task, true)
  AND coalesce(owner = :owner, true)

-- name: completed_kinds
-- The queues, tasks and statuses that there are completed jobs of: one seek each.
WITH RECURSIVE kind (queue, task, status) AS (
    SELECT coalesce(:queue, ''), '', ''
    UNION ALL
    SELECT jobs.queue, jobs.task, jobs.status
    FROM kind CROSS JOIN backlite_completed AS jobs NOT INDEXED
    WHERE jobs.seq = coalesce(
        (
            SELECT seq FROM backlite_completed AS other INDEXED BY backlite_completed_ended
            WHERE other.queue = kind.queue AND other.task = kind.task AND other.status > kind.status
            ORDER BY status LIMIT 1
        ),
        (
            SELECT seq FROM backlite_completed AS next INDEXED BY backlite_completed_ended
            WHERE next.queue = kind.queue AND next.task > kind.task
            ORDER BY task, status LIMIT 1
        ),
        CASE WHEN :queue IS NULL THEN (
            SELECT seq FROM backlite_completed AS next INDEXED BY backlite_completed_ended
            WHERE next.queue > kind.queue
            ORDER BY queue, task, status LIMIT 1
        ) END
    )
)
SELECT json_group_array(json_array(queue, task, status)) FROM kind WHERE task <> ''

-- name: completed_after
-- Of each of :walks (queue, task, status, end, seq) the next places after that, which means before it in time, that have ended
-- from :until on.
SELECT json_group_array(json((
    SELECT json_group_array(json_array(finished_at, seq)) FROM (
        SELECT finished_at, seq FROM (
            SELECT finished_at, seq FROM backlite_completed AS twin INDEXED BY backlite_completed_ended
            WHERE twin.queue = json_extract(walk.value, '$[0]') AND twin.task = json_extract(walk.value, '$[1]')
              AND twin.status = json_extract(walk.value, '$[2]')
              AND twin.finished_at = json_extract(walk.value, '$[3]') AND twin.seq < json_extract(walk.value, '$[4]')
            ORDER BY seq DESC LIMIT :size
        )
        UNION ALL
        SELECT finished_at, seq FROM (
            SELECT finished_at, seq FROM backlite_completed AS earlier INDEXED BY backlite_completed_ended
            WHERE earlier.queue = json_extract(walk.value, '$[0]') AND earlier.task = json_extract(walk.value, '$[1]')
              AND earlier.status = json_extract(walk.value, '$[2]')
              AND earlier.finished_at < json_extract(walk.value, '$[3]') AND earlier.finished_at >= :until
            ORDER BY finished_at DESC, seq DESC LIMIT :size
        )
        LIMIT :size
    )
))) FROM json_each(:walks) AS walk

-- name: completed_before
-- The same backwards, which means on in time: ended by :until.
SELECT json_group_array(json((
    SELECT json_group_array(json_array(finished_at, seq)) FROM (
        SELECT finished_at, seq FROM (
            SELECT finished_at, seq FROM backlite_completed AS twin INDEXED BY backlite_completed_ended
            WHERE twin.queue = json_extract(walk.value, '$[0]') AND twin.task = json_extract(walk.value, '$[1]')
              AND twin.status = json_extract(walk.value, '$[2]')
              AND twin.finished_at = json_extract(walk.value, '$[3]') AND twin.seq > json_extract(walk.value, '$[4]')
            ORDER BY seq LIMIT :size
        )
        UNION ALL
        SELECT finished_at, seq FROM (
            SELECT finished_at, seq FROM backlite_completed AS later INDEXED BY backlite_completed_ended
            WHERE later.queue = json_extract(walk.value, '$[0]') AND later.task = json_extract(walk.value, '$[1]')
              AND later.status = json_extract(walk.value, '$[2]')
              AND later.finished_at > json_extract(walk.value, '$[3]') AND later.finished_at <= :until
            ORDER BY finished_at, seq LIMIT :size
        )
        LIMIT :size
    )
))) FROM json_each(:walks) AS walk

-- name: count_ended
-- How many of at most :looks there are, by the index alone, which does not know of those that have expired.
SELECT count(*) FROM (
    SELECT 1 FROM backlite_completed INDEXED BY backlite_completed_ended
    WHERE queue = :queue AND task = :task AND status = :status AND finished_at >= :since AND finished_at <= :until
    LIMIT :looks
)

-- name: count_kinds
-- The same of each of :kinds (queue, task, status), whenever they have ended.
SELECT json_group_array((
    SELECT count(*) FROM (
        SELECT 1 FROM backlite_completed AS completed INDEXED BY backlite_completed_ended
        WHERE completed.queue = json_extract(kind.value, '$[0]') AND completed.task = json_extract(kind.value, '$[1]')
          AND completed.status = json_extract(kind.value, '$[2]')
        LIMIT :looks
    )
)) FROM json_each(:kinds) AS kind

-- name: expired_kinds
-- What those are, at most :most, that have expired and are still there, and when they have ended.
SELECT json_group_array(json_array(queue, task, status, finished_at)) FROM (
    SELECT queue, task, status, finished_at FROM backlite_completed INDEXED BY backlite_completed_expiry
    WHERE expires_at <= :now
    LIMIT :most
)

-- name: count_completed
-- How many of at most :looks are kept, as some may have expired, and how many were looked at.
SELECT count(*) FILTER (WHERE coalesce(expires_at > :now, true)), count(*) FROM (
    SELECT expires_at FROM backlite_completed INDEXED BY backlite_completed_ended
    WHERE queue = :queue AND task = :task AND status = :status AND finished_at >= :since AND finished_at <= :until
    LIMIT :looks
)

-- name: steps_after
-- The jobs of a workflow in the order of its steps, from number :at on: number, and where the job is.
SELECT json_group_array(json_array(number, live, CASE WHEN live IS NULL THEN kept END)) FROM (
    SELECT
        number, (SELECT seq FROM backlite_jobs AS jobs WHERE jobs.id = job_id AND +workflow = :of) AS live,
        (SELECT seq FROM backlite_completed AS jobs WHERE jobs.id = job_id AND +workflow = :of) AS kept
    FROM backlite_steps AS steps NOT INDEXED
    WHERE steps.workflow = :of AND number > :at AND job_id IS NOT NULL
    ORDER BY number LIMIT :size
)

-- name: steps_before
SELECT json_group_array(json_array(number, live, CASE WHEN live IS NULL THEN kept END)) FROM (
    SELECT
        number, (SELECT seq FROM backlite_jobs AS jobs WHERE jobs.id = job_id AND +workflow = :of) AS live,
        (SELECT seq FROM backlite_completed AS jobs WHERE jobs.id = job_id AND +workflow = :of) AS kept
    FROM backlite_steps AS steps NOT INDEXED
    WHERE steps.workflow = :of AND number < :at AND job_id IS NOT NULL
    ORDER BY number DESC LIMIT :size
)

-- name: tagged_after
-- The jobs that got a tag before number :at, the last one first: number, and where the job is, live or completed.
SELECT json_group_array(json_array(number, live, CASE WHEN live IS NULL THEN kept END)) FROM (
    SELECT
        number, (SELECT seq FROM backlite_jobs AS jobs WHERE jobs.id = job_id) AS live,
        (SELECT seq FROM backlite_completed AS jobs WHERE jobs.id = job_id) AS kept
    FROM backlite_tags INDEXED BY backlite_tags_tag
    WHERE tag = :of AND number < :at
    ORDER BY number DESC LIMIT :size
)

-- name: tagged_before
SELECT json_group_array(json_array(number, live, CASE WHEN live IS NULL THEN kept END)) FROM (
    SELECT
        number, (SELECT seq FROM backlite_jobs AS jobs WHERE jobs.id = job_id) AS live,
        (SELECT seq FROM backlite_completed AS jobs WHERE jobs.id = job_id) AS kept
    FROM backlite_tags INDEXED BY backlite_tags_tag
    WHERE tag = :of AND number > :at
    ORDER BY number LIMIT :size
)

-- name: live_children_after
SELECT json_group_array(json_array(seq, seq, NULL)) FROM (
    SELECT seq FROM backlite_jobs INDEXED BY backlite_jobs_parent
    WHERE parent = :of AND seq < :at
    ORDER BY seq DESC LIMIT :size
)

-- name: live_children_before
SELECT json_group_array(json_array(seq, seq, NULL)) FROM (
    SELECT seq FROM backlite_jobs INDEXED BY backlite_jobs_parent
    WHERE parent = :of AND seq > :at
    ORDER BY seq LIMIT :size
)

-- name: kept_children_after
SELECT json_group_array(json_array(seq, NULL, seq)) FROM (
    SELECT seq FROM backlite_completed INDEXED BY backlite_completed_parent
    WHERE parent = :of AND seq < :at
    ORDER BY seq DESC LIMIT :size
)

-- name: kept_children_before
SELECT json_group_array(json_array(seq, NULL, seq)) FROM (
    SELECT seq FROM backlite_completed INDEXED BY backlite_completed_parent
    WHERE parent = :of AND seq > :at
    ORDER BY seq LIMIT :size
)

-- name: place_of_unique
-- Where the job is that was last added with a unique key: what its sort key is made of. Another may have got its id
-- since, or it was given to another queue.
SELECT
    jobs.seq, jobs.status, jobs.queue, jobs.key, jobs.task, jobs.priority, jobs.scheduled_at, jobs.due_at,
    jobs.started_at, NULL, (SELECT number FROM backlite_tags AS tags WHERE tags.job_id = jobs.id AND tags.tag = :tag),
    jobs.blocked, jobs.workflow, jobs.step
FROM backlite_unique AS known CROSS JOIN backlite_jobs AS jobs
WHERE known.queue = :queue AND known.key = :unique AND jobs.id = known.job_id AND jobs.created_at = known.added_at
  AND +jobs.queue = :queue
UNION ALL
SELECT
    jobs.seq, jobs.status, jobs.queue, jobs.key, jobs.task, jobs.priority, jobs.scheduled_at, NULL,
    jobs.started_at, jobs.finished_at,
    (SELECT number FROM backlite_tags AS tags WHERE tags.job_id = jobs.id AND tags.tag = :tag), NULL,
    jobs.workflow, jobs.step
FROM backlite_unique AS known CROSS JOIN backlite_completed AS jobs
WHERE known.queue = :queue AND known.key = :unique AND jobs.id = known.job_id AND jobs.created_at = known.added_at
  AND +jobs.queue = :queue
LIMIT 1

-- part: wanted
-- All that can be asked of a job but its times and its key, which are not the same for those that live and those
-- that have ended.
coalesce(jobs.queue = :queue, :queue IS NULL) AND coalesce(jobs.task = :task, :task IS NULL)
  AND (:states IS NULL OR jobs.status IN (SELECT value FROM json_each(:states)))
  AND coalesce(jobs.parent = :parent, :parent IS NULL)
  AND coalesce(jobs.owner = :owner, :owner IS NULL)
  AND coalesce(jobs.workflow = :workflow, :workflow IS NULL)
  AND (:tag IS NULL OR EXISTS (SELECT 1 FROM backlite_tags AS tags WHERE tags.job_id = jobs.id AND tags.tag = :tag))
  AND jobs.created_at >= :added_since AND jobs.created_at <= :added_until

-- part: says
:text IS NULL
          OR instr(lower(jobs.id), :text) OR instr(lower(jobs.error), :text) OR instr(lower(jobs.meta), :text)
          OR instr(lower(CAST(jobs.payload AS TEXT)), :text)

-- name: live_sizes
-- How long the payloads of these jobs are, which is told without reading them.
SELECT json_group_array(json_array(jobs.seq, length(jobs.payload)))
FROM json_each(:seqs) AS place CROSS JOIN backlite_jobs AS jobs NOT INDEXED
WHERE jobs.seq = place.value

-- name: completed_sizes
SELECT json_group_array(json_array(jobs.seq, coalesce(length(jobs.payload), 0)))
    FILTER (WHERE coalesce(jobs.expires_at > :now, true))
FROM json_each(:seqs) AS place CROSS JOIN backlite_completed AS jobs NOT INDEXED
WHERE jobs.seq = place.value

-- name: wanted_live
-- Which of these live jobs are wanted.
SELECT json_group_array(jobs.seq) FILTER (
    WHERE {wanted}
      AND coalesce(coalesce(jobs.key, nullif(jobs.blocked, '')) = :key, :key IS NULL)
      AND ({says} OR instr(lower(coalesce(jobs.key, jobs.blocked)), :text))
      AND (
          :due IS NULL
          OR (
              jobs.status = 'pending' AND coalesce(jobs.due_at, jobs.scheduled_at) >= :due_since
              AND coalesce(jobs.due_at, jobs.scheduled_at) <= :due_until
          )
      )
)
FROM json_each(:seqs) AS place CROSS JOIN backlite_jobs AS jobs NOT INDEXED
WHERE jobs.seq = place.value

-- name: wanted_completed
-- Which of these completed jobs are kept, and which of those are wanted.
SELECT json_array(
    json(json_group_array(jobs.seq) FILTER (WHERE coalesce(jobs.expires_at > :now, true))),
    json(json_group_array(jobs.seq) FILTER (
        WHERE coalesce(jobs.expires_at > :now, true) AND {wanted} AND coalesce(jobs.key = :key, :key IS NULL)
          AND ({says} OR instr(lower(jobs.key), :text))
          AND jobs.finished_at >= :finished_since AND jobs.finished_at <= :finished_until
    ))
)
FROM json_each(:seqs) AS place CROSS JOIN backlite_completed AS jobs NOT INDEXED
WHERE jobs.seq = place.value

-- part: cut_payload
-- Of one of more than :long bytes nothing, so that the rest is not read: its first :cut bytes are read where it stands.
CASE
    WHEN :cut IS NULL OR length(payload) <= :cut THEN payload
    WHEN length(payload) <= :long THEN substr(payload, 1, :cut)
END

-- part: cut_result
CASE
    WHEN :cut IS NULL OR length(result) <= :cut THEN result
    WHEN length(result) <= :long THEN substr(result, 1, :cut)
END

-- part: cut_error
CASE WHEN :letters IS NULL THEN error ELSE substr(error, 1, :letters) END

-- name: live_records
SELECT
    jobs.seq, true, jobs.id, queue, task, status, {cut_payload}, attempt, max_attempts, crashes, priority, fence, owner,
    created_at, scheduled_at, started_at, NULL, NULL, {cut_error}, NULL, NULL,
    coalesce(jobs.key, nullif(blocked, '')), timeout, jobs.parent, workflow, meta, tags, cancelled_at, progress,
    progress_message, noted, status = 'pending' AND due_at IS NULL, length(payload), NULL
FROM json_each(:seqs) AS place CROSS JOIN backlite_jobs AS jobs NOT INDEXED
WHERE jobs.seq = place.value

-- name: completed_records
SELECT
    jobs.seq, false, jobs.id, queue, task, status, {cut_payload}, attempt, max_attempts, crashes, priority, fence, owner,
    created_at, scheduled_at, started_at, finished_at, duration, {cut_error}, {cut_result}, expires_at,
    jobs.key, timeout, jobs.parent, workflow, meta, tags, cancelled_at, progress, progress_message, noted, false,
    length(payload), length(result)
FROM json_each(:seqs) AS place CROSS JOIN backlite_completed AS jobs NOT INDEXED
WHERE jobs.seq = place.value

-- name: states_of
-- Of these jobs those that are live; of one that is pending, whether it waits for no turn.
SELECT json_group_array(json_array(jobs.id, status, queue, task, jobs.key, due_at IS NOT NULL, workflow))
FROM json_each(:ids) AS wanted CROSS JOIN backlite_jobs AS jobs
WHERE jobs.id = wanted.value

-- name: kept_of
-- Those of these jobs that are kept, and whether they can run again.
SELECT json_group_array(json_array(jobs.id, status <> 'succeeded' AND payload IS NOT NULL, workflow, step))
    FILTER (WHERE coalesce(expires_at > :now, true))
FROM json_each(:ids) AS wanted CROSS JOIN backlite_completed AS jobs
WHERE jobs.id = wanted.value

-- name: rerun_pending
-- One that waits for its turn waits on.
UPDATE backlite_jobs INDEXED BY sqlite_autoindex_backlite_jobs_1
SET
    crashes = 0, max_attempts = max(max_attempts, attempt + :attempts), scheduled_at = :now, waits_from = :now,
    due_at = CASE WHEN due_at IS NOT NULL THEN :now END
WHERE id IN (SELECT value FROM json_each(:ids))

-- name: rerun_completed
INSERT INTO backlite_jobs (
    id, queue, task, priority, key, payload, meta, attempt, max_attempts, crashes, created_at, scheduled_at, due_at,
    error, waits_from, timeout, parent, tags, noted, progress, progress_message, workflow, step
)
SELECT
    jobs.id, queue, task, priority, jobs.key, payload, meta, attempt, max(max_attempts, attempt + :attempts), 0,
    created_at, :now, :now, error, :now, timeout, jobs.parent, tags, noted, progress, progress_message, workflow, step
FROM json_each(:ids) AS wanted CROSS JOIN backlite_completed AS jobs
WHERE jobs.id = wanted.value
ORDER BY wanted.id

-- name: postpone
-- One that waits for its turn waits on, unless it is for later; one that waits for others in any case.
UPDATE backlite_jobs INDEXED BY sqlite_autoindex_backlite_jobs_1
SET
    scheduled_at = :due_at, waits_from = :waits_from,
    due_at = CASE WHEN blocked IS NULL AND (due_at IS NOT NULL OR :due_at > :now) THEN :due_at END
WHERE id IN (SELECT value FROM json_each(:ids))

-- name: edit
UPDATE backlite_jobs INDEXED BY sqlite_autoindex_backlite_jobs_1 SET payload = :payload
WHERE id IN (SELECT value FROM json_each(:ids))

-- name: release
-- As if they had not been claimed. The error of one that is to be cancelled is that.
UPDATE backlite_jobs INDEXED BY sqlite_autoindex_backlite_jobs_1
SET
    status = 'pending', owner = NULL, started_at = NULL, attempt = max(attempt - 1, 0),
    scheduled_at = min(scheduled_at, :now), due_at = :now, error = CASE WHEN cancelled_at IS NULL THEN error END
WHERE id IN (SELECT value FROM json_each(:ids))

-- name: delete_pending
DELETE FROM backlite_jobs INDEXED BY sqlite_autoindex_backlite_jobs_1
WHERE id IN (SELECT value FROM json_each(:ids))

-- name: delete_completed
DELETE FROM backlite_completed INDEXED BY sqlite_autoindex_backlite_completed_1
WHERE id IN (SELECT value FROM json_each(:ids))

-- name: delete_unique
DELETE FROM backlite_unique INDEXED BY backlite_unique_job WHERE job_id IN (SELECT value FROM json_each(:ids))
