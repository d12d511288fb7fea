-- Many tasks chosen by a filter. See queries.sql for the notation.

-- name: choose
-- The first so many that fit, in the order of their ids, behind the last that was dealt with. Each state by itself, so
-- that each goes through an index of its own, and MATERIALIZED: wanting the first few of an order, the planner would
-- walk the primary key over millions of ended tasks. A state that is not asked for costs nothing: the driver writes the
-- values into the statement, so the planner sees that. Live tasks are chosen to be cancelled: those that tell other
-- tasks' ends only when somebody asks for them by name, since a cancel makes new ones behind the ones it has dealt with.
WITH fitting AS MATERIALIZED (
    SELECT t.id, t.user_id, t.unique_key FROM tasks t
    WHERE t.state = 'ready' AND 'ready' = ANY (%(states)s::text[]) AND {fits} AND {no_callback}
    UNION ALL
    SELECT t.id, t.user_id, t.unique_key FROM tasks t
    WHERE t.state = 'scheduled' AND 'scheduled' = ANY (%(states)s::text[]) AND {fits} AND {no_callback}
    UNION ALL
    SELECT t.id, t.user_id, t.unique_key FROM tasks t
    WHERE t.state = 'running' AND t.worker_id IS NOT NULL AND 'running' = ANY (%(states)s::text[]) AND {fits}
      AND {no_callback}
    UNION ALL
    SELECT t.id, t.user_id, t.unique_key FROM tasks t
    WHERE t.state = 'failed' AND 'failed' = ANY (%(states)s::text[]) AND {fits}
    UNION ALL
    SELECT t.id, t.user_id, t.unique_key FROM tasks t
    WHERE t.state = 'cancelled' AND 'cancelled' = ANY (%(states)s::text[]) AND {fits}
)
SELECT f.id, f.user_id, f.unique_key FROM fitting f ORDER BY f.id LIMIT %(limit)s

-- name: no_callback
(t.task_type <> %(callback)s OR %(task_type)s::text IS NOT NULL OR %(ids)s::uuid[] IS NOT NULL)

-- name: fits
    (%(task_type)s::text IS NULL OR t.task_type = %(task_type)s)
    AND (%(user_id)s::uuid IS NULL OR t.user_id = %(user_id)s::uuid)
    AND (%(ids)s::uuid[] IS NULL OR t.id = ANY (%(ids)s::uuid[]))
    AND (%(after)s::uuid IS NULL OR t.id > %(after)s::uuid)
    AND (%(created_from)s::timestamptz IS NULL OR t.created_at >= %(created_from)s::timestamptz)
    AND (%(created_before)s::timestamptz IS NULL OR t.created_at < %(created_before)s::timestamptz)
    AND (%(ended_from)s::timestamptz IS NULL OR t.completed_at >= %(ended_from)s::timestamptz)
    AND (%(ended_before)s::timestamptz IS NULL OR t.completed_at < %(ended_before)s::timestamptz)

-- name: cancel_many
-- As cancel does in queries.sql. Locked in the order of the ids, as by every writer of many tasks, so that no two wait
-- for each other in a circle; what has ended in the meantime is passed over.
WITH live AS MATERIALIZED (
    SELECT c.id FROM tasks c
    WHERE c.id = ANY (%(ids)s::uuid[]) AND c.state IN ('scheduled', 'ready', 'running')
    ORDER BY c.id FOR UPDATE
)
UPDATE tasks AS t
SET state = 'cancelled', completed_at = now(), updated_at = now(), deadline_at = NULL
FROM live WHERE t.id = live.id
RETURNING t.id, t.lease_no, t.worker_id, t.callback_url IS NOT NULL

-- name: tell_workers
-- In one statement, however many handlers there are to stop.
SELECT count(pg_notify('siteworks_tasks', x.announcement)) FROM unnest(%(announcements)s::text[]) AS x(announcement)

-- name: retry_many
-- As retry does in queries.sql, and locked as above.
WITH ended AS MATERIALIZED (
    SELECT c.id FROM tasks c
    WHERE c.id = ANY (%(ids)s::uuid[]) AND c.state = ANY (%(states)s::text[])
    ORDER BY c.id FOR UPDATE
)
UPDATE tasks AS t
SET state = 'ready', attempts = 0, execute_at = now(), updated_at = now(), started_at = NULL, completed_at = NULL,
    worker_id = NULL, deadline_at = NULL, result = NULL, error = NULL,
    progress_percent = 0, progress_message = NULL, callback_task_id = NULL, suspects = NULL
FROM ended WHERE t.id = ended.id
RETURNING t.id
