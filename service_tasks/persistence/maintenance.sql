-- Maintenance by the leader; see queries.sql for the notation. Every statement may run in two workers at once:
-- leadership saves work and guards nothing.

-- name: leader
SELECT l.worker_id, CASE WHEN {over} THEN 0 ELSE extract(epoch FROM l.expires_at - now()) END::float8 AS seconds_left
FROM leaders l WHERE l.duty = %(duty)s

-- name: over
-- A term that ends impossibly late was given before the clock was set back. Twice a lease, because it may have been
-- given by a transaction that began after this one.
l.expires_at <= now() OR l.expires_at > now() + make_interval(secs => 2 * %(lease_seconds)s)

-- name: lead
-- Takes a free term or renews the worker's own. Only the database's clock counts, so a worker's wrong one does no harm.
SET LOCAL lock_timeout = '500ms';
INSERT INTO leaders AS l (duty, worker_id, expires_at)
VALUES (%(duty)s, %(worker_id)s::uuid, now() + make_interval(secs => %(lease_seconds)s))
ON CONFLICT (duty) DO UPDATE
SET worker_id = excluded.worker_id, expires_at = excluded.expires_at,
    elected_at = CASE WHEN l.worker_id = excluded.worker_id THEN l.elected_at ELSE now() END
WHERE l.worker_id = excluded.worker_id OR {over}
RETURNING l.worker_id

-- name: resign
DELETE FROM leaders l WHERE l.duty = %(duty)s AND l.worker_id = %(worker_id)s::uuid

-- name: prune_tasks
-- Ids are version 7: they begin with the milliseconds of their creation, so the oldest tasks come first in the primary
-- key, and the pruner needs no index that each end of a task would have to update. The walk over that key, one page at
-- a time, stops where tasks are too young for any of the limits (NULL: kept for ever), plus a day, because other clocks
-- make the ids. Only tasks that ended long enough ago are deleted; SKIP LOCKED skips one that is just being retried.
WITH page AS MATERIALIZED (
    SELECT p.id FROM tasks p
    WHERE p.id > coalesce(%(after)s::uuid, '00000000-0000-0000-0000-000000000000'::uuid)
      AND p.id < (lpad(to_hex((extract(epoch FROM now() - make_interval(secs => %(shortest)s - 86400)) * 1000)::bigint),
                       12, '0') || repeat('0', 20))::uuid
    ORDER BY p.id LIMIT %(limit)s
), old AS MATERIALIZED (
    SELECT t.id FROM tasks t JOIN page ON page.id = t.id
    WHERE t.completed_at < now() - make_interval(secs => CASE t.state WHEN 'completed' THEN %(completed)s::float8
                                                                      WHEN 'failed' THEN %(failed)s::float8
                                                                      WHEN 'cancelled' THEN %(cancelled)s::float8 END)
    FOR UPDATE OF t SKIP LOCKED
), gone AS (
    DELETE FROM tasks t USING old WHERE t.id = old.id RETURNING t.id
), forgotten AS (
    DELETE FROM answered_keys k USING old WHERE k.task_id = old.id
)
SELECT (SELECT count(*) FROM gone) AS removed, (SELECT count(*) FROM page) AS seen,
       (SELECT page.id FROM page ORDER BY page.id DESC LIMIT 1) AS last

-- name: prune_ticks
-- A tick guards its moment only until its schedule advances, in the same transaction; afterwards it is only a record.
DELETE FROM schedule_ticks k
WHERE k.ctid = ANY (ARRAY(
    SELECT o.ctid FROM schedule_ticks o WHERE o.due_at < now() - make_interval(secs => %(keep)s)
    ORDER BY o.due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED))

-- name: prune_messages
-- The id of a message is needed only while the message may be delivered again.
DELETE FROM ingested_messages i
WHERE i.ctid = ANY (ARRAY(
    SELECT o.ctid FROM ingested_messages o WHERE o.received_at < now() - make_interval(secs => %(keep)s)
    ORDER BY o.received_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED))

-- name: prune_minutes
DELETE FROM task_minutes m
WHERE m.ctid = ANY (ARRAY(
    SELECT o.ctid FROM task_minutes o WHERE o.minute < now() - make_interval(secs => %(keep)s)
    ORDER BY o.minute LIMIT %(limit)s FOR UPDATE SKIP LOCKED))

-- name: prune_rejections
-- Ids are version 7, so the primary key is in the order of arrival; the newest stay.
DELETE FROM rejected_messages r
WHERE r.id IN (
    SELECT o.id FROM rejected_messages o
    WHERE o.id <= (SELECT n.id FROM rejected_messages n ORDER BY n.id DESC OFFSET %(most)s LIMIT 1)
    ORDER BY o.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
