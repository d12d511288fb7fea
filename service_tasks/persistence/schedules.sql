-- Schedules; see queries.sql for the notation.
-- Only the database's clock is compared: now() is the moment the transaction began.

-- name: columns
-- The fields of domain.schedule.Timing and of use_cases.schedules.StoredSchedule.
{timing}, s.payload::text AS payload, {rest}

-- name: light_columns
-- The same for lists, without large payloads.
{timing}, CASE WHEN octet_length(s.payload::text) <= %(largest)s THEN s.payload::text END AS payload, {rest}

-- name: timing
s.cron, s.timezone, s.every_seconds, s.run_at AS at, s.anchor_at AS anchor, s.starts_at, s.ends_at

-- name: rest
s.missed, s.id, s.name, s.task_type, s.title, s.user_id, s.priority, s.max_attempts, s.timeout_seconds, s.callback_url,
s.paused_at, s.next_run_at, s.problem, s.last_run_at, s.last_task_id, s.created_at, s.updated_at, now() AS now

-- name: within_reach
-- As in queries.sql.
(%(reach)s::uuid IS NULL OR s.user_id = %(reach)s::uuid)

-- name: clock
SELECT now()

-- name: insert
INSERT INTO schedules AS s (id, name, task_type, title, user_id, payload, priority, max_attempts, timeout_seconds,
                            callback_url, missed, next_run_at, cron, timezone, every_seconds, run_at, anchor_at, starts_at, ends_at)
VALUES (%(id)s::uuid, %(name)s, %(task_type)s, %(title)s, %(user_id)s::uuid, %(payload)s::jsonb, %(priority)s,
        %(max_attempts)s, %(timeout_seconds)s, %(callback_url)s, %(missed)s, %(next_run_at)s, %(cron)s, %(timezone)s,
        %(every_seconds)s, %(at)s, %(anchor)s, %(starts_at)s, %(ends_at)s)
RETURNING {columns}

-- name: count_before
-- Before a schedule is added: one session at a time, or two could both take the last place. The count is a statement of
-- its own, so that it sees what the one before has added. Nothing else takes this lock.
SELECT pg_advisory_xact_lock(1935894628, 0);
SELECT count(*) AS in_all, count(*) FILTER (WHERE s.user_id = %(user_id)s::uuid) AS of_user FROM schedules s

-- name: get
SELECT {columns} FROM schedules s WHERE s.id = %(id)s::uuid AND {within_reach}

-- name: lock
-- A change waits for a scheduler that is making this schedule's tasks; the scheduler skips a schedule that is being
-- changed.
SELECT {columns} FROM schedules s WHERE s.id = %(id)s::uuid AND {within_reach} FOR UPDATE

-- name: matching
{within_reach}
AND (%(task_type)s::text IS NULL OR s.task_type = %(task_type)s)
AND (%(user_id)s::uuid IS NULL OR s.user_id = %(user_id)s::uuid)
AND (%(status)s::text IS NULL
     OR %(status)s = CASE WHEN s.paused_at IS NOT NULL THEN 'paused'
                          WHEN s.next_run_at IS NULL THEN 'finished' ELSE 'active' END)

-- name: list
SELECT {light_columns} FROM schedules s WHERE {matching}
  AND (%(after)s::uuid IS NULL OR s.id < %(after)s::uuid)
ORDER BY s.id DESC LIMIT %(limit)s OFFSET %(offset)s

-- name: count
SELECT count(*) FROM schedules s WHERE {matching}

-- name: update
UPDATE schedules AS s
SET name = %(name)s, task_type = %(task_type)s, title = %(title)s, user_id = %(user_id)s::uuid,
    payload = %(payload)s::jsonb, priority = %(priority)s, max_attempts = %(max_attempts)s,
    timeout_seconds = %(timeout_seconds)s, callback_url = %(callback_url)s, missed = %(missed)s, paused_at = %(paused_at)s,
    next_run_at = %(next_run_at)s, problem = %(problem)s, cron = %(cron)s, timezone = %(timezone)s,
    every_seconds = %(every_seconds)s, run_at = %(at)s, anchor_at = %(anchor)s, starts_at = %(starts_at)s,
    ends_at = %(ends_at)s, updated_at = now()
WHERE s.id = %(id)s::uuid
RETURNING {columns}

-- name: delete
DELETE FROM schedules WHERE id = %(id)s::uuid

-- name: ran
UPDATE schedules SET last_run_at = now(), last_task_id = %(task_id)s::uuid WHERE id = %(id)s::uuid

-- name: pause_of_users
-- Skips locked ones, so as not to wait while holding the lock on a user's id: the transaction that has one locked finds
-- the tombstone before it makes a task or resumes the schedule, and the scheduler pauses it when it is due.
UPDATE schedules AS s
SET paused_at = coalesce(s.paused_at, now()), next_run_at = NULL, problem = %(problem)s, updated_at = now()
FROM (
    SELECT c.id FROM schedules c WHERE c.user_id = ANY (%(user_ids)s::uuid[]) FOR UPDATE SKIP LOCKED
) AS x
WHERE s.id = x.id

-- name: pause_of_disabled
-- Waits for locked ones, because nothing else would pause them.
UPDATE schedules AS s
SET paused_at = coalesce(s.paused_at, now()), next_run_at = NULL, problem = coalesce(s.problem, %(problem)s),
    updated_at = now()
FROM (SELECT c.id FROM schedules c WHERE c.user_id = %(user_id)s::uuid ORDER BY c.id FOR UPDATE) AS x
WHERE s.id = x.id

-- name: due
-- Two schedulers at once share the work: SKIP LOCKED.
SELECT {columns} FROM schedules s WHERE s.next_run_at <= now()
ORDER BY s.next_run_at, s.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED

-- name: add_ticks
-- The schedule is locked; even without that the key of a tick prevents a second task for one moment.
INSERT INTO schedule_ticks AS k (schedule_id, due_at, task_id)
SELECT * FROM unnest(%(schedule_ids)s::uuid[], %(dues)s::timestamptz[], %(task_ids)s::uuid[])
ON CONFLICT DO NOTHING RETURNING k.task_id

-- name: advance
-- A schedule with a problem pauses until it is corrected.
UPDATE schedules AS s
SET next_run_at = x.next_run_at, problem = x.problem, paused_at = CASE WHEN x.problem IS NOT NULL THEN now() END,
    last_task_id = coalesce(x.task_id, s.last_task_id),
    last_run_at = CASE WHEN x.task_id IS NULL THEN s.last_run_at ELSE now() END
FROM unnest(%(ids)s::uuid[], %(nexts)s::timestamptz[], %(problems)s::text[], %(task_ids)s::uuid[])
     AS x(id, next_run_at, problem, task_id)
WHERE s.id = x.id

-- name: next_due
-- Without schedules that are due but were skipped, because another session has them locked, perhaps for long.
SELECT extract(epoch FROM min(s.next_run_at) - clock_timestamp())::float8 FROM schedules s
WHERE s.next_run_at > now()

-- name: announce
SELECT pg_notify('siteworks_tasks', %(announcement)s)
