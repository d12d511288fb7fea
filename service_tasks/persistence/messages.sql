-- Messages from a broker: the ids seen, and rejected messages. Parameters are in the driver's notation.

-- name: briefly
-- A key in another session's open transaction must not hold up unrelated messages.
SET LOCAL lock_timeout = '500ms'

-- name: clock
SELECT clock_timestamp()

-- name: note
-- The first message with an id gets a row; later ones, in this batch or another, get none. Sorted by key, so that two
-- consumers with the same messages wait for each other but cannot deadlock.
INSERT INTO ingested_messages (source, message_id, task_id)
SELECT x.source, x.message_id, x.task_id
FROM unnest(%(sources)s::text[], %(message_ids)s::text[], %(task_ids)s::uuid[]) AS x(source, message_id, task_id)
ORDER BY x.source, x.message_id
ON CONFLICT (source, message_id) DO NOTHING
RETURNING task_id

-- name: reject
INSERT INTO rejected_messages (id, source, message_id, reason, details, body, size)
VALUES (%(id)s::uuid, %(source)s, %(message_id)s, %(reason)s, %(details)s::jsonb, %(body)s, %(size)s)

-- name: list
SELECT r.id, r.source, r.message_id, r.reason, r.details::text AS details, substr(r.body, 1, %(shown)s) AS body, r.size, r.received_at
FROM rejected_messages r WHERE (%(after)s::uuid IS NULL OR r.id < %(after)s::uuid)
ORDER BY r.id DESC LIMIT %(limit)s OFFSET %(offset)s

-- name: count
SELECT count(*) FROM rejected_messages

-- name: get
SELECT r.id, r.source, r.message_id, r.reason, r.details::text AS details, r.body, r.size, r.received_at
FROM rejected_messages r WHERE r.id = %(id)s::uuid

-- name: forget
DELETE FROM rejected_messages r WHERE r.id = %(id)s::uuid
RETURNING r.id, r.source, r.message_id, r.reason, r.details::text AS details, r.body, r.size, r.received_at

-- name: point_to
-- The message made a task after all: its id now refers to that.
UPDATE ingested_messages SET task_id = %(task_id)s::uuid
WHERE source = %(source)s AND message_id = %(message_id)s
