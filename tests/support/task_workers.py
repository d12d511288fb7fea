"""Worker processes, forked from one that has done the imports: a tenth of a second each instead of two.

Each runs what `python -m service_tasks.cli worker` runs, with its own environment.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path

from tests.support.waiting import eventually

TRAPS = "tests.support.trap_tasks"
SHORT_LEASE = {
    "WORKER_LEASE_SECONDS": "1",
    "WORKER_GRACE_SECONDS": "0.2",
}


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["service_tasks.cli", TRAPS, __name__])
    return context


_FORKS = _context()


def _work(
    log: str,
    folder: str,
    environment: Mapping[str, str],
    arguments: list[str],
    hung_after: float | None,
    leaves_after: float | None,
    poll_seconds: float,
    backoff_seconds: float,
) -> None:
    """In the new process."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    os.environ.clear()
    os.environ.update({**kept, **environment})
    os.chdir(folder)
    from service_tasks import cli
    from service_tasks.domain.retry import RetryPolicy
    from service_tasks.engine import worker

    if hung_after is not None:
        worker._HUNG_SECONDS = hung_after  # type: ignore[misc]
    if leaves_after is not None:
        cli._EXIT_SECONDS = leaves_after  # type: ignore[misc]
    options = {"poll_seconds": poll_seconds, "policy": RetryPolicy(base_seconds=backoff_seconds)}
    cli.WorkerOptions = partial(cli.WorkerOptions, **options)  # type: ignore[misc, assignment]
    raise SystemExit(cli.main(["worker", *arguments]))


class ForkedWorker:
    """One worker process; `types` are the task types it runs."""

    def __init__(
        self,
        folder: Path,
        url: str,
        types: tuple[str, ...],
        *,
        hung_after: float | None = None,
        leaves_after: float | None = None,
        poll_seconds: float = 0.1,
        backoff_seconds: float = 0.05,
        **environment: str,
    ) -> None:
        self._log = folder / f"worker-{time.monotonic_ns()}.log"
        settings = {**SHORT_LEASE, "TASK_MODULES": TRAPS, "TASKS_DATABASE_URL": url, **environment}
        self.process = _FORKS.Process(
            target=_work,
            args=(
                str(self._log), str(folder), settings, ["--types", ",".join(types)],
                hung_after, leaves_after, poll_seconds, backoff_seconds,
            ),
        )  # fmt: skip
        self.process.start()

    @property
    def pid(self) -> int:
        """Of the worker."""
        assert self.process.pid is not None
        return self.process.pid

    def said(self) -> str:
        """Its log."""
        return self._log.read_text(encoding="utf-8") if self._log.exists() else ""

    def heard(self, word: str, *, timeout: float = 20.0) -> None:
        """Wait until its log contains the word."""
        eventually(lambda: word in self.said(), timeout=timeout, what=f"the worker says {word}")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send it a signal; return its exit status once it has ended."""
        self.send(number)
        return self.ended()

    def ended(self, *, timeout: float = 20.0) -> int:
        """Wait until it has ended; return its exit status."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"still there: {self.said()[-2000:]}"
        return self.process.exitcode
