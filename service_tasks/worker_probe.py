"""Ask the database whether this host's worker is alive; for the health check of its container.

python -m service_tasks.worker_probe
"""

from __future__ import annotations

import socket
import sys

import psycopg2

from service_tasks.settings import TaskTypeSettings
from servicekit.process.settings import load_or_exit

_PATIENCE_SECONDS = 4
_BEATING = """
    SELECT count(*) FROM workers
    WHERE split_part(name, ':', 1) = %s AND heartbeat_at > now() - make_interval(secs => lease_seconds)
"""


def worker_problem(host: str, database_url: str) -> str | None:
    """Return the problem with a host's workers; None if one of them has sent a heartbeat within its lease."""
    dsn = database_url.replace("postgresql+psycopg2://", "postgresql://", 1)
    try:
        connection = psycopg2.connect(
            dsn,
            connect_timeout=_PATIENCE_SECONDS,
            options=f"-c statement_timeout={_PATIENCE_SECONDS * 1000}",
            application_name="task_worker probe",
        )
        try:
            with connection.cursor() as cursor:
                cursor.execute(_BEATING, (host,))
                row = cursor.fetchone()
        finally:
            connection.close()
    except psycopg2.Error as exc:
        return f"the database does not answer: {exc}"
    return None if row and row[0] else f"no worker of {host} has been heard of within its lease"


if __name__ == "__main__":
    settings = load_or_exit(TaskTypeSettings, "worker_probe")
    sys.exit(worker_problem(socket.gethostname(), settings.tasks_database_url))
