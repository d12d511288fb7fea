-- The statements that are the algorithm. Each begins with its name and the reason for its shape.
-- Parameters are in the driver's notation. {columns} stands for the statement of that name.
-- Only the database's clock is compared: now() is the moment the transaction began.
--
-- The tables are defined by migrations/versions. Columns of tasks whose names do not explain themselves:
--   execute_at       when the task, or its next attempt, is due
--   lease_no         grows with every claim; every write of a running task names it
--   worker_id        the worker that runs it; after a cancel, the one whose handler may still be stopping
--   timeout_seconds  null: the type's own
--   request_hash     SHA-256 of the request that came with the idempotency key
--   unique_key       at most one live task has it
--   error, errors    why the last attempt failed; one object for each failed attempt
--   callback_url, callback_task_id   where its end is POSTed, in few rows; the task that does it
--   suspects         how many tasks, this one included, their worker held when it died, perhaps because of one of them:
--                    bounds how many of these run at once

-- name: columns
-- The fields of use_cases.tasks.StoredTask, in their order.
t.id, t.state, t.task_type, t.title, t.user_id, t.payload::text AS payload, t.priority, t.attempts, t.max_attempts,
t.timeout_seconds, t.execute_at, t.progress_percent, t.progress_message, t.result::text AS result, t.error,
t.errors::text AS errors, t.created_at, t.updated_at, t.started_at, t.completed_at,
{duration} AS duration, t.unique_key, t.callback_url, t.callback_task_id, {obstacle} AS obstacle

-- name: duration
{seconds}::float8

-- name: seconds
round(extract(epoch FROM coalesce(t.completed_at, now()) - t.started_at), 3)

-- name: obstacle
-- Why a pending task cannot start. PostgreSQL computes both lists once per statement, and only if a row is pending.
CASE WHEN t.state IN ('scheduled', 'ready') THEN CASE
    WHEN t.task_type = ANY (ARRAY(SELECT c.name FROM task_type_controls c WHERE c.paused)) THEN 'paused'
    WHEN t.task_type <> ALL (ARRAY(SELECT unnest(w.task_types) FROM workers w WHERE {is_alive})) THEN 'no_worker'
    WHEN t.suspects IS NOT NULL AND t.state = 'scheduled' AND t.execute_at <= now() THEN 'suspect'
END END

-- name: insertion
-- A task without execute_at is ready at once; one for later waits as scheduled, which the claim never reads.
-- If a key is taken nothing is inserted, and the caller reads the existing task. The insert waits for a transaction
-- that inserts the same key, so two concurrent requests make one task.
{insertion_start} VALUES ({new_values}) ON CONFLICT DO NOTHING

-- name: insertion_start
INSERT INTO tasks AS t (id, state, task_type, title, user_id, payload, priority, max_attempts, timeout_seconds,
                        execute_at, idempotency_key, request_hash, unique_key, callback_url)

-- name: new_values
%(id)s::uuid, CASE WHEN %(execute_at)s::timestamptz IS NULL THEN 'ready' ELSE 'scheduled' END,
%(task_type)s, %(title)s, %(user_id)s::uuid, %(payload)s::jsonb, %(priority)s, %(max_attempts)s,
%(timeout_seconds)s, coalesce(%(execute_at)s::timestamptz, now()), %(idempotency_key)s, %(request_hash)s,
%(unique_key)s, %(callback_url)s

-- name: insert
-- One round trip, whatever is checked first; the row says why nothing was inserted, and has no reason for that if a
-- key is taken. It goes with the statement that keeps the user from being deleted meanwhile. The announcement is sent
-- at the commit, so its receivers find the task. Only what the caller does not know is returned: columns cost the driver
-- more than the server.
WITH refusal AS MATERIALIZED (
    SELECT CASE WHEN %(execute_at)s::timestamptz <= clock_timestamp() THEN 'past'
                WHEN EXISTS (SELECT FROM tombstones b WHERE b.id = %(user_id)s::uuid) THEN 'user_deleted' END AS reason
), t AS (
    {insertion_start}
    SELECT {new_values} FROM refusal
    WHERE refusal.reason IS NULL AND NOT EXISTS (
        SELECT FROM answered_keys k JOIN tasks answer ON answer.id = k.task_id
        WHERE k.idempotency_key = %(idempotency_key)s::text)
    ON CONFLICT DO NOTHING RETURNING t.*
)
SELECT refusal.reason, t.id IS NOT NULL AS made, {added}
FROM refusal LEFT JOIN t ON true

-- name: insert_plain
-- The same for a task without a user, keys and time, for which there is nothing to check.
{insertion_start} VALUES ({new_values}) RETURNING NULL AS reason, true AS made, {added}

-- name: added
t.payload::text AS payload, t.execute_at, t.created_at, {obstacle} AS obstacle,
CASE WHEN t.id IS NOT NULL AND %(announcement)s::text IS NOT NULL THEN {announcing} END AS announced

-- name: enqueue
-- For programs that store tasks in their own transactions, with roles that have no rights on other tables.
{insertion} RETURNING t.id

-- name: announce_and_enqueue
{announce}; {enqueue}

-- name: insert_many
-- Ids and numbers come as array literals, texts and payloads as one JSON array each, which is the cheapest way for a
-- driver that sends text (docs/decisions/0021). Two tasks of one batch with the same unique_key conflict too.
-- ROWS FROM pads shorter arrays with nulls: a batch without callbacks has an empty one.
INSERT INTO tasks AS t (id, state, task_type, title, user_id, payload, priority, max_attempts, timeout_seconds,
                        execute_at, unique_key, callback_url)
SELECT x.id, CASE WHEN x.execute_at IS NULL THEN 'ready' ELSE 'scheduled' END, x.task_type, x.title, x.user_id,
       x.payload, x.priority, x.max_attempts, x.timeout_seconds, coalesce(x.execute_at, now()), x.unique_key,
       x.callback_url
FROM ROWS FROM (
    unnest(%(ids)s::uuid[]), jsonb_array_elements_text(%(types)s::jsonb), jsonb_array_elements_text(%(titles)s::jsonb),
    unnest(%(users)s::uuid[]), jsonb_array_elements(%(payloads)s::jsonb), unnest(%(priorities)s::smallint[]),
    unnest(%(attempts)s::smallint[]), unnest(%(timeouts)s::float8[]), unnest(%(times)s::timestamptz[]),
    jsonb_array_elements_text(%(keys)s::jsonb), jsonb_array_elements_text(%(callbacks)s::jsonb)
) AS x(id, task_type, title, user_id, payload, priority, max_attempts, timeout_seconds, execute_at, unique_key,
       callback_url)
ON CONFLICT DO NOTHING

-- name: first_past
-- The index of a batch's first time that is not in the future.
SELECT x.number - 1 AS index FROM unnest(%(times)s::timestamptz[]) WITH ORDINALITY AS x(execute_at, number)
WHERE x.execute_at <= clock_timestamp() ORDER BY x.number LIMIT 1

-- name: within_reach
-- Whether the caller may see the task: to others it does not exist. Every statement that serves people has it. Written
-- so that the planner cannot look through all tasks of the owner for one that is named by its id or key.
coalesce(t.user_id = %(reach)s::uuid, %(reach)s::uuid IS NULL)

-- name: live_id
SELECT t.id FROM tasks t WHERE t.unique_key = %(unique_key)s AND t.state IN ('scheduled', 'ready', 'running')

-- name: live_keys
SELECT t.unique_key, t.id, {within_reach} AS within_reach FROM tasks t
WHERE t.unique_key = ANY (%(keys)s::text[]) AND t.state IN ('scheduled', 'ready', 'running')

-- name: get_live
SELECT {columns}, {within_reach} AS within_reach FROM tasks t
WHERE t.unique_key = %(unique_key)s AND t.state IN ('scheduled', 'ready', 'running')

-- name: is_future
SELECT %(execute_at)s::timestamptz > clock_timestamp() AS is_future

-- name: id_by_key
SELECT t.id, t.request_hash FROM tasks t WHERE t.idempotency_key = %(idempotency_key)s

-- name: get_by_key
-- The task made by the request with this key, or the one it was answered with.
SELECT {columns}, t.request_hash FROM tasks t WHERE t.idempotency_key = %(idempotency_key)s AND {within_reach}
UNION ALL
SELECT {columns}, k.request_hash FROM answered_keys k JOIN tasks t ON t.id = k.task_id
WHERE k.idempotency_key = %(idempotency_key)s AND {within_reach}
LIMIT 1

-- name: answer
-- Answers a request with the live task that has its unique key; from now on its idempotency key refers to that task.
-- The task is locked until that is written: if it ended before, the same request again would make another.
WITH alive AS (
    SELECT t.id FROM tasks t
    WHERE t.unique_key = %(unique_key)s AND t.state IN ('scheduled', 'ready', 'running') AND {within_reach} FOR SHARE
)
INSERT INTO answered_keys AS k (idempotency_key, request_hash, task_id)
SELECT %(idempotency_key)s, %(request_hash)s, alive.id FROM alive
ON CONFLICT (idempotency_key) DO UPDATE
SET request_hash = excluded.request_hash, task_id = excluded.task_id, created_at = excluded.created_at
WHERE NOT EXISTS (SELECT FROM tasks t WHERE t.id = k.task_id)
RETURNING k.task_id

-- name: get
SELECT {columns} FROM tasks t WHERE t.id = %(id)s::uuid AND {within_reach}

-- name: get_status
SELECT t.id, t.state, t.created_at, {duration} AS duration FROM tasks t WHERE t.id = %(id)s::uuid AND {within_reach}

-- name: list_of_all
WITH looked AS MATERIALIZED (SELECT p.id, true AS hit FROM tasks p WHERE {behind} {next_rows}),
     first AS (SELECT true AS hit FROM tasks p {first_rows})
{page}

-- name: list_of_all_that_match
WITH looked AS MATERIALIZED (SELECT p.id, {matches} AS hit FROM tasks p WHERE {behind} {next_rows}),
     first AS ({begun} UNION ALL (SELECT {matches} AS hit FROM tasks p WHERE {is_continued} {first_rows}))
{page}

-- name: list_of_owner
WITH looked AS MATERIALIZED (SELECT p.id, true AS hit FROM tasks p WHERE {of_owner} AND {behind} {next_rows}),
     first AS (SELECT true AS hit FROM tasks p WHERE {of_owner} {first_rows})
{page}

-- name: list_of_owner_that_match
WITH looked AS MATERIALIZED (SELECT p.id, {matches} AS hit FROM tasks p WHERE {of_owner} AND {behind} {next_rows}),
     first AS ({begun} UNION ALL
               (SELECT {matches} AS hit FROM tasks p WHERE {of_owner} AND {is_continued} {first_rows}))
{page}

-- name: list_of_state
-- For failed and cancelled ones, which have an index in the order of the list.
WITH looked AS MATERIALIZED (SELECT p.id, {is_of_type} AS hit FROM tasks p WHERE {of_state} AND {behind} {next_rows}),
     first AS ({begun} UNION ALL
               (SELECT {is_of_type} AS hit FROM tasks p WHERE {of_state} AND {is_continued} {first_rows}))
{page}

-- name: in_index_order
-- Before a list of an owner or a state. The planner takes their tasks for spread over the table, and for many of them would
-- walk the ids of everybody's, or sort all; they may be the oldest of a million, and a list looks at few.
SET LOCAL enable_sort = off; SET LOCAL random_page_cost = 1; SET LOCAL seq_page_cost = 1000;

-- name: list_of_live
-- Pending and running tasks have indexes in other orders: where they are few, all of them are taken and sorted.
WITH live AS MATERIALIZED (
    SELECT l.id, l.task_type FROM tasks l WHERE l.state = 'ready' AND 'ready' = ANY (%(states)s::text[])
    UNION ALL
    SELECT l.id, l.task_type FROM tasks l WHERE l.state = 'scheduled' AND 'scheduled' = ANY (%(states)s::text[])
    UNION ALL
    SELECT l.id, l.task_type FROM tasks l
    WHERE l.worker_id IS NOT NULL AND l.state = 'running' AND 'running' = ANY (%(states)s::text[])
    LIMIT %(few)s + 1
), first AS MATERIALIZED (SELECT p.id, {is_of_type} AS hit FROM live p),
   looked AS MATERIALIZED (SELECT p.id, p.hit FROM first p WHERE {behind})
{page}

-- name: behind
(%(after)s::uuid IS NULL OR p.id < %(after)s::uuid)

-- name: of_owner
p.user_id = %(reach)s::uuid

-- name: of_state
p.state = %(state)s

-- name: next_rows
-- Ids are version 7, made in the order of creation: an index gives the newest first, and the cursor's place. A list
-- looks at no more rows than `look`; where that does not settle which come next, the page ends early.
ORDER BY p.id DESC LIMIT %(look)s

-- name: begun
-- What the total is counted from: the same tasks, unless the list is continued.
SELECT l.hit FROM looked l WHERE NOT {is_continued}

-- name: is_continued
%(after)s::uuid IS NOT NULL

-- name: first_rows
ORDER BY p.id DESC LIMIT %(most)s + 1

-- name: matches
(%(states)s::text[] IS NULL OR p.state = ANY (%(states)s::text[])) AND {is_of_type}

-- name: is_of_type
(%(task_type)s::text IS NULL OR p.task_type = %(task_type)s)

-- name: page
-- One row: the page, with one task more than are shown of it, as a JSON array; and what tells how far the list was
-- looked at. The page is chosen first, so that large values are measured only for its rows.
, chosen AS MATERIALIZED (
    SELECT l.id FROM looked l WHERE l.hit ORDER BY l.id DESC LIMIT %(limit)s OFFSET %(offset)s
), shown AS MATERIALIZED (
    SELECT t.id, {view} AS task FROM (SELECT c.id FROM chosen c ORDER BY c.id DESC LIMIT %(limit)s - 1) c
    JOIN tasks t ON t.id = c.id CROSS JOIN LATERAL ({light_values}) light
)
SELECT (SELECT '[' || coalesce(string_agg(s.task, ',' ORDER BY s.id DESC), '') || ']' FROM shown s) AS tasks,
       (SELECT s.id FROM shown s ORDER BY s.id LIMIT 1) AS last_shown,
       (SELECT count(*) FROM chosen) AS found,
       (SELECT count(*) FROM looked l) AS looked,
       (SELECT count(*) FROM looked l WHERE l.hit) AS hits,
       (SELECT l.id FROM looked l ORDER BY l.id LIMIT 1) AS last_looked,
       counts.counted, counts.total
FROM (SELECT count(*) AS counted, count(*) FILTER (WHERE f.hit) AS total FROM first f) counts

-- name: view
-- The JSON of schemas.tasks.TaskView, as our own encoder writes it: times in UTC, as our sessions have it, with six
-- decimals or none; seconds with one decimal at least. (row_to_json takes four times as long as concat.)
concat(
    '{"id":"', t.id, '","task_type":', to_json(t.task_type), ',"title":', coalesce(to_json(t.title)::text, 'null'),
    ',"user_id":', coalesce('"' || t.user_id || '"', 'null'),
    ',"status":"', CASE t.state WHEN 'scheduled' THEN 'pending' WHEN 'ready' THEN 'pending'
                                WHEN 'running' THEN 'processing' ELSE t.state END,
    '","payload":', coalesce(light.payload, 'null'), ',"priority":', t.priority, ',"attempts":', t.attempts,
    ',"max_attempts":', t.max_attempts,
    ',"timeout":', CASE WHEN t.timeout_seconds IS NULL THEN 'null'
                        WHEN t.timeout_seconds = trunc(t.timeout_seconds) THEN t.timeout_seconds || '.0'
                        ELSE t.timeout_seconds::text END,
    ',"execute_at":', replace(to_char(t.execute_at, '\"YYYY-MM-DD"T"HH24:MI:SS.US"Z\"'), '.000000Z', 'Z'),
    ',"progress":{"percent":', t.progress_percent,
    ',"message":', coalesce(to_json(t.progress_message)::text, 'null'),
    '},"result":', coalesce(light.result, 'null'), ',"error":', coalesce(to_json(left(t.error, %(error_characters)s))::text, 'null'),
    ',"errors":', coalesce(light.errors, '[]'),
    ',"created_at":', replace(to_char(t.created_at, '\"YYYY-MM-DD"T"HH24:MI:SS.US"Z\"'), '.000000Z', 'Z'),
    ',"updated_at":', replace(to_char(t.updated_at, '\"YYYY-MM-DD"T"HH24:MI:SS.US"Z\"'), '.000000Z', 'Z'),
    ',"started_at":', coalesce(
        replace(to_char(t.started_at, '\"YYYY-MM-DD"T"HH24:MI:SS.US"Z\"'), '.000000Z', 'Z'), 'null'),
    ',"completed_at":', coalesce(
        replace(to_char(t.completed_at, '\"YYYY-MM-DD"T"HH24:MI:SS.US"Z\"'), '.000000Z', 'Z'), 'null'),
    ',"duration":', coalesce(to_char({seconds}, 'FM9999999999990.099'), 'null'),
    ',"unique_key":', coalesce(to_json(t.unique_key)::text, 'null'),
    ',"callback_url":', coalesce(to_json(t.callback_url)::text, 'null'),
    ',"callback_task_id":', coalesce('"' || t.callback_task_id || '"', 'null'),
    ',"waiting_for":', coalesce(CASE WHEN light.obstacle IS NOT NULL THEN coalesce(
        %(waits)s::jsonb -> (light.obstacle || ' ' || t.task_type), %(waits)s::jsonb -> light.obstacle) END, 'null'),
    ',"obstacle":', coalesce('"' || light.obstacle || '"', 'null'),
    ',"omitted":', CASE
        WHEN light.payload IS NULL OR light.errors IS NULL OR (light.result IS NULL AND t.state = 'completed')
        THEN to_json(array_remove(ARRAY[
            CASE WHEN light.payload IS NULL THEN 'payload' END,
            CASE WHEN light.result IS NULL AND t.state = 'completed' THEN 'result' END,
            CASE WHEN light.errors IS NULL THEN 'errors' END], NULL))::text
        ELSE '[]' END, '}')

-- name: light_values
-- Lists go without large values and tracebacks: a page of a hundred tasks must not have a hundred megabytes. With a
-- `largest` of 0 they go without any, and read none.
SELECT CASE WHEN %(largest)s > 0 AND octet_length(t.payload::text) <= %(largest)s THEN t.payload::text END AS payload,
       CASE WHEN %(largest)s > 0 AND octet_length(t.result::text) <= %(largest)s THEN t.result::text END AS result,
       CASE WHEN t.errors = '[]' THEN '[]' WHEN %(largest)s > 0 THEN (
           SELECT CASE WHEN octet_length(jsonb_agg(e.item - 'trace')::text) <= %(largest)s
                       THEN '[' || string_agg({attempt_error}, ',' ORDER BY e.number) || ']' END
           FROM jsonb_array_elements(t.errors) WITH ORDINALITY e(item, number)
       ) END AS errors,
       {obstacle} AS obstacle
OFFSET 0

-- name: attempt_error
-- The fields of schemas.tasks.AttemptErrorView.
(SELECT row_to_json(a)::text FROM (
    SELECT e.item -> 'attempt' AS attempt, e.item ->> 'type' AS type, e.item ->> 'message' AS message,
           replace(e.item ->> 'failed_at', '.000000Z', 'Z') AS failed_at, e.item ->> 'worker' AS worker, NULL AS trace
) a)

-- name: choose
-- The next page of matching tasks, by id. Each state is a separate branch, so that it uses its own index, and
-- MATERIALIZED: for a LIMIT in order the planner would walk the primary key over millions of ended tasks. A state that
-- is not wanted costs nothing, because the planner sees the values that the driver writes into the statement. Failed
-- and cancelled tasks have indexes in this order, of all and of each type, of which no more than the page is read. Live
-- callbacks are chosen only by type or id: they are chosen to be cancelled, and each cancel may make a new one after the
-- page.
WITH fitting AS MATERIALIZED (
{fitting}
)
SELECT f.id, f.user_id, f.unique_key FROM fitting f ORDER BY f.id LIMIT %(limit)s

-- name: choose_any
-- The same in no order, to be counted: of those that match, no more are read.
SELECT f.id, f.user_id, f.unique_key FROM ({fitting}) f LIMIT %(limit)s

-- name: fitting
SELECT t.id, t.user_id, t.unique_key FROM tasks t
WHERE t.state = 'ready' AND 'ready' = ANY (%(states)s::text[]) AND {fits} AND {no_callback_task}
UNION ALL
SELECT t.id, t.user_id, t.unique_key FROM tasks t
WHERE t.state = 'scheduled' AND 'scheduled' = ANY (%(states)s::text[]) AND {fits} AND {no_callback_task}
UNION ALL
SELECT t.id, t.user_id, t.unique_key FROM tasks t
WHERE t.state = 'running' AND t.worker_id IS NOT NULL AND 'running' = ANY (%(states)s::text[]) AND {fits}
  AND {no_callback_task}
UNION ALL
(SELECT t.id, t.user_id, t.unique_key FROM tasks t
 WHERE t.state = 'failed' AND 'failed' = ANY (%(states)s::text[]) AND {fits} ORDER BY t.id LIMIT %(limit)s)
UNION ALL
(SELECT t.id, t.user_id, t.unique_key FROM tasks t
 WHERE t.state = 'cancelled' AND 'cancelled' = ANY (%(states)s::text[]) AND {fits} ORDER BY t.id LIMIT %(limit)s)

-- name: oldest_first
-- Before failed or cancelled tasks are chosen. The planner takes them for spread over the table, and would walk the ids of
-- all tasks to find the oldest; they may be the newest of millions.
SET LOCAL random_page_cost = 1

-- name: clock
SELECT now()

-- name: no_callback_task
(t.task_type <> %(callback)s OR %(task_type)s::text IS NOT NULL OR %(ids)s::uuid[] IS NOT NULL)

-- name: fits
    {within_reach}
    AND (%(task_type)s::text IS NULL OR t.task_type = %(task_type)s)
    AND (%(user_id)s::uuid IS NULL OR t.user_id = %(user_id)s::uuid)
    AND (%(ids)s::uuid[] IS NULL OR t.id = ANY (%(ids)s::uuid[]))
    AND (%(after)s::uuid IS NULL OR t.id > %(after)s::uuid)
    AND (%(created_from)s::timestamptz IS NULL OR t.created_at >= %(created_from)s::timestamptz)
    AND (%(created_before)s::timestamptz IS NULL OR t.created_at < %(created_before)s::timestamptz)
    AND (%(ended_from)s::timestamptz IS NULL OR t.completed_at >= %(ended_from)s::timestamptz)
    AND (%(ended_before)s::timestamptz IS NULL OR t.completed_at < %(ended_before)s::timestamptz)

-- name: cancel_many
-- Locks in the order of ids, as every writer of many tasks does, so that no two can deadlock. Tasks that have ended
-- meanwhile are skipped.
WITH live AS MATERIALIZED (
    SELECT t.id FROM tasks t
    WHERE t.id = ANY (%(ids)s::uuid[]) AND t.state IN ('scheduled', 'ready', 'running') AND {within_reach}
    ORDER BY t.id FOR UPDATE
)
{cancelled}

-- name: cancel_of_user
WITH live AS MATERIALIZED (
    SELECT c.id FROM tasks c
    WHERE c.user_id = %(user_id)s::uuid AND c.state IN ('scheduled', 'ready', 'running')
    ORDER BY c.id FOR UPDATE
)
{cancelled}

-- name: cancelled
-- Final at once: a later result finds no running row. worker_id stays until the worker reports that the handler has
-- stopped, so that a worker that missed the announcement finds the row by polling.
UPDATE tasks AS t
SET state = 'cancelled', completed_at = now(), updated_at = now(), deadline_at = NULL,
    error = coalesce(%(reason)s, t.error)
FROM live WHERE t.id = live.id
RETURNING t.id, t.lease_no, t.worker_id IS NOT NULL AS is_held, t.callback_url IS NOT NULL AS has_callback

-- name: forget_answers
DELETE FROM answered_keys k WHERE k.task_id = %(id)s::uuid

-- name: purge
DELETE FROM tasks AS t WHERE t.id = %(id)s::uuid AND {within_reach} RETURNING {columns}

-- name: retry
UPDATE tasks AS t SET {as_new} WHERE t.id = %(id)s::uuid AND t.state IN ('failed', 'cancelled') AND {within_reach}
RETURNING {columns}

-- name: retry_many
-- Locks as cancel_many does.
WITH ended AS MATERIALIZED (
    SELECT t.id FROM tasks t
    WHERE t.id = ANY (%(ids)s::uuid[]) AND t.state = ANY (%(states)s::text[]) AND {within_reach}
    ORDER BY t.id FOR UPDATE
)
UPDATE tasks AS t SET {as_new} FROM ended WHERE t.id = ended.id

-- name: as_new
-- All attempts again; the errors of earlier ones stay.
state = 'ready', attempts = 0, execute_at = now(), updated_at = now(), started_at = NULL, completed_at = NULL,
worker_id = NULL, deadline_at = NULL, result = NULL, error = NULL, progress_percent = 0, progress_message = NULL,
callback_task_id = NULL, suspects = NULL

-- name: announcing
pg_notify('siteworks_tasks', %(announcement)s)

-- name: announce
SELECT {announcing}

-- name: announce_many
-- One statement, however many handlers must stop.
SELECT count(pg_notify('siteworks_tasks', x.announcement)) FROM unnest(%(announcements)s::text[]) AS x(announcement)

-- name: live_types
-- The types that live workers run, and how many workers run each.
SELECT o.task_type, count(*) AS workers FROM workers w CROSS JOIN unnest(w.task_types) AS o(task_type)
WHERE {is_alive} GROUP BY o.task_type

-- name: is_alive
w.heartbeat_at > now() - make_interval(secs => w.lease_seconds)

-- name: turn
-- The order of claims. A waiting task gains a point of priority a minute. All tasks age alike, so their order never
-- changes and the index ix_tasks_ready holds it; no task waits for ever behind more urgent ones.
((r.execute_at AT TIME ZONE 'UTC') - r.priority * interval '1 minute')

-- name: claim
-- One ordered index scan for each type offered, so that a million tasks of a type that this worker does not run cost
-- nothing; then the most urgent of them all. MATERIALIZED: inlined, the planner may repeat the LIMIT and update more
-- rows than wanted. SKIP LOCKED: two claims never wait for each other and never get the same task. The rows found are
-- locked, so they stay in place: ctid saves a second index lookup. A row that changed between the start of the
-- statement and its lock is not found there, and is left for the next claim. A type paused or limited by an operator is
-- left to claim_limited.
WITH offered AS (
    SELECT * FROM unnest(%(types)s::text[], %(timeouts)s::float8[]) AS o(task_type, timeout_seconds)
), due AS MATERIALIZED (
    SELECT c.ctid AS tid, c.turn, o.timeout_seconds
    FROM offered o CROSS JOIN LATERAL (
        SELECT r.ctid, r.id, {turn} AS turn FROM tasks r
        WHERE r.state = 'ready' AND r.task_type = o.task_type
        ORDER BY {turn}, r.id
        LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) c
    WHERE NOT EXISTS (SELECT FROM task_type_controls k WHERE k.name = o.task_type AND {controlled})
    ORDER BY c.turn, c.id LIMIT %(limit)s
)
{start}

-- name: prepare
-- Run first by a connection for claims and completions. It plans the claim once for any values, since planning takes as
-- long as claiming one task. The driver writes $1, $2 … for the parameters, in the order of execute_claim. A plan made
-- for the empty table of a new installation must suit every later table, so the settings leave only the scan of the
-- index, which is in the order of claims. Completions are planned each time: planned for an empty table, one of 1,000
-- tasks among 20,000 was seen to take 2 s.
SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
SET enable_sort = off; SET enable_incremental_sort = off; SET enable_bitmapscan = off;
SET plan_cache_mode = force_generic_plan;
PREPARE claim AS {claim};
PREPARE limited_types AS {limited_types}

-- name: execute_claim
EXECUTE claim(%(types)s, %(timeouts)s, %(limit)s, %(worker_id)s)

-- name: execute_limited_types
EXECUTE limited_types

-- name: start
-- The update of a claim, on the rows in `due`.
UPDATE tasks AS t
SET state = 'running', attempts = t.attempts + 1, lease_no = t.lease_no + 1, worker_id = %(worker_id)s::uuid,
    started_at = now(), updated_at = now(), progress_percent = 0, progress_message = NULL,
    deadline_at = now() + make_interval(secs => coalesce(t.timeout_seconds, due.timeout_seconds))
FROM due WHERE t.ctid = due.tid
RETURNING date_part('epoch', due.turn) AS turn, t.id::text AS id, t.lease_no, t.task_type, t.payload::text AS payload,
          t.attempts, t.max_attempts, coalesce(t.timeout_seconds, due.timeout_seconds)::float8 AS timeout_seconds,
          date_part('epoch', now()) AS claimed_at, date_part('epoch', now() - t.execute_at) AS waited_seconds

-- name: limited_types
SELECT k.name FROM task_type_controls k
WHERE NOT k.paused AND (k.max_running IS NOT NULL OR k.max_running_per_user IS NOT NULL)

-- name: lock_limits
-- Two concurrent claims of a limited type would count the same running tasks, so they run one after the other. This is
-- a separate statement, so that the count in the next one sees what the previous claim has taken. An advisory lock,
-- since a limit declared by the type has no row. Always in one order, so that no two can deadlock. Rescue, completion
-- and hand-back never take it.
SELECT pg_advisory_xact_lock({limits_space}, l.number)
FROM (SELECT DISTINCT hashtext(o.name) AS number FROM unnest(%(types)s::text[]) AS o(name) ORDER BY 1 OFFSET 0) l

-- name: limits_space
-- The first of an advisory lock's two numbers names its purpose; this one is for limits of types.
1952539507

-- name: claim_limited
-- A limit set by an operator overrides the one that the type declares (`most`, `most_per_user`). Running rows are
-- counted each time: a counter could be wrong after a worker dies. `room` is what a type's limit leaves. Under a limit
-- per user, waiting users are found by skipping through ix_tasks_ready_of_user, however many tasks each has, and each
-- adds what that limit leaves; tasks without a user have no such limit, and are sought among the first two thousand.
WITH RECURSIVE offered AS MATERIALIZED (
    SELECT o.task_type, o.timeout_seconds, coalesce(k.max_running, o.most) AS max_running,
           coalesce(k.max_running_per_user, o.most_per_user) AS per_user
    FROM unnest(%(types)s::text[], %(timeouts)s::float8[], %(most)s::int[], %(most_per_user)s::int[])
         AS o(task_type, timeout_seconds, most, most_per_user)
    LEFT JOIN task_type_controls k ON k.name = o.task_type
    WHERE NOT coalesce(k.paused, false)
      AND coalesce(k.max_running, k.max_running_per_user, o.most, o.most_per_user) IS NOT NULL
), running AS MATERIALIZED (
    SELECT a.task_type, a.user_id, count(*) AS many FROM tasks a
    WHERE a.worker_id IS NOT NULL AND a.task_type = ANY (%(types)s::text[]) AND a.state = 'running'
    GROUP BY a.task_type, a.user_id
), free AS MATERIALIZED (
    SELECT o.*, greatest(0, least(%(limit)s, coalesce(
        o.max_running - (SELECT coalesce(sum(a.many), 0) FROM running a WHERE a.task_type = o.task_type), %(limit)s
    )))::int AS room
    FROM offered o
), users AS (
    SELECT f.task_type, (
        SELECT r.user_id FROM tasks r WHERE r.state = 'ready' AND r.user_id IS NOT NULL AND r.task_type = f.task_type
        ORDER BY r.user_id LIMIT 1
    ) AS user_id
    FROM free f WHERE f.per_user IS NOT NULL AND f.room > 0
    UNION ALL
    SELECT u.task_type, (
        SELECT r.user_id FROM tasks r WHERE r.state = 'ready' AND r.user_id IS NOT NULL AND r.task_type = u.task_type
          AND r.user_id > u.user_id ORDER BY r.user_id LIMIT 1
    )
    FROM users u WHERE u.user_id IS NOT NULL
), found AS MATERIALIZED (
    SELECT c.ctid AS tid, c.id, c.turn, f.task_type
    FROM free f CROSS JOIN LATERAL (
        SELECT r.ctid, r.id, {turn} AS turn FROM tasks r
        WHERE r.state = 'ready' AND r.task_type = f.task_type
        ORDER BY {turn}, r.id
        LIMIT f.room FOR UPDATE SKIP LOCKED
    ) c
    WHERE f.per_user IS NULL
    UNION ALL
    SELECT c.ctid, c.id, c.turn, f.task_type
    FROM free f JOIN users u ON u.task_type = f.task_type AND u.user_id IS NOT NULL CROSS JOIN LATERAL (
        SELECT r.ctid, r.id, {turn} AS turn FROM tasks r
        WHERE r.state = 'ready' AND r.user_id IS NOT NULL AND r.task_type = f.task_type AND r.user_id = u.user_id
        ORDER BY {turn}, r.id
        LIMIT greatest(0, least(f.room, f.per_user - coalesce((
            SELECT a.many FROM running a WHERE a.task_type = f.task_type AND a.user_id = u.user_id), 0)))
        FOR UPDATE SKIP LOCKED
    ) c
    UNION ALL
    SELECT c.ctid, c.id, c.turn, f.task_type
    FROM free f CROSS JOIN LATERAL (
        SELECT r.ctid, r.id, {turn} AS turn FROM tasks r
        WHERE r.state = 'ready' AND r.ctid = ANY (ARRAY (
            SELECT n.ctid FROM (
                SELECT r.ctid, r.user_id FROM tasks r WHERE r.state = 'ready' AND r.task_type = f.task_type
                ORDER BY {turn}, r.id LIMIT 2000
            ) n WHERE n.user_id IS NULL LIMIT f.room
        ))
        LIMIT f.room FOR UPDATE SKIP LOCKED
    ) c
    WHERE f.per_user IS NOT NULL
), ranked AS (
    SELECT d.*, row_number() OVER (PARTITION BY d.task_type ORDER BY d.turn, d.id) AS nth FROM found d
), due AS MATERIALIZED (
    SELECT d.tid, d.turn, f.timeout_seconds FROM ranked d JOIN free f ON f.task_type = d.task_type
    WHERE d.nth <= f.room ORDER BY d.turn, d.id LIMIT %(limit)s
)
{start}

-- name: lock_limits_and_claim
-- Begins a transaction, which the caller commits.
BEGIN; {lock_limits}; {claim_limited}

-- name: controls
SELECT k.name, k.paused, k.max_running, k.max_running_per_user FROM task_type_controls k

-- name: control
-- A separate parameter names the fields to set, since null is a value: no limit. Every row costs each claim a little, so
-- there are at most so many, and none that says nothing.
INSERT INTO task_type_controls AS k (name, paused, max_running, max_running_per_user)
SELECT %(name)s, coalesce(%(paused)s, false), %(max_running)s::int, %(max_running_per_user)s::int
WHERE EXISTS (SELECT FROM task_type_controls c WHERE c.name = %(name)s)
   OR (SELECT count(*) FROM task_type_controls) < %(most)s
ON CONFLICT (name) DO UPDATE SET
    paused = CASE WHEN 'paused' = ANY (%(named)s::text[]) THEN excluded.paused ELSE k.paused END,
    max_running = CASE WHEN 'max_running' = ANY (%(named)s::text[]) THEN excluded.max_running ELSE k.max_running END,
    max_running_per_user = CASE WHEN 'max_running_per_user' = ANY (%(named)s::text[])
        THEN excluded.max_running_per_user ELSE k.max_running_per_user END,
    updated_at = now()
RETURNING k.name

-- name: forget_empty_control
DELETE FROM task_type_controls k WHERE k.name = %(name)s AND NOT {controlled}

-- name: forget_control
DELETE FROM task_type_controls k WHERE k.name = %(name)s

-- name: seen_type
-- Whether workers have run it lately, or a schedule or a task that has not ended names it. Stops at the first finding.
-- No index has the tasks for later by type, so only the next ten thousand are looked through.
SELECT FROM (
    SELECT FROM workers w WHERE %(name)s = ANY (w.task_types)
    UNION ALL
    SELECT FROM task_type_controls c WHERE c.name = %(name)s
    UNION ALL
    SELECT FROM schedules s WHERE s.task_type = %(name)s
    UNION ALL
    SELECT FROM tasks r WHERE r.state = 'ready' AND r.task_type = %(name)s
    UNION ALL
    SELECT FROM task_minutes m WHERE m.task_type = %(name)s
    UNION ALL
    SELECT FROM (
        SELECT s.task_type FROM tasks s WHERE s.state = 'scheduled' ORDER BY s.execute_at, s.id LIMIT 10000
    ) AS l WHERE l.task_type = %(name)s
) AS seen LIMIT 1

-- name: controlled
(k.paused OR k.max_running IS NOT NULL OR k.max_running_per_user IS NOT NULL)

-- name: by_id
-- Before statements that write a batch of tasks by id, together with `running` below. Otherwise the planner goes by the
-- share of running tasks at the last ANALYZE, mostly none, and compares the whole table with the whole batch (measured:
-- 88 ms for 500 of 60,000 tasks instead of 4). With these it uses the primary key, whatever the statistics.
SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off

-- name: by_id_briefly
-- Before outcomes and progress: a row that another session keeps locked, such as a transaction left open in psql, must
-- not hold up the others.
{by_id}; SET LOCAL lock_timeout = '500ms'

-- name: locked
-- The leases whose rows another session has locked against writes.
WITH free AS MATERIALIZED (
    SELECT t.id FROM unnest(%(ids)s::uuid[], %(leases)s::int[]) AS x(id, lease_no)
    JOIN tasks t ON t.id = x.id AND t.lease_no = x.lease_no AND t.state = ANY (ARRAY['running', 'cancelled'])
    FOR NO KEY UPDATE OF t SKIP LOCKED
)
SELECT t.id, t.lease_no FROM unnest(%(ids)s::uuid[], %(leases)s::int[]) AS x(id, lease_no)
JOIN tasks t ON t.id = x.id AND t.lease_no = x.lease_no AND t.state = ANY (ARRAY['running', 'cancelled'])
WHERE t.id NOT IN (SELECT f.id FROM free f)

-- name: running
-- The state, hidden from the planner's statistics.
(SELECT 'running')

-- name: lock_leases
-- Before outcomes of several kinds, each written by its own statement: locks all their rows in the order of ids, or a
-- transaction that locks in that order, such as the deletion of a user, could deadlock with this one. Leaves out
-- outdated leases, whose rows a claim would otherwise skip.
SELECT FROM unnest(%(ids)s::uuid[], %(leases)s::int[]) AS x(id, lease_no)
JOIN tasks t ON t.id = x.id AND t.lease_no = x.lease_no AND t.state = ANY (ARRAY['running', 'cancelled'])
ORDER BY t.id FOR UPDATE OF t

-- name: complete
-- Skips tasks with a callback: complete_for_callbacks writes those, in one transaction with the callback's task. So all
-- others, which is nearly all, cost one statement. Nothing is returned, since the number of rows nearly always
-- suffices; RETURNING would cost more than the last condition (docs/decisions/0024).
{completion} AND {no_callback}

-- name: complete_briefly
SET LOCAL lock_timeout = '500ms'; {complete}

-- name: no_callback
-- Written so that the planner takes it for nearly always true. Until the first ANALYZE it assumes that IS NULL is true
-- for one row in two hundred, and then reads the whole table and compares each row with the whole batch.
CASE WHEN t.callback_url IS NULL THEN 1 ELSE 0 END <> 0

-- name: completed_under
-- Which of these were completed under their lease, so by this worker, perhaps in a statement whose answer was lost.
SELECT t.id, t.lease_no FROM unnest(%(ids)s::uuid[], %(leases)s::int[]) AS x(id, lease_no) JOIN tasks t ON t.id = x.id
WHERE t.lease_no = x.lease_no AND t.state = (SELECT 'completed')

-- name: complete_for_callbacks
{completion}
RETURNING t.id::text AS id, t.lease_no, true AS has_ended, t.callback_url IS NOT NULL AS has_callback

-- name: completion
-- The UPDATE itself checks lease_no and state: read earlier, they could be stale. Ids and leases come as array
-- literals, the results as one JSON array, which is the cheapest way to pass five hundred rows (docs/decisions/0021).
UPDATE tasks AS t
SET state = 'completed', result = x.result, error = NULL, progress_percent = 100, completed_at = now(),
    updated_at = now(), worker_id = NULL, deadline_at = NULL
FROM ROWS FROM (
    unnest(%(ids)s::uuid[]), unnest(%(leases)s::int[]), jsonb_array_elements(%(results)s::jsonb)
) AS x(id, lease_no, result)
WHERE t.id = x.id AND t.lease_no = x.lease_no AND t.state = {running}

-- name: fail
-- With a time, the next attempt waits for it; without, the task has failed for good. The oldest errors beyond the
-- number kept are dropped. Not every error has a trace. With several suspects the attempt does not count; an attempt
-- that ended by itself clears its task of suspicion.
UPDATE tasks AS t
SET state = CASE WHEN x.retry_at IS NULL THEN 'failed' ELSE 'scheduled' END,
    execute_at = coalesce(x.retry_at, t.execute_at),
    error = x.message,
    errors = CASE WHEN jsonb_array_length(t.errors) >= %(kept)s THEN t.errors - 0 ELSE t.errors END
             || jsonb_strip_nulls(jsonb_build_object(
                    'attempt', t.attempts, 'type', x.type, 'message', x.message,
                    'failed_at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                    -- The worker whose attempt it was, not the rescuer that writes it.
                    'worker', coalesce((SELECT w.name FROM workers w WHERE w.id = t.worker_id), %(worker)s::text),
                    'trace', x.trace)),
    attempts = t.attempts - CASE WHEN x.suspects > 1 THEN 1 ELSE 0 END, suspects = x.suspects,
    completed_at = CASE WHEN x.retry_at IS NULL THEN now() END,
    started_at = CASE WHEN x.retry_at IS NULL THEN t.started_at END,
    updated_at = now(), worker_id = NULL, deadline_at = NULL
FROM unnest(%(ids)s::uuid[], %(leases)s::int[], %(types)s::text[], %(messages)s::text[], %(traces)s::text[],
            %(retries)s::timestamptz[], %(suspects)s::int[])
     AS x(id, lease_no, type, message, trace, retry_at, suspects)
WHERE t.id = x.id AND t.lease_no = x.lease_no AND t.state = {running}
RETURNING t.id, t.lease_no, x.retry_at IS NULL AS has_ended, t.callback_url IS NOT NULL AS has_callback

-- name: ended
-- The data of events and callbacks about tasks that have just ended. Only callbacks use the result, unless it is large.
SELECT t.id, t.task_type, t.title, t.user_id, t.state AS status, t.attempts,
       CASE WHEN t.callback_url IS NOT NULL AND length(t.result::text) <= %(largest)s THEN t.result::text END AS result,
       t.error, t.created_at, t.started_at, t.completed_at, t.callback_url
FROM tasks t WHERE t.id = ANY (%(ids)s::uuid[]) ORDER BY t.id

-- name: link_callbacks
-- Changes no indexed column, so the row stays on its page (HOT).
UPDATE tasks AS t SET callback_task_id = x.callback_task_id
FROM unnest(%(ids)s::uuid[], %(callbacks)s::uuid[]) AS x(id, callback_task_id) WHERE t.id = x.id

-- name: hand_back
-- Through no fault of the task: ready at once, and the attempt does not count.
UPDATE tasks AS t
SET state = 'ready', attempts = t.attempts - 1, started_at = NULL, updated_at = now(), worker_id = NULL,
    deadline_at = NULL, progress_percent = 0, progress_message = NULL
FROM unnest(%(ids)s::uuid[], %(leases)s::int[]) AS x(id, lease_no)
WHERE t.id = x.id AND t.lease_no = x.lease_no AND t.state = {running}
RETURNING t.id, t.lease_no

-- name: stopped_after_cancel
UPDATE tasks AS t SET worker_id = NULL
FROM unnest(%(ids)s::uuid[], %(leases)s::int[]) AS x(id, lease_no)
WHERE t.id = x.id AND t.lease_no = x.lease_no AND t.state = (SELECT 'cancelled')
RETURNING t.id, t.lease_no

-- name: write_progress
UPDATE tasks AS t SET progress_percent = x.percent, progress_message = x.message, updated_at = now()
FROM unnest(%(ids)s::uuid[], %(leases)s::int[], %(percents)s::int[], %(messages)s::text[])
     AS x(id, lease_no, percent, message)
WHERE t.id = x.id AND t.lease_no = x.lease_no AND t.state = {running}

-- name: promote
-- By ctid, as in claim. SKIP LOCKED, because two leaders may promote at once.
WITH due AS MATERIALIZED (
    SELECT s.ctid AS tid FROM tasks s WHERE s.state = 'scheduled' AND s.execute_at <= now() AND s.suspects IS NULL
    ORDER BY s.execute_at, s.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE tasks AS t SET state = 'ready' FROM due WHERE t.ctid = due.tid

-- name: promote_suspects
-- Tasks of which one may have killed its worker become ready a few at a time: a third as many as there were suspects
-- the last time, counting running ones that were among as many or fewer. So the next worker to die holds fewer of them,
-- until the culprit is alone. Each number of suspects has its own share, or a few tasks would hold up many. A task
-- whose type is paused or has no worker stays scheduled and does not count; nor does one that has run for half a minute
-- without killing its worker, or long tasks would wait for each other for hours.
WITH runnable AS MATERIALIZED (
    SELECT l.task_type FROM ({live_types}) AS l(task_type, workers)
    WHERE NOT EXISTS (SELECT FROM task_type_controls c WHERE c.name = l.task_type AND c.paused)
), known AS MATERIALIZED (
    SELECT k.ctid AS tid, k.id, k.suspects, k.execute_at, k.state = 'scheduled' AS waits,
           (k.suspects + 2) / 3 AS most
    FROM tasks k
    WHERE k.suspects IS NOT NULL AND k.state IN ('scheduled', 'ready', 'running')
      AND (k.state <> 'scheduled' OR k.execute_at <= now())
      AND CASE k.state WHEN 'running' THEN k.started_at > now() - interval '30 seconds'
                       ELSE k.task_type IN (SELECT r.task_type FROM runnable r) END
), in_turn AS (
    SELECT n.*, row_number() OVER (PARTITION BY n.suspects, n.waits ORDER BY n.execute_at, n.id) AS of_its_number
    FROM known n
), ranked AS (
    SELECT i.*, row_number() OVER (ORDER BY i.suspects, i.waits, i.execute_at, i.id) AS nth
    FROM in_turn i WHERE NOT i.waits OR i.of_its_number <= i.most
), due AS MATERIALIZED (
    SELECT t.ctid AS tid FROM ranked r JOIN tasks t ON t.ctid = r.tid
    WHERE r.waits AND r.nth <= r.most AND t.state = 'scheduled'
    ORDER BY t.id LIMIT %(limit)s FOR UPDATE OF t SKIP LOCKED
)
UPDATE tasks AS t SET state = 'ready' FROM due WHERE t.ctid = due.tid

-- name: next_scheduled
-- Without suspects, which wait for each other and are checked at every promotion, and without tasks that are due but
-- were not promoted, because another session has them locked, perhaps for long.
SELECT extract(epoch FROM min(s.execute_at) - clock_timestamp())::float8 FROM tasks s
WHERE s.state = 'scheduled' AND s.suspects IS NULL AND s.execute_at > now()

-- name: beat
INSERT INTO workers AS w (id, name, task_types, lease_seconds)
VALUES (%(id)s::uuid, %(name)s, %(task_types)s::text[], %(lease_seconds)s)
ON CONFLICT (id) DO UPDATE SET heartbeat_at = now()

-- name: report_load
UPDATE workers AS w SET slots = %(slots)s, busy = %(busy)s, threads = %(threads)s, busy_threads = %(busy_threads)s
WHERE w.id = %(id)s::uuid

-- name: add_counts
-- Adds a worker's counts since its last report to the present minute. Each worker has its own rows, so that none waits
-- for another; the figures of all workers are a few rows, however many tasks there are.
INSERT INTO task_minutes AS m (minute, worker_id, task_type, completed, failed, retried, waits, runs)
SELECT date_trunc('minute', now()), %(worker_id)s::uuid, x.task_type, x.completed, x.failed, x.retried,
       x.waits::int[], x.runs::int[]
FROM unnest(%(types)s::text[], %(completed)s::int[], %(failed)s::int[], %(retried)s::int[], %(waits)s::text[],
            %(runs)s::text[]) AS x(task_type, completed, failed, retried, waits, runs)
ON CONFLICT (minute, worker_id, task_type) DO UPDATE SET
    completed = m.completed + excluded.completed, failed = m.failed + excluded.failed,
    retried = m.retried + excluded.retried,
    waits = ARRAY(SELECT s.a + s.b FROM unnest(m.waits, excluded.waits) WITH ORDINALITY AS s(a, b, bucket)
                  ORDER BY s.bucket),
    runs = ARRAY(SELECT s.a + s.b FROM unnest(m.runs, excluded.runs) WITH ORDINALITY AS s(a, b, bucket)
                 ORDER BY s.bucket)

-- name: held_by
SELECT t.id, t.lease_no FROM tasks t WHERE t.worker_id = %(worker_id)s::uuid AND t.state = 'running'

-- name: cancelled_under
-- The state is written so that the planner does not take the index of all cancelled tasks.
SELECT t.id, t.lease_no FROM tasks t WHERE t.worker_id = %(worker_id)s::uuid AND t.state = (SELECT 'cancelled')

-- name: lost
-- Running tasks whose worker has been silent for its own lease time or has no row, and those whose worker is alive but
-- let the deadline pass. A worker is judged by its heartbeat, never by how long a task has run, and none counts as
-- silent until PostgreSQL itself has been up for a lease. SKIP LOCKED skips a row that is just being completed; a row
-- locked here is checked again by its worker's completion. worker_id is never null here; saying so lets the planner use
-- ix_tasks_worker. `company` counts this task and those of the same worker that had as many suspects or fewer.
WITH lost AS MATERIALIZED (
SELECT t.id, t.lease_no, t.attempts, t.max_attempts,
       coalesce(w.heartbeat_at >= now() - make_interval(secs => w.lease_seconds), false) AS overdue,
       t.task_type, t.worker_id, t.suspects
FROM tasks t LEFT JOIN workers w ON w.id = t.worker_id
WHERE t.state = 'running' AND t.worker_id IS NOT NULL
  AND pg_postmaster_start_time() < now() - make_interval(secs => coalesce(w.lease_seconds, %(lease_seconds)s))
  AND (w.id IS NULL
       OR w.heartbeat_at < now() - make_interval(secs => w.lease_seconds)
       OR t.deadline_at < now() - make_interval(secs => %(slack_seconds)s))
ORDER BY t.id LIMIT %(limit)s FOR UPDATE OF t SKIP LOCKED
), held AS MATERIALIZED (
    SELECT h.worker_id, h.suspects, count(*) AS many FROM tasks h
    WHERE h.state = 'running' AND h.worker_id = ANY (ARRAY (SELECT l.worker_id FROM lost l))
    GROUP BY h.worker_id, h.suspects
)
SELECT l.id, l.lease_no, l.attempts, l.max_attempts, l.overdue, now() AS lost_at, l.task_type, l.worker_id, l.suspects,
       (SELECT sum(h.many) FROM held h
        WHERE h.worker_id = l.worker_id AND (l.suspects IS NULL OR h.suspects <= l.suspects))::int AS company
FROM lost l ORDER BY l.id

-- name: forget_worker
-- A worker that still holds tasks is left to the rescuer.
DELETE FROM workers w WHERE w.id = %(worker_id)s::uuid
  AND NOT EXISTS (SELECT FROM tasks t WHERE t.worker_id = w.id AND t.state = 'running')

-- name: forget_dead_workers
-- SKIP LOCKED, so that the rescuer never waits.
DELETE FROM workers w
WHERE w.id IN (
    SELECT d.id FROM workers d WHERE d.heartbeat_at < now() - make_interval(secs => greatest(d.lease_seconds * 10, 600))
    FOR UPDATE SKIP LOCKED)
  AND NOT EXISTS (SELECT FROM tasks t WHERE t.worker_id = w.id AND t.state = 'running')

-- name: watched
-- The watched tasks that have changed, in one statement for all watchers: `seen` is the last known updated_at of each,
-- NULL at first. Compared for difference, because a transaction that waited for a row lock may carry an earlier time. A
-- task that is gone, or beyond its watcher's reach, has only its id.
SELECT w.id, w.reach, t.state, t.task_type, t.attempts, t.max_attempts, t.execute_at, t.progress_percent, t.progress_message,
       CASE WHEN t.state = 'completed' AND octet_length(t.result::text) <= %(largest)s THEN t.result::text END AS result,
       t.error, t.created_at, t.updated_at, t.started_at, t.completed_at,
       extract(epoch FROM coalesce(t.completed_at, now()) - t.started_at)::float8 AS duration
FROM unnest(%(ids)s::uuid[], %(seen)s::timestamptz[], %(reach)s::uuid[]) AS w(id, seen, reach)
LEFT JOIN tasks t ON t.id = w.id AND (w.reach IS NULL OR t.user_id = w.reach)
WHERE t.updated_at IS DISTINCT FROM w.seen OR t.id IS NULL
