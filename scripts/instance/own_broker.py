"""A RabbitMQ as a child of this process, for tests, benchmarks and soaks that kill it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from scripts.instance.errors import StartFailed
from scripts.instance.rabbitmq import LocalRabbitMQ

_START_SECONDS = 90.0
_STOP_SECONDS = 30.0
_KEEP_SECONDS = 30.0


class OwnBroker:
    """Can be killed and started again at the same address, with its durable queues. Not thread-safe.

    Uses three ports from `port` on. The caller must call `stop`.
    """

    def __init__(self, folder: Path, port: int, programs: Path) -> None:
        self.folder = folder
        self.server = LocalRabbitMQ(folder, port, programs)
        self.url = self.server.url
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        # Before any other program of RabbitMQ: each of them would start an epmd of its own and leave it running.
        with self._log.open("ab") as log:
            self._names = subprocess.Popen(
                self.server.name_server_command(), env=self.server.environment(), stdout=log, stderr=log
            )
        try:
            self.server.prepare()
        except BaseException:
            self.stop()
            raise

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def start(self) -> None:
        """Return once it takes connections. Raises StartFailed with the end of its log."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.server.command(),
                env=self.server.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + _START_SECONDS
        while not self.server.accepts():
            if self._process.poll() is not None or time.monotonic() > until:
                raise StartFailed(f"RabbitMQ does not start: {self._log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it with SIGKILL, as a power failure would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)
        self._names.kill()
        self._names.wait()

    def wait_until_kept(self) -> None:
        """Return once every quorum queue declared so far would survive `kill`. Raises StartFailed.

        RabbitMQ confirms a declaration about a second before it records where the queue's log is. Killed in between, it
        comes back with a queue that has no leader and confirms nothing (seen with 3.10).
        """
        folder = self.folder / "quorum" / self.server.node_name
        until = time.monotonic() + _KEEP_SECONDS
        while missing := _unwritten(folder):
            if time.monotonic() > until:
                raise StartFailed(f"RabbitMQ does not write down its quorum queues: {', '.join(missing)} in {folder}")
            time.sleep(0.05)

    def cpu_seconds(self) -> float:
        """User and system time that its programs have used so far; 0 where that cannot be read."""
        total = 0
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # gone meanwhile
            # RabbitMQ runs in a session of its own.
            if self._process is not None and int(fields[3]) == self._process.pid:
                total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def _signal_all(self, number: int) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, number)

    def _end(self, number: int) -> None:
        self._signal_all(number)
        process, self._process = self._process, None
        if process is not None:
            process.wait(_STOP_SECONDS)


def _unwritten(folder: Path) -> list[str]:
    """The queues, named by their log folders, that are missing from RabbitMQ's list of queues."""
    listed = (folder / "names.dets").read_bytes()
    return [log.name for log in folder.iterdir() if log.is_dir() and log.name.encode() not in listed]
