"""Processes of a benchmark: started on their core, watched, and ended with everything they started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_START_SECONDS = 20.0
_STOP_SECONDS = 8.0
_LOOKS = 100
_TICKS_IN_A_SECOND = os.sysconf("SC_CLK_TCK")


def cores() -> tuple[frozenset[int], frozenset[int]] | None:
    """One core for the load and its upstream, another for what is measured; None where that cannot be had."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    mine = sorted(os.sched_getaffinity(0))
    return (frozenset(mine[:1]), frozenset(mine[1:2])) if len(mine) > 1 else None


@contextlib.contextmanager
def pinned(core: frozenset[int] | None) -> Iterator[None]:
    """What is started meanwhile stays on this core; with None, anywhere."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, core)  # a child takes it over
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Process:
    """A child in a process group of its own, started when it listens on `port`, or at once where that is None.

    Its output goes to a file, which tells why it did not start.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        port: int | None,
        output: Path,
        on: frozenset[int] | None,
        cwd: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._output = output
        self._name = Path(command[0]).name
        with pinned(on), output.open("ab") as file:
            self._child = subprocess.Popen(
                command,
                cwd=cwd,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                # Not a session, within which alone a priority counts on Linux (sched(7)): an instance has one, too.
                process_group=0,
            )
        if port is None:
            return
        try:
            self._await_port(port)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child.poll() is None

    def resident_mib(self) -> float | None:
        """Resident memory of the largest process of the group's tree, in MiB; None where it cannot be read."""
        return resident_mib(self._child.pid)

    def cpu_seconds(self) -> float:
        """CPU time of the group's tree."""
        return cpu_seconds(self._child.pid)

    def stop(self) -> None:
        """End the group; harmless twice."""
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

    def _await_port(self, port: int) -> None:
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            if self._child.poll() is not None:
                break
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        said = self._output.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self._name} does not listen on port {port}:\n{said}")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all that it started, also of those that have ended; 0 if it cannot be read itself.

    Raises RuntimeError if its processes come and go too fast to be looked at.
    """
    for _ in range(_LOOKS):
        try:
            tree = _tree(pid)
            ticks = sum(_ticks(one) for one in tree)
            # The time of one that ended meanwhile has moved to its parent: it may count twice, or not at all.
            if _tree(pid) == tree:
                return ticks / _TICKS_IN_A_SECOND
        except OSError:
            if not Path(f"/proc/{pid}/stat").exists():
                return 0.0
    raise RuntimeError(f"the processes of {pid} come and go too fast to tell their CPU time")


def resident_mib(pid: int) -> float | None:
    """Resident memory of the largest of a process and all that it started, in MiB; None where it cannot be read."""
    try:
        return max(_resident_kib(one) for one in _tree(pid)) / 1024
    except (OSError, ValueError):
        return None


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # utime and stime, and those of children that have ended and were waited for (proc_pid_stat(5)).
    return sum(int(field) for field in fields[11:15])


def _tree(pid: int) -> list[int]:
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            found += _tree(int(child))
    return found


def _resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ValueError("no VmRSS")
