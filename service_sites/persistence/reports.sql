-- Reports over work items. Each statement `X_counted` gives one row for each item that a report counts, with the key of
-- the row that it is counted in and a column for each figure; persistence/reports.py counts them, or lists the items of
-- one figure, so that both are of the same rows. It fills in {key}; {open}, the states of open items; {late}, whether an
-- item is overdue; and {shown}, whether a customer sees it.
--
-- What happened is known from history: the state before and after, and the organisation and dates as they were then. A
-- day begins at the first moment that has its date at the site. Items that are void now are in no rate.

-- name: scope
-- The sites on which the caller may see the report; for a contractor only what is their organisation's.
scope AS MATERIALIZED (
    SELECT s.id, s.time_zone, CAST(timezone(s.time_zone, CAST(:now AS timestamptz)) AS date) AS today, m.role,
           CASE WHEN m.role = 'contractor' THEN m.organisation END AS organisation
    FROM sites s LEFT JOIN memberships m ON m.site_id = s.id AND m.user_id = CAST(:reach AS uuid)
    WHERE (CAST(:reach AS uuid) IS NULL OR m.role = ANY (CAST(:may AS text[])))
      AND (CAST(:of_site AS uuid) IS NULL OR s.id = CAST(:of_site AS uuid))
)

-- name: scope_of_report
-- For the use case: the sites, whatever the caller is on them.
SELECT s.id, s.key, s.name, m.role, CAST(timezone(s.time_zone, CAST(:now AS timestamptz)) AS date) AS today
FROM sites s LEFT JOIN memberships m ON m.site_id = s.id AND m.user_id = CAST(:reach AS uuid)
WHERE (CAST(:reach AS uuid) IS NULL OR m.user_id IS NOT NULL)
  AND (CAST(:of_site AS uuid) IS NULL OR s.id = CAST(:of_site AS uuid))
ORDER BY s.key

-- name: paths
-- Every location with what holds it.
paths AS (
    SELECT l.id, l.site_id, ARRAY[CAST(l.id AS text)] AS ids, ARRAY[l.name] AS names, ARRAY[l.position] AS places
    FROM locations l JOIN scope ON scope.id = l.site_id WHERE l.parent_id IS NULL
    UNION ALL
    SELECT l.id, l.site_id, paths.ids || CAST(l.id AS text), paths.names || l.name, paths.places || l.position
    FROM paths JOIN locations l ON l.site_id = paths.site_id AND l.parent_id = paths.id
)

-- name: places
WITH RECURSIVE {scope}, {paths}
SELECT paths.site_id, paths.ids, paths.names FROM paths JOIN sites s ON s.id = paths.site_id
ORDER BY s.key, paths.places, paths.names

-- name: member_names
WITH {scope}
SELECT DISTINCT ON (m.user_id) CAST(m.user_id AS text) AS id, m.name
FROM memberships m JOIN scope ON scope.id = m.site_id ORDER BY m.user_id, m.updated_at DESC

-- name: below
-- In a location, or in one that it holds.
CASE WHEN :row = '' THEN key IS NULL
     ELSE key IN (WITH RECURSIVE {scope}, {paths} SELECT paths.id FROM paths WHERE :row = ANY (paths.ids)) END

-- name: midnights
-- When days begin. Where the hour of midnight comes twice, PostgreSQL takes the second.
midnights AS MATERIALIZED (
    SELECT scope.id, d.day, scope.organisation,
           m.at - CASE WHEN CAST(timezone(scope.time_zone, m.at - interval '1 hour') AS date) = d.day
                       THEN interval '1 hour' ELSE interval '0' END AS at
    FROM scope CROSS JOIN unnest(CAST(:days AS date[])) AS d(day)
    CROSS JOIN LATERAL (SELECT timezone(scope.time_zone, CAST(d.day AS timestamp)) AS at) m
)

-- name: period
-- From the beginning of the first of some days to that of the last; `starts` are all, and of each `weeks` and `months`
-- say in which it is. To look for a moment among these takes a quarter of the time that to reckon with its zone takes.
{midnights}, period AS MATERIALIZED (
    SELECT scope.id, scope.organisation, scope.time_zone, scope.today, min(midnights.at) AS begins, max(midnights.at) AS ends,
           array_agg(midnights.at ORDER BY midnights.day) AS starts,
           array_agg(CAST(date_trunc('week', midnights.day) AS date) ORDER BY midnights.day) AS weeks,
           array_agg(CAST(date_trunc('month', midnights.day) AS date) ORDER BY midnights.day) AS months
    FROM scope JOIN midnights ON midnights.id = scope.id
    GROUP BY scope.id, scope.organisation, scope.time_zone, scope.today
)

-- name: in_period
-- In two parts: the first, with a day to spare, tells the planner how many rows to expect. CASE, because it expects too
-- few of two comparisons with what it does not know.
h.at >= CAST(CAST(:first AS date) AS timestamptz) - interval '1 day'
AND h.at < CAST(CAST(:behind AS date) AS timestamptz) + interval '1 day'
AND CASE WHEN h.at >= period.begins THEN h.at < period.ends ELSE false END

-- name: is_opening
-- Whether an open item comes or goes, as in ix_history_openings.
coalesce(h.from_state IN {open}, false) <> coalesce(h.to_state IN {open}, false)

-- name: is_closing
-- Whether an item is closed or reopened, as in ix_history_closings.
{is_opening} AND (h.to_state = 'closed' OR h.from_state = 'closed')

-- name: is_report
-- Whether an item is reported done or returned, as in ix_history_reports.
h.from_state IS DISTINCT FROM h.to_state AND h.to_state IN ('ready', 'returned')

-- name: theirs
CASE WHEN scope.organisation IS NULL THEN true ELSE work_items.organisation = nullif(scope.organisation, '') END

-- name: items
FROM scope JOIN work_items ON work_items.site_id = scope.id AND work_items.state <> 'draft'
AND {theirs}

-- name: item_key_site
work_items.site_id

-- name: item_key_organisation
work_items.organisation

-- name: item_key_assignee
work_items.assignee_id

-- name: item_key_week
CAST(CAST(date_trunc('week', timezone(seen.time_zone, moment.at)) AS date) AS text)

-- name: item_key_month
CAST(CAST(date_trunc('month', timezone(seen.time_zone, moment.at)) AS date) AS text)

-- name: item_key_severity
coalesce(work_items.severity, '')

-- name: item_key_type
work_items.type

-- name: item_key_root_cause
work_items.root_cause

-- name: item_key_location
work_items.location_id

-- name: turn_key_site
period.id

-- name: turn_key_organisation
h.organisation

-- name: turn_key_resolution
h.resolution

-- name: turn_key_week
period.weeks[width_bucket(h.at, period.starts)]

-- name: turn_key_month
period.months[width_bucket(h.at, period.starts)]

-- name: contractors_counted
counted AS (
    SELECT work_items.id AS item_id, {key} AS key, true AS open, {late} AS overdue,
           work_items.state = 'ready' AS awaiting_us
    {items} AND work_items.state IN {open}
)

-- name: ageing_counted
aged AS (
    SELECT work_items.id AS item_id, {key} AS key,
           scope.today - CAST(timezone(scope.time_zone, work_items.submitted_at) AS date) AS days
    {items} AND work_items.state IN {open}
), counted AS (
    SELECT item_id, key, days <= 7 AS days_0_7, days BETWEEN 8 AND 14 AS days_8_14, days BETWEEN 15 AND 30 AS days_15_30,
           days > 30 AS days_over_30
    FROM aged
)

-- name: counts_counted
{period}, counted AS (
    SELECT work_items.id AS item_id, {key} AS key, true AS items, work_items.state IN {open} AS open,
           {late} AS overdue, work_items.state = 'closed' AS closed
    FROM period AS scope JOIN work_items ON work_items.site_id = scope.id AND {theirs}
    WHERE work_items.state NOT IN ('draft', 'void')
      AND work_items.submitted_at >= scope.begins AND work_items.submitted_at < scope.ends
)

-- name: shown_items
FROM scope JOIN work_items ON work_items.site_id = scope.id
WHERE work_items.state <> 'void' AND CASE WHEN scope.role = 'customer' THEN {shown}
      ELSE work_items.visible_to_customer AND work_items.state <> 'draft' END

-- name: progress_counted
counted AS (
    SELECT work_items.id AS item_id, {key} AS key, true AS items, work_items.state = 'closed' AS closed
    {shown_items}
)

-- name: progress_over_time_counted
-- Each item in the row of its submission and in that of its close, and (without a key) once in the total.
seen AS (
    SELECT work_items.id AS item_id, scope.time_zone, coalesce(work_items.submitted_at, work_items.created_at) AS began,
           work_items.closed_at AS ended
    {shown_items}
), counted AS (
    SELECT seen.item_id, {key} AS key, moment.items, moment.closed
    FROM seen CROSS JOIN LATERAL (VALUES (seen.began, true, false), (seen.ended, false, true)) AS moment(at, items, closed)
    WHERE moment.at IS NOT NULL
    UNION ALL
    SELECT item_id, NULL, true, ended IS NOT NULL FROM seen
)

-- name: closings
-- What was closed when the period ended and had been closed last in it: a reopened item counts once it is closed again.
{period}, last AS (
    SELECT DISTINCT ON (h.item_id) h.item_id, {key} AS key, h.to_state = 'closed' AND {of_theirs} AS closed, h.at,
           h.due_on, h.original_due_on, h.contractor_seconds, period.organisation AS theirs,
           CAST(timezone(period.time_zone, h.at) AS date) AS day
    FROM period JOIN history h ON h.site_id = period.id AND {in_period}
    WHERE {is_closing}
    ORDER BY h.item_id, h.seq DESC
), closings AS (
    SELECT * FROM last WHERE closed
)

-- name: on_time_counted
{closings}, counted AS (
    SELECT item_id, {counted_key} AS key, closed, closings.original_due_on IS NOT NULL AS with_original_date,
           day <= closings.original_due_on AS by_original_date, closings.due_on IS NOT NULL AS with_final_date,
           day <= closings.due_on AS by_final_date
    FROM closings {of_items}
)

-- name: of_items
-- ix_work_items_reports has all of it.
JOIN work_items ON work_items.id = item_id AND work_items.state <> 'void' AND (theirs IS NULL OR theirs = work_items.organisation)

-- name: time_to_close_counted
{closings}, counted AS (
    SELECT item_id, {counted_key} AS key, true AS closed,
           date_part('epoch', closings.at - work_items.submitted_at) / 86400 AS days,
           date_part('epoch', work_items.first_closed_at - work_items.submitted_at) / 86400 AS first_days,
           contractor_seconds / 86400 AS contractor_days
    FROM closings {of_items}
)

-- name: time_to_close_measured
percentile_cont(CAST('{0.5,0.9}' AS float8[])) WITHIN GROUP (ORDER BY days) AS days,
percentile_cont(CAST('{0.5,0.9}' AS float8[])) WITHIN GROUP (ORDER BY first_days) AS first_days,
percentile_cont(CAST('{0.5,0.9}' AS float8[])) WITHIN GROUP (ORDER BY contractor_days) AS contractor_days

-- name: returns_counted
-- Each item once in each row and, where it may be in several, (without a key) once in the total.
{period}, turns AS (
    SELECT h.item_id, {key} AS key, CASE h.to_state WHEN 'ready' THEN 1 ELSE 2 END AS turn
    FROM period JOIN history h ON h.site_id = period.id AND {in_period}
    WHERE {is_report} AND {of_theirs}
    UNION ALL
    SELECT h.item_id, {key}, CASE h.to_state WHEN 'closed' THEN 4 ELSE 8 END
    FROM period JOIN history h ON h.site_id = period.id AND {in_period}
    WHERE {is_closing} AND {of_theirs}
), grouped AS (
    SELECT item_id, key, bit_or(turn) AS turns FROM turns GROUP BY item_id, key
), kept AS MATERIALIZED (
    SELECT * FROM grouped
    WHERE NOT EXISTS (SELECT FROM work_items WHERE work_items.id = item_id AND work_items.state = 'void')
      AND (NOT EXISTS (SELECT FROM scope WHERE organisation IS NOT NULL)
           OR EXISTS (SELECT {items} WHERE work_items.id = item_id))
), counted AS (
    SELECT item_id, key, turns & 1 > 0 AS reported_done, turns & 2 > 0 AS returned, turns & 4 > 0 AS closed,
           turns & 8 > 0 AS reopened
    FROM (SELECT * FROM kept {and_total}) whole
)

-- name: and_in_total
UNION ALL SELECT item_id, NULL, bit_or(turns) FROM kept GROUP BY item_id

-- name: of_theirs
-- What happened while the organisation was responsible.
CASE WHEN period.organisation IS NULL THEN true ELSE h.organisation = nullif(period.organisation, '') END

-- name: opened
-- By how many more items are open then.
CASE WHEN h.to_state IN {open} THEN 1 ELSE -1 END

-- name: burndown
-- How the number of open items changed by the end of each day, from the beginning on; `days` are those that follow.
WITH {scope}, {midnights}, ends AS (
    SELECT id, organisation, array_agg(at ORDER BY day) AS moments FROM midnights GROUP BY id, organisation
), changed AS (
    SELECT width_bucket(h.at, ends.moments) AS number, sum({opened}) AS change
    FROM ends JOIN history h ON h.site_id = ends.id {and_theirs}
    WHERE {is_opening} GROUP BY 1
)
SELECT number, CAST(change AS int) AS change FROM changed ORDER BY number

-- name: and_theirs_alone
JOIN work_items ON work_items.id = h.item_id AND work_items.site_id = ends.id
AND (ends.organisation IS NULL OR work_items.organisation = nullif(ends.organisation, ''))

-- name: burndown_counted
-- The items that were open when a day began.
{midnights}, counted AS (
    SELECT h.item_id, true AS open
    FROM midnights JOIN history h ON h.site_id = midnights.id AND h.at < midnights.at
    JOIN work_items ON work_items.id = h.item_id
    JOIN scope ON scope.id = midnights.id AND {theirs}
    WHERE {is_opening} GROUP BY h.item_id HAVING sum({opened}) > 0
)
