-- Every statement of the SQLite store, in the order of a job's life.
-- Lists travel as one JSON array a statement, both ways: who fetches row by row waits for the interpreter at each
-- row. A part stands where its name is, in braces. A `+` keeps a condition out of the choice of the index: jobs are
-- to be found by their id, whatever ANALYZE has counted, if only a few rows. For the same reason indexes are named,
-- jobs of a list are found one by one, and some conditions say how likely they are, or hold always.
-- Columns in milliseconds UTC, but duration: microseconds.

-- name: add
-- Run with many rows, by `many`.
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, priority, waits_from
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- part: add_from_array
INSERT INTO backlite_jobs (
    id, queue, task, payload, max_attempts, created_at, scheduled_at, due_at, priority, waits_from,
    key, timeout, parent, meta, tags, workflow, step, blocked
)
SELECT
    json_extract(value, '$[0]'),
    json_extract(value, '$[1]'),
    json_extract(value, '$[2]'),
    CAST(json_extract(value, '$[3]') AS BLOB),
    json_extract(value, '$[4]'),
    json_extract(value, '$[5]'),
    json_extract(value, '$[6]'),
    iif(json_extract(value, '$[16]') IS NULL, json_extract(value, '$[6]'), NULL),
    json_extract(value, '$[7]'),
    json_extract(value, '$[8]'),
    json_extract(value, '$[9]'),
    json_extract(value, '$[10]'),
    json_extract(value, '$[11]'),
    json_extract(value, '$[12]'),
    json_extract(value, '$[13]'),
    json_extract(value, '$[14]'),
    json_extract(value, '$[15]'),
    json_extract(value, '$[16]')
FROM json_each(:jobs)

-- name: add_from_array
-- One statement for any number: in the transaction of somebody else it happens or does not.
{add_from_array}
ORDER BY json_each.id

-- name: add_again
-- The same where some of them may be there already.
{add_from_array}
WHERE NOT EXISTS (SELECT 1 FROM backlite_completed AS kept WHERE kept.id = json_extract(value, '$[0]'))
ORDER BY json_each.id
ON CONFLICT (id) DO NOTHING

-- name: add_tags
-- Of jobs that are there: their ids, and their tags as JSON.
INSERT OR IGNORE INTO backlite_tags (job_id, tag)
SELECT json_extract(job.value, '$[0]'), tag.value
FROM json_each(:tagged) AS job CROSS JOIN json_each(json_extract(job.value, '$[1]')) AS tag
ORDER BY job.key, tag.key

-- name: same_id
-- A job of this id, live or kept, and whether it is kept for longer than it should be.
SELECT status, created_at, payload, false FROM backlite_jobs WHERE id = :id
UNION ALL
SELECT status, created_at, payload, coalesce(expires_at <= :now, false) FROM backlite_completed WHERE id = :id

-- name: forget_job
DELETE FROM backlite_completed WHERE id = :id

-- name: same_key
-- The job that was last added with a unique key, and its status if it is live. Another may have got its id since.
SELECT job_id, added_at, until, jobs.status
FROM backlite_unique AS known
    LEFT JOIN backlite_jobs AS jobs ON jobs.id = known.job_id AND jobs.created_at = known.added_at
WHERE known.queue = :queue AND known.key = :key

-- name: remember_key
INSERT INTO backlite_unique (queue, key, job_id, added_at, until, look_at)
VALUES (:queue, :key, :id, :added_at, :until, :look_at)
ON CONFLICT (queue, key) DO UPDATE SET
    job_id = excluded.job_id, added_at = excluded.added_at, until = excluded.until, look_at = excluded.look_at

-- name: let_in_pending
-- The queue, key and task of a pending job that has a turn.
SELECT queue, key, task FROM backlite_jobs
WHERE id = :id AND +status = 'pending' AND key IS NOT NULL AND +due_at IS NOT NULL AND workflow IS NULL

-- name: replace
-- One that waits for its turn waits on, unless it is for later; a step of a workflow stays what it is.
UPDATE backlite_jobs
SET
    queue = :queue, task = :task, payload = :payload, scheduled_at = :due_at, waits_from = :waits_from,
    due_at = CASE WHEN due_at IS NOT NULL OR :due_at > :now OR queue <> :queue OR task <> :task THEN :due_at END
WHERE id = :id AND +status = 'pending' AND workflow IS NULL

-- name: write_nothing
-- Take the write lock, in somebody's transaction, before anything is read.
UPDATE backlite_fence SET value = value WHERE false

-- name: savepoint
SAVEPOINT backlite_add

-- name: rollback_to_savepoint
ROLLBACK TO backlite_add

-- name: release_savepoint
RELEASE backlite_add

-- part: head
-- The kinds of :places, and the first pending job of each: one seek per kind.
head (queue, task, value, seq) AS MATERIALIZED (
        SELECT queue, task, value, (
            SELECT seq FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND due_at IS NOT NULL
              AND jobs.queue = wanted.queue AND jobs.task = wanted.task
            ORDER BY priority DESC, due_at, seq LIMIT 1
        )
        FROM (
            SELECT
                json_extract(value, '$[0]') AS queue, json_extract(value, '$[1]') AS task, value
            FROM json_each(:places)
        ) AS wanted
    )

-- part: level
-- The priority levels in use of each kind, from above, down to where it has :total due jobs: one seek per level.
level (queue, task, priority, wanted) AS (
        SELECT head.queue, head.task, jobs.priority, :total
        FROM head CROSS JOIN backlite_jobs AS jobs USING (seq)
        UNION ALL
        SELECT level.queue, level.task, jobs.priority, level.wanted - (
            SELECT count(*) FROM (
                SELECT 1 FROM backlite_jobs AS above
                WHERE status = 'pending' AND above.due_at <= :now
                  AND above.queue = level.queue AND above.task = level.task AND above.priority = level.priority
                LIMIT :total
            )
        )
        FROM level CROSS JOIN backlite_jobs AS jobs
        WHERE level.wanted > 0 AND jobs.seq = (
            SELECT seq FROM backlite_jobs AS below INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND due_at IS NOT NULL
              AND below.queue = level.queue AND below.task = level.task AND below.priority < level.priority
            ORDER BY priority DESC LIMIT 1
        )
    )

-- part: candidate
-- The best few of each kind and priority level: for few kinds, as each brings up to :total rows. They come as JSON:
-- where SQLite has counted a small table, it would walk over jobs rather than join them by places.
candidate (seq, priority, due_at, queue, task) AS (
        SELECT CAST(place.key AS INTEGER), level.priority, place.value, level.queue, level.task
        FROM level CROSS JOIN json_each((
            SELECT json_group_object(seq, due_at) FROM (
                SELECT seq, due_at FROM backlite_jobs AS best INDEXED BY backlite_jobs_pending
                WHERE best.status = 'pending' AND best.due_at <= :now
                  AND best.queue = level.queue AND best.task = level.task AND best.priority = level.priority
                ORDER BY best.due_at, best.seq LIMIT :total
            )
        )) AS place
        WHERE level.wanted > 0
    )

-- part: next_of_kind
-- A merge of kinds, begun by their heads: the best job that is offered is taken from the queue of the recursion, and
-- its kind offers its next one, by a seek or two, until `remaining` of its due jobs are taken. So no kind is read
-- further than it is taken from. A level's first job is offered also if it is not due: once it is taken, and passed
-- over, the level below has its turn. The CASE is no condition of the WHERE, from which SQLite would draw its own
-- conclusions, and walk over jobs.
FROM merge CROSS JOIN backlite_jobs AS jobs
        WHERE merge.remaining > (merge.due_at <= :now) AND jobs.seq = coalesce(
            CASE WHEN merge.due_at <= :now THEN (
                SELECT seq FROM backlite_jobs AS twin INDEXED BY backlite_jobs_pending
                WHERE status = 'pending' AND twin.due_at = merge.due_at AND twin.seq > merge.seq
                  AND twin.queue = merge.queue AND twin.task = merge.task AND twin.priority = merge.priority
                ORDER BY seq LIMIT 1
            ) END,
            (
                SELECT seq FROM backlite_jobs AS later INDEXED BY backlite_jobs_pending
                WHERE status = 'pending' AND later.due_at > merge.due_at AND later.due_at <= :now
                  AND later.queue = merge.queue AND later.task = merge.task AND later.priority = merge.priority
                ORDER BY due_at, seq LIMIT 1
            ),
            (
                SELECT seq FROM backlite_jobs AS below INDEXED BY backlite_jobs_pending
                WHERE status = 'pending' AND due_at IS NOT NULL
                  AND below.queue = merge.queue AND below.task = merge.task AND below.priority < merge.priority
                ORDER BY priority DESC, due_at, seq LIMIT 1
            )
        )
        ORDER BY 3 DESC, 4, 5

-- part: chosen_in_lanes
ranked AS (
        SELECT *, row_number() OVER (PARTITION BY lane ORDER BY priority DESC, due_at, seq) AS place
        FROM in_lane
    ),
    chosen (seq) AS (
        SELECT seq FROM ranked WHERE place <= room ORDER BY priority DESC, due_at, seq LIMIT :total
    )

-- part: jobs
-- Claimed jobs to be, as arrays in the order of the fields of `ClaimedJob`, which end early where nothing follows. A
-- payload that is larger than :largest bytes is left out.
CAST(json_group_array(
    CASE WHEN coalesce(key, timeout, parent, meta, tags, noted, workflow) IS NULL THEN json_array(
        id, queue, task, CASE WHEN length(payload) <= :largest THEN CAST(payload AS TEXT) END, attempt + 1,
        max_attempts, crashes, (SELECT value + 1 FROM backlite_fence WHERE only_row = 1), created_at, scheduled_at,
        waits_from
    ) ELSE json_array(
        id, queue, task, CASE WHEN length(payload) <= :largest THEN CAST(payload AS TEXT) END, attempt + 1,
        max_attempts, crashes, (SELECT value + 1 FROM backlite_fence WHERE only_row = 1), created_at, scheduled_at,
        waits_from, key, timeout, parent, meta, tags, noted, workflow, step
    ) END
) AS BLOB)

-- part: other
-- The owners with claims, one seek each; to begin with, one before all of them.
other (owner) AS (
        SELECT ''
        UNION ALL
        SELECT (
            SELECT owner FROM backlite_jobs AS jobs
            WHERE status = 'running' AND jobs.owner > other.owner
            ORDER BY jobs.owner LIMIT 1
        )
        FROM other WHERE owner IS NOT NULL
    )

-- part: lease_end
-- The first lease of another owner than :owner, of one of :kinds, to end after :after.
(
    SELECT min((
        SELECT due_at FROM backlite_jobs AS jobs
        WHERE status = 'running' AND jobs.owner = other.owner AND due_at > :after
          AND queue = json_extract(value, '$[0]') AND task = json_extract(value, '$[1]')
        ORDER BY due_at LIMIT 1
    ))
    FROM other CROSS JOIN json_each(:kinds) WHERE other.owner NOT IN ('', :owner)
)

-- part: next_due
-- When the next job after :now is due, where fewer are due than there is room for.
CASE WHEN count(*) < :total THEN (
        SELECT min((
            SELECT due_at FROM backlite_jobs AS jobs
            WHERE status = 'pending' AND due_at > :now
              AND jobs.queue = level.queue AND jobs.task = level.task AND jobs.priority = level.priority
            ORDER BY due_at LIMIT 1
        ))
        FROM level
    ) END

-- part: first_due
-- When the first job of :places is due.
(
        SELECT min((
            SELECT due_at FROM backlite_jobs AS jobs
            WHERE status = 'pending' AND due_at IS NOT NULL
              AND jobs.queue = level.queue AND jobs.task = level.task AND jobs.priority = level.priority
            ORDER BY due_at LIMIT 1
        ))
        FROM level
    )

-- name: look
-- Whether a job of :places is due, found at the first kind whose best one is, or else when the first will be, and
-- when the next lease of another owner ends.
WITH RECURSIVE
    {head},
    {level},
    {other},
    first (due_at) AS MATERIALIZED (
        SELECT CASE WHEN EXISTS (
            SELECT 1 FROM json_each(:places) AS kind
            WHERE (
                SELECT due_at FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_pending
                WHERE status = 'pending' AND due_at IS NOT NULL
                  AND queue = json_extract(kind.value, '$[0]') AND task = json_extract(kind.value, '$[1]')
                ORDER BY priority DESC, due_at LIMIT 1
            ) <= :now
        ) THEN :now ELSE {first_due} END
    )
SELECT due_at, CASE WHEN coalesce(due_at > :now, true) THEN {lease_end} END FROM first

-- name: first_due
WITH RECURSIVE
    {head},
    {level}
SELECT {first_due}

-- name: claimable
-- The best jobs of few kinds in one lane: their places in the table, and all that their attempts need. Next to
-- them, when the next job is due after :now, and when the next lease of another owner ends.
WITH RECURSIVE
    {head},
    {level},
    {candidate},
    {other},
    chosen (seq) AS (SELECT seq FROM candidate ORDER BY priority DESC, due_at, seq LIMIT :total)
SELECT
    json_group_array(seq),
    {jobs},
    {next_due},
    {lease_end}
FROM chosen CROSS JOIN backlite_jobs AS jobs USING (seq)

-- name: claimable_of_kinds
-- The same of any number of kinds: a merge brings the best first, and goes no further than it is asked to.
WITH RECURSIVE
    {head},
    {level},
    {other},
    merge (queue, task, priority, due_at, seq, remaining) AS (
        SELECT head.queue, head.task, jobs.priority, jobs.due_at, jobs.seq, json_extract(value, '$[2]')
        FROM head CROSS JOIN backlite_jobs AS jobs USING (seq)
        UNION ALL
        SELECT
            jobs.queue, jobs.task, jobs.priority, jobs.due_at, jobs.seq,
            merge.remaining - (merge.due_at <= :now)
        {next_of_kind}
    ),
    chosen (seq) AS (SELECT seq FROM merge WHERE due_at <= :now LIMIT :total)
SELECT
    json_group_array(seq),
    {jobs},
    {next_due},
    {lease_end}
FROM chosen CROSS JOIN backlite_jobs AS jobs USING (seq)

-- name: claimable_in_lanes
-- The same of few kinds, each in a lane of its own: the best of those that fit theirs.
WITH RECURSIVE
    {head},
    {level},
    {candidate},
    {other},
    in_lane (seq, priority, due_at, lane, room) AS (
        SELECT
            candidate.seq, priority, due_at, json_extract(value, '$[3]'), json_extract(value, '$[2]')
        FROM candidate CROSS JOIN head USING (queue, task)
    ),
    {chosen_in_lanes}
SELECT
    json_group_array(seq),
    {jobs},
    NULL,
    {lease_end}
FROM chosen CROSS JOIN backlite_jobs AS jobs USING (seq)

-- name: claimable_of_kinds_in_lanes
-- The same of any number of kinds, a merge for each portion, whose best :most are enough.
WITH RECURSIVE
    {head},
    {other},
    part (queue, task, cap, lane, room, portion, size, seq) AS MATERIALIZED (
        SELECT
            queue, task, json_extract(value, '$[2]'), json_extract(value, '$[3]'), json_extract(value, '$[4]'),
            json_extract(value, '$[5]'), json_extract(value, '$[6]'), seq
        FROM head
    ),
    portion (portion, size) AS (SELECT DISTINCT portion, size FROM part),
    in_lane (seq, priority, due_at, lane, room) AS (
        SELECT
            json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
            json_extract(value, '$[3]'), json_extract(value, '$[4]')
        FROM portion CROSS JOIN json_each((
            WITH RECURSIVE merge (queue, task, priority, due_at, seq, remaining, lane, room) AS (
                SELECT part.queue, part.task, jobs.priority, jobs.due_at, jobs.seq, cap, lane, room
                FROM part CROSS JOIN backlite_jobs AS jobs USING (seq)
                WHERE part.portion = portion.portion
                UNION ALL
                SELECT
                    jobs.queue, jobs.task, jobs.priority, jobs.due_at, jobs.seq,
                    merge.remaining - (merge.due_at <= :now), lane, room
                {next_of_kind}
            )
            SELECT json_group_array(json_array(seq, priority, due_at, lane, room))
            FROM (SELECT * FROM merge WHERE due_at <= :now LIMIT :most)
        ))
        WHERE json_each.key < size
    ),
    {chosen_in_lanes}
SELECT
    json_group_array(seq),
    {jobs},
    NULL,
    {lease_end}
FROM chosen CROSS JOIN backlite_jobs AS jobs USING (seq)

-- name: paused
SELECT json_group_array(queue) FROM backlite_queues INDEXED BY backlite_queues_paused WHERE paused_at IS NOT NULL

-- name: running_of_queues
-- How many jobs of each of these queues are claimed, by whomever.
WITH RECURSIVE
    {other},
    owners (owner) AS MATERIALIZED (SELECT owner FROM other WHERE owner <> '')
SELECT json_group_object(value, (
    SELECT count(*) FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_running
    WHERE status = 'running' AND jobs.owner IN (SELECT owner FROM owners) AND jobs.queue = json_each.value
))
FROM json_each(:queues)

-- name: starts
-- The first start of a queue that a window which ends now still holds, and the numbers of its last and first one.
SELECT
    first.number, first.at, (SELECT max(number) FROM backlite_starts WHERE queue = :queue),
    (SELECT min(number) FROM backlite_starts WHERE queue = :queue)
FROM (SELECT 1) LEFT JOIN (
    SELECT number, at FROM backlite_starts WHERE queue = :queue AND number >= 0 AND at > :since ORDER BY number LIMIT 1
) AS first

-- name: forget_starts
DELETE FROM backlite_starts WHERE queue = :queue AND number < :number

-- name: count_starts
INSERT INTO backlite_starts (queue, number, owner, at)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), :owner, :at FROM json_each(:starts)

-- name: end_starts
-- Owners that have died start nothing more. All starts are read: owners die seldom.
UPDATE backlite_starts SET at = :now WHERE owner IN (SELECT value FROM json_each(:owners)) AND at > :now

-- name: note_starts
-- Of those that are still there. No UPDATE, which would be free to walk over all starts for each of them.
INSERT INTO backlite_starts (queue, number, owner, at)
SELECT known.queue, known.number, known.owner, json_extract(value, '$[2]')
FROM json_each(:starts) CROSS JOIN backlite_starts AS known
WHERE known.queue = json_extract(value, '$[0]') AND known.number = json_extract(value, '$[1]')
ON CONFLICT (queue, number) DO UPDATE SET at = excluded.at

-- name: starts_ahead
-- Whether a start is counted that is later than any that can be.
SELECT EXISTS (SELECT 1 FROM backlite_starts WHERE at > :latest)

-- name: pull_starts
-- The wall clock was set back: what has started has started by now.
UPDATE backlite_starts SET at = :now WHERE at > :latest

-- name: shift_starts
-- What may have started after the step already is left, or counted as started now.
UPDATE backlite_starts SET at = iif(:by < 0, at + :by, max(at, min(at + :by, :now)))
WHERE at > 0 AND (:by > 0 OR at > :latest)

-- name: turns
-- Of keys: how many jobs run; how many are let in and due, by task.
SELECT
    json_extract(value, '$[0]'), json_extract(value, '$[1]'),
    (
        SELECT count(*) FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_key
        WHERE jobs.queue = json_extract(value, '$[0]') AND jobs.key = json_extract(value, '$[1]')
          AND status = 'running' AND due_at IS NOT NULL
    ),
    (
        SELECT json_group_object(task, number) FROM (
            SELECT task, count(*) AS number FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_key
            WHERE jobs.queue = json_extract(value, '$[0]') AND jobs.key = json_extract(value, '$[1]')
              AND status = 'pending' AND due_at <= :now
            GROUP BY task
        )
    ),
    (
        WITH RECURSIVE waiting (task) AS (
            SELECT ''
            UNION ALL
            SELECT (
                SELECT task FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_waiting
                WHERE jobs.queue = json_extract(value, '$[0]') AND jobs.key = json_extract(value, '$[1]')
                  AND status = 'pending' AND due_at IS NULL AND jobs.task > waiting.task
                ORDER BY task LIMIT 1
            )
            FROM waiting WHERE task IS NOT NULL
        )
        SELECT json_group_array(task) FROM waiting WHERE task <> ''
    )
FROM json_each(:keys)

-- name: waiting_keys
-- The keys of a queue of which jobs wait: one seek per key.
WITH RECURSIVE waiting (key) AS (
    SELECT ''
    UNION ALL
    SELECT (
        SELECT key FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_waiting
        WHERE jobs.queue = :queue AND jobs.key > waiting.key AND status = 'pending' AND due_at IS NULL
        ORDER BY key LIMIT 1
    )
    FROM waiting WHERE key IS NOT NULL
)
SELECT key FROM waiting WHERE key <> ''

-- name: wait_for_turn
-- Of the due jobs of keys and tasks all but the best `room`.
UPDATE backlite_jobs SET due_at = NULL
WHERE seq IN (
    SELECT seq FROM (
        SELECT
            seq, json_extract(value, '$[2]') AS room,
            row_number() OVER (
                PARTITION BY jobs.queue, jobs.key, task ORDER BY priority DESC, due_at, seq
            ) AS number
        FROM json_each(:keys) CROSS JOIN backlite_jobs AS jobs INDEXED BY backlite_jobs_key
        WHERE jobs.queue = json_extract(value, '$[0]') AND jobs.key = json_extract(value, '$[1]')
          AND status = 'pending' AND due_at <= :now
    )
    WHERE number > room
)

-- name: wait_for_turns
-- These jobs, of keys that are full.
UPDATE backlite_jobs SET due_at = NULL
WHERE seq IN (SELECT value FROM json_each(:seqs)) AND key IS NOT NULL AND +status = 'pending'

-- name: let_in
-- Of each of these keys and each task, or the one that is given, the best job that waits for its turn, behind what is due already.
UPDATE backlite_jobs NOT INDEXED
SET due_at = at, waits_from = at
FROM (
    WITH RECURSIVE waiting (queue, key, at, alone, task) AS (
        SELECT
            json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
            json_extract(value, '$[3]'), ''
        FROM json_each(:keys)
        UNION ALL
        SELECT queue, key, at, alone, (
            SELECT task FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_waiting
            WHERE jobs.queue = waiting.queue AND jobs.key = waiting.key
              AND status = 'pending' AND due_at IS NULL AND jobs.task > waiting.task
            ORDER BY task LIMIT 1
        )
        FROM waiting WHERE task IS NOT NULL
    )
    SELECT at, (
        SELECT seq FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_waiting
        WHERE jobs.queue = waiting.queue AND jobs.key = waiting.key AND jobs.task = waiting.task
          AND status = 'pending' AND due_at IS NULL
        ORDER BY priority DESC, scheduled_at, seq LIMIT 1
    ) AS place
    FROM waiting WHERE task <> '' AND coalesce(task = alone, true)
) AS next
WHERE backlite_jobs.seq = next.place

-- name: next_fence
UPDATE backlite_fence SET value = value + 1 WHERE only_row = 1

-- name: claim
UPDATE backlite_jobs
SET
    status = 'running', fence = (SELECT value FROM backlite_fence WHERE only_row = 1), owner = :owner,
    attempt = attempt + 1, started_at = :now, due_at = :until
WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: to_claim
-- Jobs that are about to be claimed, row by row, where there is one that cannot travel in an array.
SELECT
    jobs.id, queue, task, payload, attempt + 1, max_attempts, crashes,
    (SELECT value + 1 FROM backlite_fence WHERE only_row = 1), created_at, scheduled_at, waits_from,
    CAST(jobs.key AS BLOB), timeout, CAST(jobs.parent AS BLOB), CAST(meta AS BLOB),
    CAST(tags AS BLOB), noted, CAST(workflow AS BLOB), step
FROM json_each(:seqs) AS place CROSS JOIN backlite_jobs AS jobs
WHERE jobs.seq = place.value
ORDER BY place.key

-- name: lapsed
WITH RECURSIVE
    {other}
SELECT
    jobs.owner, due_at, jobs.id, queue, task, payload, attempt, max_attempts, crashes, fence, created_at,
    scheduled_at, waits_from, CAST(jobs.key AS BLOB), timeout, CAST(jobs.parent AS BLOB), CAST(meta AS BLOB),
    CAST(tags AS BLOB), noted, CAST(workflow AS BLOB), step
FROM other CROSS JOIN json_each(:kinds) AS kind CROSS JOIN json_each((
    SELECT json_group_array(seq) FROM (
        SELECT seq FROM backlite_jobs AS claim INDEXED BY backlite_jobs_running
        WHERE status = 'running' AND claim.owner = other.owner
          AND queue = json_extract(kind.value, '$[0]') AND task = json_extract(kind.value, '$[1]') AND due_at <= :now
        ORDER BY due_at, seq LIMIT 1000
    )
)) AS place CROSS JOIN backlite_jobs AS jobs
WHERE other.owner NOT IN ('', :owner) AND jobs.seq = place.value
LIMIT 1000

-- name: claims_of
SELECT
    id, queue, task, payload, attempt, max_attempts, crashes, fence, created_at, scheduled_at, waits_from,
    CAST(jobs.key AS BLOB), timeout, CAST(jobs.parent AS BLOB), CAST(meta AS BLOB),
    CAST(tags AS BLOB), noted, CAST(workflow AS BLOB), step
FROM backlite_jobs AS jobs WHERE status = 'running' AND owner = :owner

-- name: holds_claims
-- Whether an owner has claims, or waits for a job.
SELECT EXISTS (SELECT 1 FROM backlite_jobs WHERE status = 'running' AND owner = :owner)
    OR EXISTS (SELECT 1 FROM backlite_watches WHERE owner = :owner)

-- name: renew
UPDATE backlite_jobs SET due_at = max(due_at, :until)
WHERE seq IN (
    SELECT jobs.seq FROM json_each(:fences) AS claim CROSS JOIN backlite_jobs AS jobs
    WHERE jobs.id = claim.key AND jobs.fence = claim.value AND +jobs.status = 'running'
)

-- name: held
-- Which of these claims are held.
SELECT json_group_array(jobs.id) FROM json_each(:fences) AS claim CROSS JOIN backlite_jobs AS jobs
WHERE jobs.id = claim.key AND jobs.fence = claim.value AND +jobs.status = 'running'
  AND (:lapsed_by IS NULL OR jobs.due_at <= :lapsed_by)

-- name: watched
-- Which of these jobs somebody waits for.
SELECT json_group_array(value) FROM json_each(:ids)
WHERE EXISTS (SELECT 1 FROM backlite_watches WHERE job_id = value)

-- part: told
-- Of what is told of claims (id, fence, lapsed_by, ...), what is told of such that are held.
json_each(:told) AS told CROSS JOIN backlite_jobs AS jobs
WHERE jobs.id = json_extract(told.value, '$[0]') AND jobs.fence = json_extract(told.value, '$[1]')
  AND +jobs.status = 'running' AND coalesce(jobs.due_at <= json_extract(told.value, '$[2]'), true)

-- name: keep_errors
-- The places from the third on are those of the fields of `Trouble`.
INSERT OR REPLACE INTO backlite_errors (
    job_id, fence, attempt, type, message, traceback, owner, started_at, finished_at, duration
)
SELECT
    jobs.id, fence, json_extract(told.value, '$[3][0]'), json_extract(told.value, '$[3][1]'),
    json_extract(told.value, '$[3][2]'), json_extract(told.value, '$[3][3]'), owner,
    coalesce(json_extract(told.value, '$[3][4]'), started_at), json_extract(told.value, '$[3][5]'),
    json_extract(told.value, '$[3][6]')
FROM {told}

-- name: trim_errors
-- Of each of these jobs all but the newest :most.
DELETE FROM backlite_errors WHERE (job_id, fence) IN (
    SELECT job_id, fence FROM (
        SELECT errors.job_id, fence, row_number() OVER (PARTITION BY job_id ORDER BY fence DESC) AS place
        FROM json_each(:ids) CROSS JOIN backlite_errors AS errors WHERE errors.job_id = json_each.value
    )
    WHERE place > :most
)

-- name: note
-- The places from the third on are those of the fields of `Note` from its attempt on.
UPDATE backlite_jobs
SET
    progress = coalesce(json_extract(value, '$[4]'), progress),
    progress_message = iif(
        json_extract(value, '$[4]') IS NULL, progress_message, json_extract(value, '$[5]')
    ),
    noted = iif(json_array_length(value, '$[6]') > 0, 1, noted)
FROM (
    WITH held (seq, value) AS MATERIALIZED (SELECT jobs.seq, told.value FROM {told})
    SELECT seq, value FROM held
) AS note
WHERE backlite_jobs.seq = note.seq

-- name: keep_lines
-- The same places; of a line, those of the fields of `Line`.
INSERT OR IGNORE INTO backlite_lines (job_id, fence, number, attempt, at, level, text)
SELECT
    held.id, fence, json_extract(line.value, '$[0]'), json_extract(note, '$[3]'), json_extract(line.value, '$[1]'),
    json_extract(line.value, '$[2]'), json_extract(line.value, '$[3]')
FROM (
    WITH held (id, fence, note) AS MATERIALIZED (SELECT jobs.id, jobs.fence, told.value FROM {told})
    SELECT id, fence, note FROM held
) AS held CROSS JOIN json_each(note, '$[6]') AS line

-- name: trim_lines
DELETE FROM backlite_lines WHERE (job_id, fence, number) IN (
    SELECT job_id, fence, number FROM (
        SELECT
            lines.job_id, fence, number,
            row_number() OVER (PARTITION BY job_id ORDER BY fence DESC, number DESC) AS place
        FROM json_each(:ids) CROSS JOIN backlite_lines AS lines WHERE lines.job_id = json_each.value
    )
    WHERE place > :most
)

-- name: keep
-- Run with many rows, by `many`: the id, fence and lapsed_by of a claim, whether with its payload, until when, and what
-- is told of its end.
INSERT OR REPLACE INTO backlite_completed (
    id, queue, task, status, priority, key, payload, meta, attempt, max_attempts, crashes, fence, owner,
    created_at, scheduled_at, started_at, finished_at, duration, error, result, expires_at,
    timeout, parent, tags, cancelled_at, noted, progress, progress_message, workflow, step
)
SELECT
    jobs.id, queue, task, outcome.column6, priority, jobs.key, CASE WHEN outcome.column4 THEN payload END,
    meta, outcome.column10, max_attempts, outcome.column11, fence, owner,
    created_at, scheduled_at, coalesce(outcome.column8, started_at), outcome.column7, outcome.column9,
    coalesce(outcome.column12, error), CAST(outcome.column13 AS BLOB), outcome.column5,
    timeout, jobs.parent, tags, cancelled_at, iif(outcome.column14, 1, noted), progress, progress_message,
    workflow, step
FROM (VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)) AS outcome CROSS JOIN backlite_jobs AS jobs
WHERE jobs.id = outcome.column1 AND jobs.fence = outcome.column2
  AND +jobs.status = 'running'
  AND coalesce(jobs.due_at <= outcome.column3, true)

-- name: remove
-- All of them or, where one of the claims is not held, or with :unwatched somebody waits for one, none.
DELETE FROM backlite_jobs WHERE seq IN (
    WITH held (seq, id) AS MATERIALIZED (
        SELECT jobs.seq, jobs.id FROM json_each(:fences) AS claim CROSS JOIN backlite_jobs AS jobs
        WHERE jobs.id = claim.key AND jobs.fence = claim.value AND +jobs.status = 'running'
          AND (:lapsed_by IS NULL OR jobs.due_at <= :lapsed_by)
    )
    SELECT seq FROM held
    WHERE (SELECT count(*) FROM held) = :count AND NOT (
        :unwatched AND EXISTS (SELECT 1 FROM backlite_watches AS anybody) AND EXISTS (
            SELECT 1 FROM held CROSS JOIN backlite_watches AS watches WHERE watches.job_id = held.id
        )
    )
)

-- name: reschedule
-- All of them or, where one of the claims is not held, none. The places are those of `Reschedule`.
UPDATE backlite_jobs
SET
    status = 'pending', owner = NULL, started_at = NULL,
    due_at = json_extract(value, '$[2]'), scheduled_at = json_extract(value, '$[2]'),
    attempt = json_extract(value, '$[3]'), crashes = json_extract(value, '$[4]'),
    waits_from = json_extract(value, '$[5]'),
    error = coalesce(json_extract(value, '$[6]'), CASE WHEN cancelled_at IS NULL THEN error END),
    noted = iif(json_extract(value, '$[10][0]') IS NULL, noted, 1)
FROM (
    WITH held (seq, value) AS MATERIALIZED (
        SELECT jobs.seq, value FROM json_each(:outcomes) AS outcome CROSS JOIN backlite_jobs AS jobs
        WHERE jobs.id = json_extract(value, '$[0]') AND jobs.fence = json_extract(value, '$[1]')
          AND +jobs.status = 'running' AND (:lapsed_by IS NULL OR jobs.due_at <= :lapsed_by)
    )
    SELECT seq, value FROM held WHERE (SELECT count(*) FROM held) = :count
) AS again
WHERE backlite_jobs.seq = again.seq

-- part: gone
-- Those of :ids that are neither live nor kept.
(
    SELECT value FROM json_each(:ids)
    WHERE NOT EXISTS (SELECT 1 FROM backlite_jobs AS jobs WHERE jobs.id = json_each.value)
      AND NOT EXISTS (SELECT 1 FROM backlite_completed AS kept WHERE kept.id = json_each.value)
)

-- name: forget_tags
DELETE FROM backlite_tags INDEXED BY sqlite_autoindex_backlite_tags_1 WHERE job_id IN {gone}

-- name: forget_errors
DELETE FROM backlite_errors INDEXED BY sqlite_autoindex_backlite_errors_1 WHERE job_id IN {gone}

-- name: forget_lines
DELETE FROM backlite_lines INDEXED BY sqlite_autoindex_backlite_lines_1 WHERE job_id IN {gone}

-- name: tally
INSERT INTO backlite_stats (queue, span, start, what, bucket, number)
SELECT
    json_extract(value, '$[0]'), 60000, json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    json_extract(value, '$[3]'), json_extract(value, '$[4]')
FROM json_each(:rows) WHERE true
ON CONFLICT (queue, span, start, what, bucket) DO UPDATE SET number = number + excluded.number

-- name: cancel
UPDATE backlite_jobs
SET cancelled_at = coalesce(cancelled_at, :now), error = CASE WHEN status = 'running' THEN error END
WHERE seq IN (
    SELECT jobs.seq FROM json_each(:ids) CROSS JOIN backlite_jobs AS jobs WHERE jobs.id = json_each.value
)

-- name: asked
-- Which of these jobs run.
SELECT json_group_array(jobs.id) FROM json_each(:ids) CROSS JOIN backlite_jobs AS jobs
WHERE jobs.id = json_each.value AND +jobs.status = 'running'

-- name: to_end
-- Pending jobs that are to be cancelled, and what becomes free by that: where the wall clock was set back, one that
-- is for later may be one that has its turn.
SELECT
    id, jobs.queue, CAST(key AS BLOB), cancelled_at, due_at IS NOT NULL, coalesce(tags, noted) IS NOT NULL,
    CAST(workflow AS BLOB), step, keeps, keep_for, keep_payload
FROM backlite_jobs AS jobs LEFT JOIN backlite_queues AS known ON known.queue = jobs.queue
WHERE cancelled_at IS NOT NULL AND owner IS NULL

-- name: keep_cancelled
INSERT OR REPLACE INTO backlite_completed (
    id, queue, task, status, priority, key, payload, meta, attempt, max_attempts, crashes, fence, owner,
    created_at, scheduled_at, started_at, finished_at, duration, error, result, expires_at,
    timeout, parent, tags, cancelled_at, noted, progress, progress_message, workflow, step
)
-- One that somebody waits for is kept in any case, for a while; a step as long as its workflow, so that it may run again.
SELECT
    id, jobs.queue, task, 'cancelled', priority, coalesce(key, nullif(blocked, '')),
    iif((keeps AND keep_payload) OR workflow IS NOT NULL, payload, NULL), meta, attempt,
    max_attempts, crashes, fence, owner, created_at, scheduled_at, started_at, cancelled_at, NULL,
    coalesce(error, 'cancelled'), NULL,
    cancelled_at + CASE
        WHEN workflow IS NOT NULL THEN NULL
        WHEN NOT watched THEN keep_for
        WHEN NOT coalesce(keeps, false) THEN :watched_for
        ELSE max(keep_for, :watched_for)
    END,
    timeout, parent, tags, cancelled_at, noted, progress, progress_message, workflow, step
FROM (
    SELECT *, EXISTS (SELECT 1 FROM backlite_watches WHERE job_id = ending.id) AS watched
    FROM backlite_jobs AS ending WHERE cancelled_at IS NOT NULL AND owner IS NULL
) AS jobs LEFT JOIN backlite_queues AS known ON known.queue = jobs.queue
WHERE coalesce(keeps, false) OR watched OR workflow IS NOT NULL

-- name: end_cancelled
DELETE FROM backlite_jobs WHERE cancelled_at IS NOT NULL AND owner IS NULL

-- name: orders
SELECT
    (SELECT json_group_array(queue) FROM backlite_queues INDEXED BY backlite_queues_paused WHERE paused_at IS NOT NULL),
    (
        SELECT json_group_array(json_array(id, fence)) FROM backlite_jobs
        WHERE cancelled_at IS NOT NULL AND owner = :owner
    )

-- name: pause
INSERT INTO backlite_queues (queue, paused_at) VALUES (:queue, :now)
ON CONFLICT (queue) DO UPDATE SET paused_at = coalesce(paused_at, excluded.paused_at)

-- name: resume
UPDATE backlite_queues SET paused_at = NULL WHERE queue = :queue AND paused_at IS NOT NULL

-- name: undeclared
-- Whether anything of this is new, or waits for turns that are no more.
SELECT EXISTS (
    SELECT 1 FROM json_each(:queues) LEFT JOIN backlite_queues AS known ON known.queue = json_extract(value, '$[0]')
    WHERE (known.keeps, known.keep_for, known.keep_payload, known.turns, known.limits) IS NOT (
        json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]'),
        json_extract(value, '$[4]'), json_extract(value, '$[5]')
    )
) OR EXISTS (
    SELECT 1 FROM json_each(:queues) AS declared CROSS JOIN json_each(declared.value, '$[6]') AS met
        LEFT JOIN backlite_tasks AS known
        ON known.queue = json_extract(declared.value, '$[0]') AND known.task = json_extract(met.value, '$[0]')
    WHERE (known.title, known.description, known.schema) IS NOT (
        json_extract(met.value, '$[1]'), json_extract(met.value, '$[2]'), json_extract(met.value, '$[3]')
    ) OR known.queue IS NULL
) OR EXISTS (
    SELECT 1 FROM json_each(:queues) CROSS JOIN backlite_jobs AS jobs INDEXED BY backlite_jobs_waiting
    WHERE json_extract(value, '$[4]') IS NULL AND jobs.queue = json_extract(value, '$[0]')
      AND jobs.key IS NOT NULL AND status = 'pending' AND due_at IS NULL
)

-- name: declare
INSERT INTO backlite_queues (queue, keeps, keep_for, keep_payload, turns, limits)
SELECT
    json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]')
FROM json_each(:queues) WHERE true
ON CONFLICT (queue) DO UPDATE SET
    keeps = excluded.keeps, keep_for = excluded.keep_for, keep_payload = excluded.keep_payload,
    turns = excluded.turns, limits = excluded.limits

-- name: declare_tasks
INSERT INTO backlite_tasks AS known (queue, task, title, description, schema, registered_at)
SELECT
    json_extract(declared.value, '$[0]'), json_extract(met.value, '$[0]'), json_extract(met.value, '$[1]'),
    json_extract(met.value, '$[2]'), json_extract(met.value, '$[3]'), :now
FROM json_each(:queues) AS declared CROSS JOIN json_each(declared.value, '$[6]') AS met WHERE true
ON CONFLICT (queue, task) DO UPDATE SET
    title = excluded.title, description = excluded.description, schema = excluded.schema,
    registered_at = excluded.registered_at
WHERE (known.title, known.description, known.schema) IS NOT (excluded.title, excluded.description, excluded.schema)

-- name: tasks
SELECT task, tasks.queue, title, description, schema, registered_at, limits
FROM backlite_tasks AS tasks LEFT JOIN backlite_queues AS known ON known.queue = tasks.queue
ORDER BY tasks.queue, task

-- name: end_turns
UPDATE backlite_jobs SET due_at = scheduled_at
WHERE key IS NOT NULL AND status = 'pending' AND due_at IS NULL
  AND queue IN (SELECT json_extract(value, '$[0]') FROM json_each(:queues) WHERE json_extract(value, '$[4]') IS NULL)

-- name: queues
-- Queues with live jobs, paused ones, and those that clients have declared; how many of each run.
WITH RECURSIVE
    pending (queue) AS (
        SELECT ''
        UNION ALL
        SELECT (
            SELECT queue FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND due_at IS NOT NULL AND jobs.queue > pending.queue
            ORDER BY queue LIMIT 1
        )
        FROM pending WHERE queue IS NOT NULL
    ),
    waiting (queue) AS (
        SELECT ''
        UNION ALL
        SELECT (
            SELECT queue FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_waiting
            WHERE key IS NOT NULL AND status = 'pending' AND due_at IS NULL AND jobs.queue > waiting.queue
            ORDER BY queue LIMIT 1
        )
        FROM waiting WHERE queue IS NOT NULL
    ),
    blocked (queue) AS (
        SELECT ''
        UNION ALL
        SELECT (
            SELECT queue FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_blocked
            WHERE blocked IS NOT NULL AND jobs.queue > blocked.queue
            ORDER BY queue LIMIT 1
        )
        FROM blocked WHERE queue IS NOT NULL
    ),
    running (queue, number) AS (
        SELECT queue, count(*) FROM backlite_jobs INDEXED BY backlite_jobs_running
        WHERE status = 'running'
        GROUP BY queue
    ),
    named (queue) AS (
        SELECT queue FROM pending WHERE queue <> ''
        UNION SELECT queue FROM waiting WHERE queue <> ''
        UNION SELECT queue FROM blocked WHERE queue <> ''
        UNION SELECT queue FROM running
        UNION SELECT queue FROM backlite_queues WHERE paused_at IS NOT NULL OR limits IS NOT NULL
    )
SELECT
    named.queue, coalesce(paused_at, 0) <> 0, coalesce(number, 0), limits
FROM named LEFT JOIN running USING (queue) LEFT JOIN backlite_queues AS known ON known.queue = named.queue
WHERE named.queue = coalesce(:queue, named.queue)
ORDER BY named.queue

-- part: level_of_queue
-- The tasks and priority levels of what is let in of a queue: one seek each.
level (task, priority) AS (
    SELECT * FROM (
        SELECT task, priority FROM backlite_jobs INDEXED BY backlite_jobs_pending
        WHERE status = 'pending' AND due_at IS NOT NULL AND queue = :queue AND task > ''
        ORDER BY task, priority DESC LIMIT 1
    )
    UNION ALL
    SELECT
        coalesce(
            (
                SELECT task FROM backlite_jobs AS below INDEXED BY backlite_jobs_pending
                WHERE status = 'pending' AND due_at IS NOT NULL AND below.queue = :queue
                  AND below.task = level.task AND below.priority < level.priority
                LIMIT 1
            ),
            (
                SELECT task FROM backlite_jobs AS after INDEXED BY backlite_jobs_pending
                WHERE status = 'pending' AND due_at IS NOT NULL AND after.queue = :queue AND after.task > level.task
                ORDER BY task LIMIT 1
            )
        ),
        coalesce(
            (
                SELECT priority FROM backlite_jobs AS below INDEXED BY backlite_jobs_pending
                WHERE status = 'pending' AND due_at IS NOT NULL AND below.queue = :queue
                  AND below.task = level.task AND below.priority < level.priority
                ORDER BY priority DESC LIMIT 1
            ),
            (
                SELECT priority FROM backlite_jobs AS after INDEXED BY backlite_jobs_pending
                WHERE status = 'pending' AND due_at IS NOT NULL AND after.queue = :queue AND after.task > level.task
                ORDER BY task, priority DESC LIMIT 1
            )
        )
    FROM level WHERE task IS NOT NULL
)

-- name: oldest_due
-- When the first job of a queue was due, whatever its priority: one seek per kind and level. What waits for a turn
-- is read whole.
WITH RECURSIVE {level_of_queue}
SELECT min(due_at) FROM (
    SELECT (
        SELECT due_at FROM backlite_jobs AS jobs
        WHERE status = 'pending' AND due_at IS NOT NULL
          AND jobs.queue = :queue AND jobs.task = level.task AND jobs.priority = level.priority
        ORDER BY due_at LIMIT 1
    ) AS due_at
    FROM level
    UNION ALL
    SELECT min(scheduled_at) FROM backlite_jobs INDEXED BY backlite_jobs_waiting
    WHERE key IS NOT NULL AND status = 'pending' AND due_at IS NULL AND queue = :queue
)

-- name: oldest_due_of
-- When the first of these kinds of jobs was due in a queue that is not paused: one seek per kind and level.
WITH RECURSIVE level (queue, task, priority) AS (
    SELECT
        json_extract(kind.value, '$[0]'), json_extract(kind.value, '$[1]'), (
            SELECT priority FROM backlite_jobs AS first INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND due_at IS NOT NULL
              AND first.queue = json_extract(kind.value, '$[0]') AND first.task = json_extract(kind.value, '$[1]')
            ORDER BY priority DESC LIMIT 1
        )
    FROM json_each(:kinds) AS kind
    UNION ALL
    SELECT
        queue, task, (
            SELECT priority FROM backlite_jobs AS after INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND due_at IS NOT NULL
              AND after.queue = level.queue AND after.task = level.task AND after.priority < level.priority
            ORDER BY priority DESC LIMIT 1
        )
    FROM level WHERE priority IS NOT NULL
)
SELECT min((
    SELECT due_at FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_pending
    WHERE status = 'pending' AND due_at IS NOT NULL
      AND jobs.queue = level.queue AND jobs.task = level.task AND jobs.priority = level.priority
    ORDER BY due_at LIMIT 1
))
FROM level
WHERE priority IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM backlite_queues WHERE queue = level.queue AND paused_at IS NOT NULL)

-- name: live_counts
-- Of a queue, up to :most each: what is let in, what of that is for later, what waits for a turn, and for other steps.
WITH RECURSIVE {level_of_queue}
SELECT
    (
        SELECT count(*) FROM (
            SELECT 1 FROM backlite_jobs INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND due_at IS NOT NULL AND queue = :queue LIMIT :most
        )
    ),
    (
        SELECT count(*) FROM (
            SELECT 1 FROM level CROSS JOIN json_each((
                SELECT json_group_array(1) FROM (
                    SELECT 1 FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_pending
                    WHERE status = 'pending' AND due_at > :now
                      AND jobs.queue = :queue AND jobs.task = level.task AND jobs.priority = level.priority
                    LIMIT :most
                )
            ))
            LIMIT :most
        )
    ),
    (
        SELECT count(*) FROM (
            SELECT 1 FROM backlite_jobs INDEXED BY backlite_jobs_waiting
            WHERE key IS NOT NULL AND status = 'pending' AND due_at IS NULL AND queue = :queue LIMIT :most
        )
    ),
    (
        SELECT count(*) FROM (
            SELECT 1 FROM backlite_jobs INDEXED BY backlite_jobs_blocked
            WHERE blocked IS NOT NULL AND queue = :queue LIMIT :most
        )
    )

-- name: due_count
-- Of a queue, up to :most: what is let in and due. Where more is let in than was counted, that does not tell it.
WITH RECURSIVE {level_of_queue}
SELECT count(*) FROM (
    SELECT 1 FROM level CROSS JOIN json_each((
        SELECT json_group_array(1) FROM (
            SELECT 1 FROM backlite_jobs AS jobs INDEXED BY backlite_jobs_pending
            WHERE status = 'pending' AND due_at <= :now
              AND jobs.queue = :queue AND jobs.task = level.task AND jobs.priority = level.priority
            LIMIT :most
        )
    ))
    LIMIT :most
)

-- name: kept_count
-- How many jobs of a queue and status are kept: of each task no more than :most are looked at, the newest, as they
-- may have expired.
WITH RECURSIVE ended (task) AS (
    SELECT ''
    UNION ALL
    SELECT (
        SELECT task FROM backlite_completed AS completed INDEXED BY backlite_completed_ended
        WHERE completed.queue = :queue AND completed.task > ended.task
        ORDER BY task LIMIT 1
    )
    FROM ended WHERE task IS NOT NULL
)
SELECT coalesce(sum((
    SELECT count(*) FROM (
        SELECT expires_at FROM backlite_completed AS completed INDEXED BY backlite_completed_ended
        WHERE completed.queue = :queue AND completed.task = ended.task AND completed.status = :status
        ORDER BY finished_at DESC LIMIT :most
    )
    WHERE coalesce(expires_at > :now, true)
)), 0)
FROM ended WHERE task <> ''

-- name: waits_ahead
-- Whether a job waits since a time that is still to come: the wall clock was set back.
SELECT EXISTS (
    SELECT 1 FROM backlite_jobs WHERE status = 'pending' AND due_at > :now AND waits_from > :now + :margin
)

-- name: restart_waits
UPDATE backlite_jobs
SET due_at = due_at - waits_from + :now, scheduled_at = scheduled_at - waits_from + :now, waits_from = :now
WHERE status = 'pending' AND due_at > :now AND waits_from > :now + :margin

-- name: shift_waits
UPDATE backlite_jobs SET due_at = due_at + :by, scheduled_at = scheduled_at + :by, waits_from = waits_from + :by
WHERE status = 'pending' AND due_at > :now
  AND (waits_from > :now + :margin OR waits_from < :now - :notice)

-- name: shift_waits_back
UPDATE backlite_jobs SET due_at = due_at + :by, scheduled_at = scheduled_at + :by, waits_from = waits_from + :by
WHERE status = 'pending' AND due_at > :now - :by AND waits_from <= :now - :by

-- name: free_claims
-- In a copy of the database: nobody runs these jobs there.
UPDATE backlite_jobs
SET status = 'pending', owner = NULL, started_at = NULL, due_at = scheduled_at, attempt = max(attempt - 1, 0)
WHERE status = 'running'

-- name: status
SELECT status FROM backlite_jobs WHERE id = :id
UNION ALL
SELECT status FROM backlite_completed WHERE id = :id AND coalesce(expires_at > :now, true)
UNION ALL
SELECT
    CASE
        WHEN status IS NOT NULL THEN status
        WHEN flows.left < size OR ends > 0 THEN 'running'
        WHEN EXISTS (
            SELECT 1 FROM backlite_steps AS steps
            CROSS JOIN backlite_jobs AS jobs INDEXED BY sqlite_autoindex_backlite_jobs_1
            WHERE steps.workflow = :id AND steps.blocked = 0 AND jobs.id = steps.job_id AND jobs.attempt > 0
        ) THEN 'running'
        ELSE 'pending'
    END
FROM backlite_workflows AS flows WHERE id = :id AND coalesce(expires_at > :now, true)

-- part: held_key
-- The unique key by which a job keeps others away.
(
    SELECT max(known.key) FROM backlite_unique AS known
    WHERE known.job_id = jobs.id AND +known.queue = jobs.queue AND known.added_at = jobs.created_at
      AND (jobs.status IN ('pending', 'running') OR known.until > :now)
)

-- name: get
SELECT
    seq, true, id, queue, task, status, {cut_payload}, attempt, max_attempts, crashes, priority, fence, owner,
    created_at, scheduled_at, started_at, NULL, NULL, error, NULL, NULL,
    coalesce(key, nullif(blocked, '')), timeout, parent, workflow, meta, tags, cancelled_at, progress, progress_message,
    noted, status = 'pending' AND due_at IS NULL, length(payload), NULL, {held_key}
FROM backlite_jobs AS jobs WHERE id = :id
UNION ALL
SELECT
    seq, false, id, queue, task, status, {cut_payload}, attempt, max_attempts, crashes, priority, fence, owner,
    created_at, scheduled_at, started_at, finished_at, duration, error, {cut_result}, expires_at,
    key, timeout, parent, workflow, meta, tags, cancelled_at, progress, progress_message, noted, false,
    length(payload), length(result), {held_key}
FROM backlite_completed AS jobs WHERE id = :id AND coalesce(expires_at > :now, true)

-- name: errors
-- Of a job, the newest first.
SELECT json_group_array(json_array(attempt, type, message, traceback, owner, started_at, finished_at, duration))
FROM (SELECT * FROM backlite_errors WHERE job_id = :id ORDER BY fence DESC LIMIT :most)

-- name: lines
SELECT json_group_array(json_array(attempt, at, level, text))
FROM (SELECT * FROM backlite_lines WHERE job_id = :id ORDER BY fence DESC, number DESC LIMIT :most)

-- name: watch
INSERT OR IGNORE INTO backlite_watches (job_id, owner) SELECT value, :owner FROM json_each(:ids)

-- name: unwatch
DELETE FROM backlite_watches WHERE (job_id, owner) IN (SELECT value, :owner FROM json_each(:ids))

-- name: which_ended
SELECT value FROM json_each(:ids)
WHERE NOT EXISTS (SELECT 1 FROM backlite_jobs WHERE id = value)
  AND NOT EXISTS (SELECT 1 FROM backlite_workflows WHERE id = value AND status IS NULL)

-- name: end_watches
-- All of these owners, who have died.
DELETE FROM backlite_watches WHERE owner IN (SELECT value FROM json_each(:owners))

-- name: forget_watches
DELETE FROM backlite_watches

-- part: counted
-- The queues of which anything is counted, or the one that is asked for: one seek each. Those who join them say by
-- a likelihood that they are few: where SQLite has counted a small table, it would walk over it first, for a filter.
counted (queue) AS (
        SELECT coalesce(:queue, (SELECT min(queue) FROM backlite_stats))
        UNION ALL
        SELECT (SELECT min(queue) FROM backlite_stats AS stats WHERE stats.queue > counted.queue)
        FROM counted WHERE counted.queue IS NOT NULL AND :queue IS NULL
    )

-- name: stats
WITH RECURSIVE
    {counted}
SELECT json_group_array(json_array(queue, begin, what, bucket, number))
FROM (
    SELECT
        stats.queue, :since + (start - :since) / :step * :step AS begin, what, bucket, sum(number) AS number
    FROM counted CROSS JOIN backlite_stats AS stats
    WHERE likelihood(counted.queue IS NOT NULL, 0.000001) AND stats.queue = counted.queue AND span IN (60000, 3600000) AND start >= :since AND start < :until
    GROUP BY 1, 2, 3, 4
    ORDER BY 1, 2, 3, 4
)

-- name: stats_numbers
-- Of each queue as many of each as were counted, one after the other, so that nothing is sorted. Most rows are of times,
-- and have a bucket.
WITH RECURSIVE
    {counted}
SELECT json_group_array(json_array(counted.queue, json((
    SELECT json_array(
        sum(number) FILTER (WHERE what = 'succeeded'), sum(number) FILTER (WHERE what = 'failed'),
        sum(number) FILTER (WHERE what = 'cancelled'), sum(number) FILTER (WHERE what = 'retried'),
        sum(number) FILTER (WHERE what = 'snoozed'), sum(number) FILTER (WHERE what = 'crashed')
    )
    FROM backlite_stats AS stats
    WHERE stats.queue = counted.queue AND span IN (60000, 3600000) AND start >= :since AND start < :until
      AND bucket = 0
))))
FROM counted WHERE counted.queue IS NOT NULL

-- name: stats_together
-- The same of all queues. What is sorted to be grouped is many rows of few groups: by one number that hardly two
-- groups share, and what was counted, which is compared where they do. That is much quicker than by three columns.
WITH RECURSIVE
    {counted}
SELECT json_group_array(json_array('', :since + step * :step, what, bucket, number))
FROM (
    SELECT (start - :since) / :step AS step, what, bucket, sum(number) AS number
    FROM counted CROSS JOIN backlite_stats AS stats
    WHERE likelihood(counted.queue IS NOT NULL, 0.000001) AND stats.queue = counted.queue
      AND span IN (60000, 3600000) AND start >= :since AND start < :until
    GROUP BY (start - :since) / :step * 65536 + length(what) * 1024 + bucket, what
    ORDER BY 1, 2, 3
)

-- name: sum_up
-- Minutes of whole hours that began before :before.
WITH RECURSIVE
    {counted}
INSERT INTO backlite_stats (queue, span, start, what, bucket, number)
SELECT stats.queue, 3600000, start - start % 3600000, what, bucket, sum(number)
FROM counted CROSS JOIN backlite_stats AS stats
WHERE likelihood(counted.queue IS NOT NULL, 0.000001) AND stats.queue = counted.queue AND span = 60000 AND start < :before
GROUP BY 1, 3, 4, 5
ON CONFLICT (queue, span, start, what, bucket) DO UPDATE SET number = number + excluded.number

-- name: forget_stats
-- Those of a span that began before :before.
WITH RECURSIVE
    {counted}
DELETE FROM backlite_stats
WHERE (queue, span, start, what, bucket) IN (
    SELECT stats.queue, span, start, what, bucket
    FROM counted CROSS JOIN backlite_stats AS stats
    WHERE likelihood(counted.queue IS NOT NULL, 0.000001) AND stats.queue = counted.queue AND span = :span AND start < :before
)

-- name: owners
-- Who has claims, how many, and when the last one was made.
SELECT owner, count(*), max(started_at) FROM backlite_jobs INDEXED BY backlite_jobs_running
WHERE status = 'running'
GROUP BY owner

-- name: next_kind
-- Two seeks: the kind after (:queue, :task) that has pending jobs. A comparison of row values would seek the
-- first part alone, and walk over all jobs of that queue.
SELECT queue, task FROM (
    SELECT queue, task FROM backlite_jobs
    WHERE status = 'pending' AND due_at IS NOT NULL AND queue = :queue AND task > :task
    ORDER BY task LIMIT 1
)
UNION ALL
SELECT queue, task FROM (
    SELECT queue, task FROM backlite_jobs
    WHERE likely(status = 'pending') AND due_at IS NOT NULL AND queue > :queue
    ORDER BY queue, task LIMIT 1
)
LIMIT 1

-- name: next_expiry
SELECT min(instant) FROM (
    SELECT min(expires_at) AS instant FROM backlite_completed WHERE expires_at IS NOT NULL
    UNION ALL
    SELECT min(look_at) FROM backlite_unique
    UNION ALL
    SELECT min(expires_at) FROM backlite_workflows WHERE expires_at IS NOT NULL
)

-- part: looked_at
-- Unique keys that are to be looked at, at most :limit.
(
    SELECT queue, key FROM backlite_unique WHERE look_at <= :now ORDER BY look_at LIMIT :limit
)

-- name: look_later
-- Those whose jobs are live are held on to.
UPDATE backlite_unique SET look_at = :later
WHERE (queue, key) IN {looked_at}
  AND EXISTS (SELECT 1 FROM backlite_jobs AS jobs WHERE jobs.id = job_id)

-- name: forget_keys
DELETE FROM backlite_unique
WHERE (queue, key) IN {looked_at}
  AND NOT EXISTS (SELECT 1 FROM backlite_jobs AS jobs WHERE jobs.id = job_id)

-- name: expired
-- Their places, and the ids of those that have something beside them.
SELECT
    count(*), json_group_array(seq), coalesce(json_group_array(id) FILTER (WHERE tags IS NOT NULL OR noted IS NOT NULL), '[]')
FROM (SELECT * FROM backlite_completed WHERE expires_at <= :now ORDER BY expires_at LIMIT :limit)

-- name: expire
-- By their ids: by their places, SQLite would walk over all if there were few when it counted them.
DELETE FROM backlite_completed INDEXED BY sqlite_autoindex_backlite_completed_1
WHERE id IN (
    SELECT (SELECT id FROM backlite_completed AS kept NOT INDEXED WHERE kept.seq = place.value)
    FROM json_each(:seqs) AS place
)

-- name: schema_version
SELECT version FROM backlite_schema

-- name: schema_tables
SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'backlite_schema'

-- name: create_schema
CREATE TABLE backlite_schema (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    version  INTEGER NOT NULL
) STRICT

-- name: start_schema
INSERT INTO backlite_schema (only_row, version) VALUES (1, 0)

-- name: set_schema_version
UPDATE backlite_schema SET version = :version
