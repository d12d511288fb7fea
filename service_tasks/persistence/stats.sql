-- Figures at a cost that does not grow with the table. See queries.sql for the notation.

-- name: size
-- In pages, without reading any.
SELECT pg_relation_size('tasks') / current_setting('block_size')::int AS pages, now() AS now

-- name: groups
-- The sum of each counted state, and its most frequent types.
(SELECT NULL, c.state, sum(c.many)::bigint, extract(epoch FROM now() - min(c.first))::float8
 FROM counted c GROUP BY c.state)
UNION ALL
(SELECT c.task_type, c.state, c.many, extract(epoch FROM now() - c.first)::float8
 FROM counted c ORDER BY c.many DESC, c.task_type LIMIT %(groups)s)

-- name: count_all
-- For a small table: every row.
WITH counted AS MATERIALIZED (
    SELECT t.task_type, t.state, count(*) AS many, min(t.execute_at) FILTER (WHERE t.state = 'ready') AS first
    FROM tasks t GROUP BY t.task_type, t.state
)
{groups}

-- name: in_index_order
-- As in queries.sql.
SET LOCAL enable_sort = off; SET LOCAL random_page_cost = 1; SET LOCAL seq_page_cost = 1000

-- name: of_owner
-- Of the newest tasks of one owner, through ix_tasks_user: groups, without a minute; and what has ended, by minute, type
-- and outcome, with how long each attempt waited and ran. Failed attempts that are made again are known from the errors
-- of their tasks.
WITH newest AS MATERIALIZED (
    SELECT t.task_type, t.state, t.execute_at, t.started_at, t.completed_at, t.errors FROM tasks t
    WHERE t.user_id = %(reach)s::uuid ORDER BY t.id DESC LIMIT %(most)s
), counted AS MATERIALIZED (
    SELECT t.task_type, t.state, count(*) AS many, min(t.execute_at) FILTER (WHERE t.state = 'ready') AS first
    FROM newest t GROUP BY t.task_type, t.state
), begin AS (
    SELECT date_trunc('minute', now()) - make_interval(mins => %(minutes)s - 1) AS at
)
SELECT NULL AS minute, g.* FROM ({groups}) g
UNION ALL
SELECT date_trunc('minute', t.completed_at) AS minute, t.task_type, t.state,
       extract(epoch FROM t.started_at - t.execute_at)::float8 AS waited,
       extract(epoch FROM t.completed_at - t.started_at)::float8 AS ran
FROM newest t, begin WHERE t.completed_at >= begin.at
UNION ALL
SELECT date_trunc('minute', e.failed_at), t.task_type, 'retried', NULL, NULL
FROM newest t CROSS JOIN begin CROSS JOIN LATERAL (
    SELECT (x.item ->> 'failed_at')::timestamptz AS failed_at
    FROM jsonb_array_elements(t.errors) WITH ORDINALITY x(item, number)
    WHERE t.state <> 'failed' OR x.number < jsonb_array_length(t.errors)
) e
WHERE t.errors <> '[]' AND e.failed_at >= begin.at

-- name: count_some
-- For a large table: of each state with an index the first `most`, in the order of that index, so that no more rows are
-- read: an order that another index gives too is written as the planner cannot know. A smaller number is exact. There are
-- never more running tasks than the workers hold. Completed ones have no index: see the sample below.
WITH chosen AS (
    (SELECT r.task_type, r.state, r.execute_at FROM tasks r WHERE r.state = 'ready'
     ORDER BY r.task_type, {turn}, r.id LIMIT %(most)s)
    UNION ALL
    (SELECT s.task_type, s.state, NULL FROM tasks s WHERE s.state = 'scheduled'
     ORDER BY s.execute_at, s.id LIMIT %(most)s)
    UNION ALL
    (SELECT a.task_type, a.state, NULL FROM tasks a WHERE a.worker_id IS NOT NULL AND a.state = 'running'
     ORDER BY a.worker_id, a.task_type LIMIT %(most_running)s)
    UNION ALL
    (SELECT f.task_type, f.state, NULL FROM tasks f WHERE f.state IN ('failed', 'cancelled') AND f.state > 'cancelled'
     ORDER BY f.state, f.id DESC LIMIT %(most)s)
    UNION ALL
    (SELECT c.task_type, c.state, NULL FROM tasks c WHERE c.state = 'cancelled'
     ORDER BY c.completed_at DESC LIMIT %(most)s)
), counted AS MATERIALIZED (
    SELECT x.task_type, x.state, count(*) AS many, min(x.execute_at) AS first FROM chosen x GROUP BY x.task_type, x.state
)
{groups}

-- name: turn
-- As in queries.sql.
((r.execute_at AT TIME ZONE 'UTC') - r.priority * interval '1 minute')

-- name: by_index
-- Run before count_some, which must use the indexes whatever the statistics.
SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off

-- name: with_sorting
-- Run after count_some.
RESET enable_sort

-- name: sample
-- The tasks in a percentage of the pages, always the same ones, so that they stay cached and figures do not jump from
-- one count to the next.
WITH counted AS MATERIALIZED (
    SELECT t.task_type, t.state, count(*) AS many, NULL::timestamptz AS first
    FROM tasks t TABLESAMPLE SYSTEM (%(percent)s) REPEATABLE (1) GROUP BY t.task_type, t.state
)
{groups}

-- name: oldest_ready
-- By type, if more tasks are ready than were counted: how long the oldest of the first `heads` has waited. Types are
-- found by skipping through the index, however many tasks each has.
WITH RECURSIVE kinds AS (
    (SELECT r.task_type FROM tasks r WHERE r.state = 'ready' ORDER BY r.task_type LIMIT 1)
    UNION ALL
    SELECT (SELECT r.task_type FROM tasks r WHERE r.state = 'ready' AND r.task_type > k.task_type
            ORDER BY r.task_type LIMIT 1)
    FROM kinds k WHERE k.task_type IS NOT NULL
), found AS MATERIALIZED (
    SELECT k.task_type FROM kinds k WHERE k.task_type IS NOT NULL LIMIT %(types)s
)
SELECT f.task_type, extract(epoch FROM now() - h.first)::float8
FROM found f CROSS JOIN LATERAL (
    SELECT min(n.execute_at) AS first FROM (
        SELECT r.execute_at FROM tasks r WHERE r.state = 'ready' AND r.task_type = f.task_type
        ORDER BY {turn}, r.id LIMIT %(heads)s
    ) n
) h
WHERE h.first IS NOT NULL

-- name: ended
-- By minute, from the workers' counts.
SELECT m.minute, sum(m.completed)::bigint, sum(m.failed)::bigint, sum(m.retried)::bigint
FROM task_minutes m WHERE m.minute > date_trunc('minute', now()) - make_interval(mins => %(minutes)s)
GROUP BY m.minute

-- name: cancelled
-- By minute, of the newest `most`.
SELECT date_trunc('minute', x.completed_at), count(*) FROM (
    SELECT t.completed_at FROM tasks t
    WHERE t.state = 'cancelled'
      AND t.completed_at >= date_trunc('minute', now()) - make_interval(mins => %(minutes)s - 1)
    ORDER BY t.completed_at DESC LIMIT %(most)s
) x GROUP BY 1

-- name: ended_of_types
SELECT m.task_type, sum(m.completed)::bigint, sum(m.failed)::bigint, sum(m.retried)::bigint
FROM task_minutes m WHERE m.minute > date_trunc('minute', now()) - make_interval(mins => %(minutes)s)
GROUP BY m.task_type

-- name: times
-- The non-empty buckets of each type: how long its tasks waited and ran. Unnested side by side in the SELECT list, which
-- takes half the time of a join with unnest.
SELECT b.task_type, b.number - 1 AS bucket, sum(b.wait)::bigint AS waits, sum(b.run)::bigint AS runs
FROM (SELECT m.task_type, generate_subscripts(m.waits, 1) AS number, unnest(m.waits) AS wait, unnest(m.runs) AS run
      FROM task_minutes m WHERE m.minute > date_trunc('minute', now()) - make_interval(mins => %(minutes)s)) b
WHERE b.wait > 0 OR b.run > 0
GROUP BY b.task_type, b.number

-- name: workers
SELECT w.name, w.task_types, w.slots, w.busy, w.threads, w.busy_threads, w.started_at, w.heartbeat_at,
       extract(epoch FROM now() - w.heartbeat_at)::float8 AS heartbeat_age,
       w.heartbeat_at > now() - make_interval(secs => w.lease_seconds) AS alive,
       EXISTS (SELECT FROM leaders l WHERE l.worker_id = w.id AND l.expires_at > now()) AS leads
FROM workers w ORDER BY w.name, w.id LIMIT %(most)s

-- name: workers_together
SELECT count(*) FILTER (WHERE a.alive) AS alive, count(*) FILTER (WHERE NOT a.alive) AS silent,
       coalesce(sum(a.slots) FILTER (WHERE a.alive), 0)::bigint AS slots,
       coalesce(sum(a.busy) FILTER (WHERE a.alive), 0)::bigint AS busy,
       coalesce(sum(a.threads) FILTER (WHERE a.alive), 0)::bigint AS threads,
       coalesce(sum(a.busy_threads) FILTER (WHERE a.alive), 0)::bigint AS busy_threads
FROM (SELECT w.*, w.heartbeat_at > now() - make_interval(secs => w.lease_seconds) AS alive FROM workers w) a
