-- The statements that are the algorithm. Each begins with its name and the reason for its shape.
-- Parameters are written the driver's way. {columns} stands for the statement of that name.
-- Only the database's clock is ever compared: now() is the moment the transaction began.

-- name: columns
-- What people see of a task, in the order of persistence.task_store.TaskRow.
t.id, t.state, t.task_type, t.title, t.user_id, t.payload::text, t.priority, t.attempts, t.max_attempts,
t.timeout_seconds, t.execute_at, t.progress_percent, t.progress_message, t.result::text, t.error,
t.errors::text, t.created_at, t.updated_at, t.started_at, t.completed_at,
extract(epoch FROM coalesce(t.completed_at, now()) - t.started_at)::float8 AS duration, t.lease_no, t.worker_id

-- name: light_columns
-- The same for lists: a page of a hundred must not carry a hundred megabytes. Large values are named instead, and
-- the traces of failed attempts left out.
t.id, t.state, t.task_type, t.title, t.user_id,
CASE WHEN length(t.payload::text) <= %(largest)s THEN t.payload::text END AS payload, t.priority, t.attempts,
t.max_attempts, t.timeout_seconds, t.execute_at, t.progress_percent, t.progress_message,
CASE WHEN length(t.result::text) <= %(largest)s THEN t.result::text END AS result, t.error,
CASE t.errors WHEN '[]' THEN '[]' ELSE (
    SELECT jsonb_agg(e.item - 'trace' ORDER BY e.number) FROM jsonb_array_elements(t.errors) WITH ORDINALITY e(item, number)
)::text END AS errors, t.created_at, t.updated_at, t.started_at, t.completed_at,
extract(epoch FROM coalesce(t.completed_at, now()) - t.started_at)::float8 AS duration, t.lease_no, t.worker_id

-- name: insert
-- A task without execute_at is ready at once; one for later waits as scheduled, where the claim never looks.
-- A conflict of keys inserts nothing, and the caller reads what is there. It waits for a transaction that is
-- inserting the same key, so two requests at once make one task.
INSERT INTO tasks AS t (id, state, task_type, title, user_id, payload, priority, max_attempts, timeout_seconds,
                        execute_at, idempotency_key, request_hash)
VALUES (%(id)s::uuid, CASE WHEN %(execute_at)s::timestamptz IS NULL THEN 'ready' ELSE 'scheduled' END,
        %(task_type)s, %(title)s, %(user_id)s::uuid, %(payload)s::jsonb, %(priority)s, %(max_attempts)s,
        %(timeout_seconds)s, coalesce(%(execute_at)s::timestamptz, now()), %(idempotency_key)s, %(request_hash)s)
ON CONFLICT (idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING {columns}

-- name: is_future
SELECT %(execute_at)s::timestamptz > clock_timestamp()

-- name: get_by_key
SELECT {columns}, t.request_hash FROM tasks t WHERE t.idempotency_key = %(idempotency_key)s

-- name: get
SELECT {columns} FROM tasks t WHERE t.id = %(id)s::uuid

-- name: list
-- Ids are version 7, made in the order of creation: one index serves the newest-first list and its cursor.
-- The page is chosen first, so that large values are measured for its rows alone.
SELECT {light_columns}
FROM (
    SELECT p.id FROM tasks p
    WHERE (%(states)s::text[] IS NULL OR p.state = ANY (%(states)s::text[]))
      AND (%(task_type)s::text IS NULL OR p.task_type = %(task_type)s)
      AND (%(user_id)s::uuid IS NULL OR p.user_id = %(user_id)s::uuid)
      AND (%(after)s::uuid IS NULL OR p.id < %(after)s::uuid)
    ORDER BY p.id DESC LIMIT %(limit)s OFFSET %(offset)s
) page JOIN tasks t ON t.id = page.id
ORDER BY t.id DESC

-- name: count
SELECT count(*) FROM tasks t
WHERE (%(states)s::text[] IS NULL OR t.state = ANY (%(states)s::text[]))
  AND (%(task_type)s::text IS NULL OR t.task_type = %(task_type)s)
  AND (%(user_id)s::uuid IS NULL OR t.user_id = %(user_id)s::uuid)

-- name: cancel
-- Final at once: a result that comes later finds no running row. worker_id stays until the worker says that
-- the handler has stopped, so that a worker that missed the announcement finds the row by asking.
UPDATE tasks AS t
SET state = 'cancelled', cancel_requested_at = now(), completed_at = now(), updated_at = now(), deadline_at = NULL
WHERE t.id = %(id)s::uuid AND t.state IN ('scheduled', 'ready', 'running')
RETURNING {columns}

-- name: cancel_of_user
-- As cancel does, for every live task of a user; in the order of ids, as every other writer of many tasks.
WITH live AS MATERIALIZED (
    SELECT c.id FROM tasks c
    WHERE c.user_id = %(user_id)s::uuid AND c.state IN ('scheduled', 'ready', 'running')
    ORDER BY c.id FOR UPDATE
)
UPDATE tasks AS t
SET state = 'cancelled', cancel_requested_at = now(), completed_at = now(), updated_at = now(), deadline_at = NULL,
    error = %(reason)s
FROM live WHERE t.id = live.id
RETURNING t.id, t.lease_no, t.worker_id

-- name: purge
DELETE FROM tasks AS t WHERE t.id = %(id)s::uuid RETURNING {columns}

-- name: retry
-- All attempts anew; the errors of the earlier ones stay to be read.
UPDATE tasks AS t
SET state = 'ready', attempts = 0, execute_at = now(), updated_at = now(), started_at = NULL, completed_at = NULL,
    cancel_requested_at = NULL, worker_id = NULL, deadline_at = NULL, result = NULL, error = NULL,
    progress_percent = 0, progress_message = NULL
WHERE t.id = %(id)s::uuid AND t.state IN ('failed', 'cancelled')
RETURNING {columns}

-- name: announce
SELECT pg_notify('siteworks_tasks', %(announcement)s)

-- name: live_types
-- The types that some living worker runs, and how many workers run each.
SELECT o.task_type, count(*) FROM workers w CROSS JOIN unnest(w.task_types) AS o(task_type)
WHERE w.heartbeat_at > now() - make_interval(secs => w.lease_seconds) GROUP BY o.task_type

-- name: claim
-- One ordered index scan for each type offered, so that a million tasks of a type that nobody here runs cost
-- nothing; then the most urgent of them all. MATERIALIZED: inlined, the planner may repeat the LIMIT and
-- update more rows than asked for. SKIP LOCKED: two claimers never wait for each other and never see one task.
WITH offered AS (
    SELECT * FROM unnest(%(types)s::text[], %(timeouts)s::float8[]) AS o(task_type, timeout_seconds)
), due AS MATERIALIZED (
    SELECT c.id, o.timeout_seconds
    FROM offered o CROSS JOIN LATERAL (
        SELECT r.id, r.priority, r.execute_at FROM tasks r
        WHERE r.state = 'ready' AND r.task_type = o.task_type
        ORDER BY r.priority DESC, r.execute_at, r.id
        LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) c
    ORDER BY c.priority DESC, c.execute_at, c.id LIMIT %(limit)s
)
UPDATE tasks AS t
SET state = 'running', attempts = t.attempts + 1, lease_no = t.lease_no + 1, worker_id = %(worker_id)s::uuid,
    started_at = now(), updated_at = now(), progress_percent = 0, progress_message = NULL,
    deadline_at = now() + make_interval(secs => coalesce(t.timeout_seconds, due.timeout_seconds))
FROM due WHERE t.id = due.id
RETURNING t.id, t.lease_no, t.task_type, t.payload::text, t.attempts, t.max_attempts,
          coalesce(t.timeout_seconds, due.timeout_seconds)::float8, now(), t.priority, t.execute_at

-- name: complete
-- lease_no and state stand in the WHERE of the very rows that are written: read before, they could be stale.
UPDATE tasks AS t
SET state = 'completed', result = x.result::jsonb, error = NULL, progress_percent = 100, completed_at = now(),
    updated_at = now(), worker_id = NULL, deadline_at = NULL
FROM unnest(%(ids)s::uuid[], %(leases)s::int[], %(results)s::text[]) AS x(id, lease_no, result)
WHERE t.id = x.id AND t.lease_no = x.lease_no AND t.state = 'running'
RETURNING t.id, t.lease_no

-- name: fail
-- With a time: the next attempt waits for it. Without: the task has failed for good.
-- The oldest errors go when there are more than are kept. A trace is there for attempts that have one.
UPDATE tasks AS t
SET state = CASE WHEN x.retry_at IS NULL THEN 'failed' ELSE 'scheduled' END,
    execute_at = coalesce(x.retry_at, t.execute_at),
    error = x.message,
    errors = CASE WHEN jsonb_array_length(t.errors) >= %(kept)s THEN t.errors - 0 ELSE t.errors END
             || jsonb_strip_nulls(jsonb_build_object(
                    'attempt', t.attempts, 'type', x.type, 'message', x.message,
                    'failed_at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                    'worker', %(worker)s::text, 'trace', x.trace)),
    completed_at = CASE WHEN x.retry_at IS NULL THEN now() END,
    started_at = CASE WHEN x.retry_at IS NULL THEN t.started_at END,
    updated_at = now(), worker_id = NULL, deadline_at = NULL
FROM unnest(%(ids)s::uuid[], %(leases)s::int[], %(types)s::text[], %(messages)s::text[], %(traces)s::text[],
            %(retries)s::timestamptz[])
     AS x(id, lease_no, type, message, trace, retry_at)
WHERE t.id = x.id AND t.lease_no = x.lease_no AND t.state = 'running'
RETURNING t.id, t.lease_no

-- name: hand_back
-- Nobody is to blame: ready at once, and the attempt does not count.
UPDATE tasks AS t
SET state = 'ready', attempts = t.attempts - 1, started_at = NULL, updated_at = now(), worker_id = NULL,
    deadline_at = NULL, progress_percent = 0, progress_message = NULL
FROM unnest(%(ids)s::uuid[], %(leases)s::int[]) AS x(id, lease_no)
WHERE t.id = x.id AND t.lease_no = x.lease_no AND t.state = 'running'
RETURNING t.id, t.lease_no

-- name: stopped_after_cancel
UPDATE tasks AS t SET worker_id = NULL
FROM unnest(%(ids)s::uuid[], %(leases)s::int[]) AS x(id, lease_no)
WHERE t.id = x.id AND t.lease_no = x.lease_no AND t.state = 'cancelled'
RETURNING t.id, t.lease_no

-- name: write_progress
UPDATE tasks AS t SET progress_percent = x.percent, progress_message = x.message, updated_at = now()
FROM unnest(%(ids)s::uuid[], %(leases)s::int[], %(percents)s::int[], %(messages)s::text[])
     AS x(id, lease_no, percent, message)
WHERE t.id = x.id AND t.lease_no = x.lease_no AND t.state = 'running'

-- name: promote
WITH due AS MATERIALIZED (
    SELECT s.id FROM tasks s WHERE s.state = 'scheduled' AND s.execute_at <= now()
    ORDER BY s.execute_at, s.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE tasks AS t SET state = 'ready' FROM due WHERE t.id = due.id

-- name: next_scheduled
SELECT extract(epoch FROM min(s.execute_at) - clock_timestamp())::float8 FROM tasks s WHERE s.state = 'scheduled'

-- name: beat
INSERT INTO workers AS w (id, name, task_types, lease_seconds)
VALUES (%(id)s::uuid, %(name)s, %(task_types)s::text[], %(lease_seconds)s)
ON CONFLICT (id) DO UPDATE SET heartbeat_at = now()

-- name: held_by
SELECT t.id, t.lease_no FROM tasks t WHERE t.worker_id = %(worker_id)s::uuid AND t.state = 'running'

-- name: cancelled_under
SELECT t.id, t.lease_no FROM tasks t WHERE t.worker_id = %(worker_id)s::uuid AND t.state = 'cancelled'

-- name: lost
-- Running tasks whose worker has been silent for its own lease time or has no row, and those whose worker
-- lives but let the deadline pass. Judged by the heartbeat, never by how long the task has run. Nobody is
-- stale while PostgreSQL itself has been up for less than a lease. SKIP LOCKED: a row that somebody is just
-- completing is passed over, and one that we hold is checked again by whoever wanted to complete it.
SELECT t.id, t.lease_no, t.attempts, t.max_attempts,
       coalesce(w.heartbeat_at >= now() - make_interval(secs => w.lease_seconds), false) AS overdue, now(),
       t.task_type
FROM tasks t LEFT JOIN workers w ON w.id = t.worker_id
WHERE t.state = 'running'
  AND pg_postmaster_start_time() < now() - make_interval(secs => coalesce(w.lease_seconds, %(lease_seconds)s))
  AND (w.id IS NULL
       OR w.heartbeat_at < now() - make_interval(secs => w.lease_seconds)
       OR t.deadline_at < now() - make_interval(secs => %(slack_seconds)s))
ORDER BY t.id LIMIT %(limit)s FOR UPDATE OF t SKIP LOCKED

-- name: forget_worker
-- A worker that still holds something is left for the rescuer to find.
DELETE FROM workers w WHERE w.id = %(worker_id)s::uuid
  AND NOT EXISTS (SELECT FROM tasks t WHERE t.worker_id = w.id AND t.state = 'running')

-- name: forget_dead_workers
DELETE FROM workers w
WHERE w.heartbeat_at < now() - make_interval(secs => greatest(w.lease_seconds * 10, 600))
  AND NOT EXISTS (SELECT FROM tasks t WHERE t.worker_id = w.id AND t.state = 'running')

-- name: watched
-- What has changed of all the tasks that somebody watches, in one statement however many watch: `seen` is each one's
-- updated_at as it is known, NULL for one never looked at. Compared for difference, because a transaction that waited
-- for another's row lock carries the earlier time. A task that is gone comes with nothing but its id.
SELECT w.id, t.state, t.task_type, t.attempts, t.max_attempts, t.execute_at, t.progress_percent, t.progress_message,
       CASE WHEN t.state = 'completed' AND length(t.result::text) <= %(largest)s THEN t.result::text END AS result,
       t.error, t.created_at, t.updated_at, t.started_at, t.completed_at,
       extract(epoch FROM coalesce(t.completed_at, now()) - t.started_at)::float8 AS duration
FROM unnest(%(ids)s::uuid[], %(seen)s::timestamptz[]) AS w(id, seen) LEFT JOIN tasks t ON t.id = w.id
WHERE t.updated_at IS DISTINCT FROM w.seen OR t.id IS NULL
