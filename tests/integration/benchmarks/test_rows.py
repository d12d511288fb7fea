"""The rows of the stacks fit the tables, and a run leaves nothing behind."""

from __future__ import annotations

import psycopg2
import pytest

from benchmarks.system.rows import PARTS, fill, reset, row_id

_COUNT = 600
_CHANGES = {
    "users": "UPDATE users SET name = 'other', updated_at = now() WHERE id = %s",
    "orders": "UPDATE orders SET total_amount = 1, updated_at = now() WHERE id = %s",
    "tasks": "INSERT INTO tasks (id, state, task_type, payload, priority, max_attempts, execute_at)"
    " SELECT gen_random_uuid(), 'ready', 'noop', '{}', 50, 3, now() FROM tasks WHERE id = %s",
}


@pytest.mark.parametrize("part", PARTS)
def test_the_rows_of_a_benchmark_fit_the_tables_and_come_back_after_a_run(part, request):
    url = request.getfixturevalue(f"{part}_database").superuser_url
    connection = psycopg2.connect(url.replace("+psycopg2", "", 1))
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            fill(cursor, part, _COUNT)
            cursor.execute(f"SELECT * FROM {part} ORDER BY id")
            before = cursor.fetchall()
            assert len(before) == _COUNT
            cursor.execute(_CHANGES[part], (row_id(1),))
            reset(cursor, part, _COUNT)
            cursor.execute(f"SELECT * FROM {part} ORDER BY id")
            assert cursor.fetchall() == before
    finally:
        connection.close()
