"""The event-stream process, and a client of its streams."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.ports import free_port
from tests.support.raw_http import RawClient
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Event:
    """One event as a browser would dispatch it; `id` is the last id seen so far."""

    name: str
    data: Any
    id: str | None


class Reader:
    """Turns the lines of a stream into events, by the rules of the HTML standard that Siteworks uses."""

    def __init__(self) -> None:
        self.last_id: str | None = None
        self.retry: int | None = None
        self.comments = 0
        self._name = ""
        self._data: list[str] = []

    def line(self, line: str) -> Event | None:
        """Take one line without its end; return the event that an empty line completes."""
        if line.startswith(":"):
            self.comments += 1
        elif line:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                self._name = value
            elif field == "data":
                self._data.append(value)
            elif field == "id":
                self.last_id = value
            elif field == "retry":
                self.retry = int(value)
            else:
                raise AssertionError(f"no field of an event stream: {line!r}")
        elif self._data:
            event = Event(self._name, json.loads("\n".join(self._data)), self.last_id)
            self._name, self._data = "", []
            return event
        return None


class EventStream:
    """One open stream; iteration waits for the next event and ends with the stream."""

    def __init__(
        self,
        port: int,
        task_id: object,
        *,
        last_event_id: str | None = None,
        forwarded_for: str | None = None,
        timeout: float = 15.0,
    ) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        given = {"Last-Event-ID": last_event_id, "X-Forwarded-For": forwarded_for}
        fields = {name: value for name, value in given.items() if value is not None}
        self._connection.request("GET", f"/tasks/{task_id}/events", headers=fields)
        self.answer = self._connection.getresponse()
        self.status = self.answer.status
        self.reader = Reader()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        while line := self.answer.readline():
            event = self.reader.line(line.decode().rstrip("\n"))
            if event is not None:
                return event
        raise StopIteration

    def read_line(self) -> str:
        """The next raw line, comments included."""
        line = self.answer.readline().decode().rstrip("\n")
        self.reader.line(line)
        return line

    def close(self) -> None:
        self.answer.close()
        self._connection.close()


class EventsProcess:
    """gunicorn with the event streams, as in production."""

    def __init__(self, log: Path, database_url: str, *, constants: tuple[str, ...] = (), **settings: str) -> None:
        """`constants` override those of service_tasks.streams.app: `_POLL_SECONDS=0.1`."""
        self._constants = [f"service_tasks.streams.app.{constant}" for constant in constants]
        self.port = free_port()
        self.log = log
        self.client = RawClient(self.port)
        self._environment = {
            **os.environ,
            "TASKS_DATABASE_URL": database_url,
            "EVENTS_BIND": f"127.0.0.1:{self.port}",
            **settings,
        }
        self.process = self._start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def watch(self, task_id: object, **options: Any) -> EventStream:
        return EventStream(self.port, task_id, **options)

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        lines = self.client.get("/metrics").body.decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).rpartition(" ")[2])

    def restart(self) -> None:
        """Stop it and start another on the same port."""
        self.stop()
        self.process = self._start()

    def stop(self) -> int:
        """Tell it to stop, wait until it has, and return its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        program = ["gunicorn", "-c", "service_tasks/streams/gunicorn.conf.py", "service_tasks.streams.asgi:app"]
        command = ["-m", "tests.support.with_constants", *self._constants, *program]
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *command], cwd=CHECKOUT, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )

        def answers() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"the event streams ended: {self.log.read_text()}")
            try:
                return self.client.get("/livez").status == 200
            except OSError:
                return False

        eventually(answers, timeout=20, what="the event streams to answer")
        return process
