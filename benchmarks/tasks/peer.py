"""One peer: how it is configured, its creator and workers as processes, and its database or queue for one work."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.broker import start_broker
from benchmarks.processes import Process
from benchmarks.report import CHECKOUT
from benchmarks.tasks import meter
from benchmarks.tasks.figures import Size
from benchmarks.tasks.subjects import Server, TaskPlace
from scripts.instance.own_broker import OwnBroker

_ANSWER_SECONDS = 300.0
_LOOK_SECONDS = 0.05
_CREATOR = "benchmarks.tasks.peers.desk"


class PeerFailed(Exception):
    """What a peer did not do, and its last words."""


@dataclass(frozen=True, slots=True)
class Command:
    """A worker's: a program of the peer's environment with its arguments, and variables."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PeerQueue:
    """`quick_fill` and `fill` are as many no-op tasks as it may get done in the time of a run."""

    name: str
    #: the folder of its environment's programs
    programs: Path
    #: its creator; see peers/desk.py
    module: str
    on_rabbitmq: bool
    #: for no-op tasks, one process
    worker: Command
    #: for so many waiting tasks at once
    holder: Callable[[int], Command]
    quick_fill: int
    fill: int
    #: works that it cannot do, and why
    lacks: Mapping[str, str] = field(default_factory=dict)


class Servers:
    """What the peers keep their tasks in; the broker is started for the first who needs it."""

    def __init__(self, folder: Path, postgres: Server) -> None:
        self._folder = folder
        self._broker: OwnBroker | None = None
        self.postgres = postgres

    def broker(self) -> OwnBroker:
        """Raises Missing where there is no RabbitMQ."""
        if self._broker is None:
            self._broker = start_broker(self._folder / "rabbitmq")
        return self._broker

    def stop(self) -> None:
        if self._broker is not None:
            self._broker.stop()


class Desk:
    """The talk with a creator process (peers/desk.py)."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        with log.open("ab") as errors:
            self._child = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ask(self, what: str, **arguments: Any) -> Any:
        """Raises PeerFailed for an error, an end, or no answer for five minutes."""
        self.begin(what, **arguments)
        return self.answer()

    def begin(self, what: str, **arguments: Any) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
            self._child.stdin.flush()
        except OSError as error:
            raise PeerFailed(f"its creator has ended: {last_words(self._log)}") from error

    def answer(self) -> Any:
        try:
            line = self._answers.get(timeout=_ANSWER_SECONDS)
        except queue.Empty as error:
            raise PeerFailed(f"no answer of its creator for {_ANSWER_SECONDS:g} s") from error
        if not line:
            raise PeerFailed(f"its creator has ended: {last_words(self._log)}")
        said = json.loads(line)
        if "error" in said:
            raise PeerFailed(said["error"])
        return said["answer"]

    def stop(self) -> None:
        assert self._child.stdin is not None
        with contextlib.suppress(OSError):
            self._child.stdin.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._reader.join(5)

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self._answers.put(line)
        self._answers.put("")


class Ground:
    """A new database or queue for one work of one peer, with the peer's creator; `close` takes all of it away."""

    def __init__(self, peer: PeerQueue, servers: Servers, folder: Path) -> None:
        self.peer = peer
        self._servers = servers
        self._folder = Path(tempfile.mkdtemp(dir=folder))
        self._log = self._folder / "log"
        self._log.touch()
        self._meters = self._folder / "meters"
        self._meters.mkdir()
        self.place: TaskPlace | None = None
        if peer.on_rabbitmq:
            url = servers.broker().url
        else:
            self.place = servers.postgres.empty_place()
            url = self.place.url.replace("+psycopg2", "", 1)
        self._environment = {
            "PYTHONPATH": str(CHECKOUT),
            "BENCH_URL": url,
            "BENCH_QUEUE": self._folder.name,
            meter.FOLDER: str(self._meters),
        }
        creator = [str(peer.programs / "python"), "-P", "-m", _CREATOR, peer.module]
        self.desk = Desk(creator, self._environment, self._log)
        try:
            self.desk.ask("prepare")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with contextlib.suppress(PeerFailed):
            self.desk.ask("clear")
        self.desk.stop()
        if self.place is not None:
            self._servers.postgres.drop(self.place)
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def workers(self, count: int, command: Command) -> Iterator[list[Process]]:
        program, *arguments = command.arguments
        running: list[Process] = []
        try:
            for _ in range(count):
                running.append(
                    Process(
                        [str(self.peer.programs / program), *arguments],
                        port=None,
                        output=self._log,
                        on=None,
                        cwd=CHECKOUT,
                        environment={**self._environment, **command.environment},
                    )
                )
            yield running
        finally:
            for worker in running:
                worker.stop()

    def reading(self) -> meter.Reading:
        return meter.read_meters(self._meters)

    def forget(self) -> None:
        """Forget what the handlers have told; none may be running."""
        for file in self._meters.iterdir():
            file.unlink()

    def wait(self, done: Callable[[], bool], seconds: float, workers: list[Process]) -> None:
        """Raises PeerFailed when a worker ends first, or when it takes too long."""
        until = time.monotonic() + seconds
        while not done():
            if not all(worker.is_running for worker in workers):
                raise PeerFailed(f"a worker has ended: {last_words(self._log)}")
            if time.monotonic() > until:
                raise PeerFailed(f"not done after {seconds:g} s: {last_words(self._log)}")
            time.sleep(_LOOK_SECONDS)

    def server_cpu(self) -> float:
        """CPU seconds of the processes that serve this peer."""
        if self.place is None:
            return self._servers.broker().cpu_seconds()
        return self.place.backends_cpu("%")

    def settle(self) -> None:
        """After much was created."""
        if self.place is not None:
            self.place.settle()

    def size(self) -> Size | None:
        return None if self.place is None else self.place.size()


def last_words(log: Path) -> str:
    """The last line of a log."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "it left no log"
    return lines[-1][-300:] if lines else "it said nothing"
