"""The rows that every stack has: as many users, orders and tasks as are asked for, always the same ones."""

from __future__ import annotations

from typing import Any

from servicekit.wire.caseless import comparable

PARTS = ("users", "orders", "tasks")
NAME = "Белов Ярослав"
PRODUCT = "Чокопай"
#: Each of the first users has as many orders.
ORDERS_EACH = 50
#: What a run may change: the oldest rows, which stand on no page that is asked for.
CHANGED = 500
_MANY = 100_000

# The rows were made in 2025, one a second; whatever is newer was made by a run.
_ID = "('00000000-0000-7000-8000-' || lpad(to_hex({}), 12, '0'))::uuid"
_TIME = "timestamptz '2025-01-01T00:00:00Z' + n * interval '1 second'"
_BEGINNING_OF_RUNS = "2026-01-01T00:00:00Z"
_FILL = {
    "users": f"""
    INSERT INTO users (id, email, email_key, name, name_key, roles, created_at, updated_at)
    SELECT {_ID.format("n")}, 'user' || n || '@example.com', 'user' || n || '@example.com', %(name)s || ' ' || n,
           %(name_key)s || ' ' || n, '{{user}}', {_TIME}, {_TIME}
    FROM generate_series(1, %(last)s) n ON CONFLICT DO NOTHING
    """,
    "orders": f"""
    INSERT INTO orders (id, user_id, items, products_key, status, total_amount, created_at, updated_at)
    SELECT {_ID.format("n")}, {_ID.format("(n - 1) %% %(owners)s + 1")},
           jsonb_build_array(
               jsonb_build_object('product', %(product)s || ' ' || n, 'quantity', 10, 'price', 52.00),
               jsonb_build_object('product', %(product)s, 'quantity', 1, 'price', 12.50)),
           %(product_key)s || ' ' || n || chr(10) || %(product_key)s, 'created', 532.50, {_TIME}, {_TIME}
    FROM generate_series(1, %(last)s) n ON CONFLICT DO NOTHING
    """,
    "tasks": f"""
    INSERT INTO tasks (id, state, task_type, title, payload, priority, attempts, max_attempts, execute_at, lease_no,
                       progress_percent, result, created_at, updated_at, started_at, completed_at)
    SELECT {_ID.format("n")}, 'completed', 'noop', 'Task ' || n, '{{"seconds": 4}}', 50, 1, 3, {_TIME}, 1,
           100, '{{"done": true}}', {_TIME}, {_TIME}, {_TIME}, {_TIME} + interval '1 second'
    FROM generate_series(1, %(last)s) n ON CONFLICT DO NOTHING
    """,
}


def row_id(number: int) -> str:
    """The id of the nth row, from 1."""
    return f"00000000-0000-7000-8000-{number:012x}"


def owners(count: int) -> int:
    """How many users have orders, `ORDERS_EACH` of them."""
    return max(count // ORDERS_EACH, 1)


def fill(cursor: Any, part: str, count: int) -> None:
    """Store the first `count` rows of a part, unless they are there."""
    indexes: list[tuple[str, str]] = []
    if count >= _MANY:
        # To make such an index of all rows takes a fraction of the time that it takes row by row.
        cursor.execute("SELECT indexname, indexdef FROM pg_indexes WHERE indexname = %s", (f"ix_{part}_trigrams",))
        indexes = cursor.fetchall()
    for name, _ in indexes:
        cursor.execute(f"DROP INDEX {name}")
    cursor.execute(_FILL[part], _values(count, count))
    for _, definition in indexes:
        cursor.execute("SET maintenance_work_mem = '256MB'")
        cursor.execute(definition)


def reset(cursor: Any, part: str, count: int) -> None:
    """Take back what the runs have made and changed, with its events."""
    cursor.execute("SELECT to_regclass('outbox') IS NOT NULL")
    if cursor.fetchone()[0]:
        cursor.execute("TRUNCATE outbox CASCADE")
    cursor.execute(f"DELETE FROM {part} WHERE updated_at >= %s OR created_at >= %s", (_BEGINNING_OF_RUNS,) * 2)
    cursor.execute(_FILL[part], _values(min(count, CHANGED), count))
    cursor.execute(f"VACUUM ANALYZE {part}")


def _values(last: int, count: int) -> dict[str, Any]:
    return {
        "last": last,
        "owners": owners(count),
        "name": NAME,
        "name_key": comparable(NAME),
        "product": PRODUCT,
        "product_key": comparable(PRODUCT),
    }
