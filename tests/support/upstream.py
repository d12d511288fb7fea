"""An upstream that answers with scripted bytes, like a broken, slow or odd service.

    with ScriptedUpstream() as upstream:
        upstream.script(Reply.json({"id": 1}), Pause(0.5), …)

Each request takes the next script; the last one serves all that follow.
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.support.ports import free_port
from tests.support.waiting import eventually


@dataclass(frozen=True)
class Pause:
    """Say nothing for this many seconds."""

    seconds: float


@dataclass(frozen=True)
class Close:
    """Close the connection."""


@dataclass(frozen=True)
class Wait:
    """Say nothing until the event is set (10 seconds at most)."""

    event: threading.Event


Step = bytes | Pause | Close | Wait


@dataclass
class Seen:
    """One request as it arrived."""

    head: bytes
    body: bytes
    connection: int

    @property
    def line(self) -> bytes:
        return self.head.split(b"\r\n", 1)[0]

    @property
    def target(self) -> str:
        return self.line.split(b" ")[1].decode("latin-1")

    def values(self, name: str) -> list[str]:
        """Every value of a field, in order."""
        wanted = name.lower().encode()
        lines = self.head.split(b"\r\n")[1:]
        pairs = (line.partition(b":") for line in lines)
        return [value.strip().decode("latin-1") for key, _, value in pairs if key.lower() == wanted]

    def value(self, name: str) -> str | None:
        values = self.values(name)
        return values[0] if values else None


def answer(
    status: int = 200,
    body: bytes = b"",
    *,
    media_type: str | None = "application/json",
    fields: Sequence[tuple[str, str]] = (),
    length: int | None = None,
) -> bytes:
    """An ordinary answer as bytes; `length` overrides the Content-Length."""
    lines = [f"HTTP/1.1 {status} Some Reason"]
    if media_type is not None:
        lines.append(f"Content-Type: {media_type}")
    lines += [f"{name}: {value}" for name, value in fields]
    if status not in (204, 304):
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


_PROBES = ("/readyz", "/openapi.json")


def good(data: Any, status: int = 200, **options: Any) -> bytes:
    """A successful answer in the envelope."""
    return answer(status, json.dumps({"success": True, "data": data}).encode(), **options)


def bad(status: int, code: str, **options: Any) -> bytes:
    """An error in the envelope."""
    body = {"success": False, "error": {"code": code, "message": "as scripted"}}
    return answer(status, json.dumps(body).encode(), **options)


@dataclass
class ScriptedUpstream:
    """Listens on loopback. A thread per connection, which may carry several requests."""

    port: int = 0
    #: If false, it answers once it has read the head.
    reads_bodies: bool = True
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._scripts: list[list[Step]] = [[good({})]]
        self._by_path: dict[str, list[Step]] = {}
        self._open: set[socket.socket] = set()
        self._accepted = 0
        #: Bytes sent so far.
        self.sent = 0
        self._stopped = False
        self._listener: socket.socket | None = None
        # Not an ephemeral port, which an outgoing connection could get while this server is stopped.
        self.port = self.port or free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def script(self, *steps: Step) -> None:
        """Answer every request with these steps."""
        self.scripts([*steps])

    def scripts(self, *scripts: Sequence[Step]) -> None:
        """Answer the first request with the first script, and so on; the last one stays."""
        with self._lock:
            self._scripts = [list(steps) for steps in scripts]

    def script_path(self, path: str, *steps: Step) -> None:
        """Answer requests for this path (without query) with these steps, whatever the other scripts."""
        with self._lock:
            self._by_path[path] = list(steps)

    def reset(self) -> None:
        """Forget scripts and requests; listen again if stopped."""
        with self._lock:
            self._scripts = [[good({})]]
            self._by_path = {}
            self.seen = []
        if self._stopped:
            self.start()
        self.drop_connections()

    def start(self) -> None:
        """Listen, on the same port as before."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(512)
        self._stopped = False
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        """Refuse new connections and reset the open ones."""
        self._stopped = True
        if self._listener is not None:
            # shutdown wakes the thread in accept(); close alone would not.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.drop_connections()

    def drop_connections(self) -> None:
        """Close all connections, idle ones too."""
        with self._lock:
            open_now, self._open = self._open, set()
        for connection in open_now:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def requests(self, path: str | None = None) -> list[Seen]:
        """The requests so far, without those of probes unless their path is given."""
        with self._lock:
            if path is not None:
                return [seen for seen in self.seen if seen.target.partition("?")[0] == path]
            return [seen for seen in self.seen if seen.target not in _PROBES]

    def wait_for(self, count: int) -> None:
        """Wait until that many requests have arrived."""
        eventually(lambda: len(self.requests()) >= count, what=f"{count} requests to arrive")

    @property
    def open(self) -> int:
        """The number of open connections."""
        with self._lock:
            return len(self._open)

    @property
    def connections(self) -> int:
        """The number of connections accepted so far."""
        return self._accepted

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopped:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if error.errno == errno.EMFILE:
                    # A test keeps this process from opening files for a moment.
                    time.sleep(0.01)
                    continue
                return
            with self._lock:
                self._accepted += 1
                number = self._accepted
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        buffer = bytearray()
        try:
            with connection:
                while True:
                    seen = _read_request(connection, buffer, number, self.reads_bodies)
                    if seen is None or not self._play(connection, seen):
                        return
        except OSError:
            return
        finally:
            with self._lock:
                self._open.discard(connection)

    def _play(self, connection: socket.socket, seen: Seen) -> bool:
        with self._lock:
            self.seen.append(seen)
            path = seen.target.partition("?")[0]
            if path in self._by_path:
                steps = self._by_path[path]
            elif path in _PROBES:
                steps = [good({"status": "ready"})]
            else:
                steps = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        for step in steps:
            if isinstance(step, bytes):
                connection.sendall(step)
                self.sent += len(step)
            elif isinstance(step, Pause):
                # A pause that ends early if the other side leaves.
                connection.settimeout(step.seconds)
                try:
                    if connection.recv(1, socket.MSG_PEEK) == b"":
                        return False
                except TimeoutError:
                    pass
                finally:
                    connection.settimeout(None)
            elif isinstance(step, Wait):
                step.event.wait(10)
            else:
                return False
        return True


def _read_request(connection: socket.socket, buffer: bytearray, number: int, body: bool) -> Seen | None:
    head = _until(connection, buffer, b"\r\n\r\n")
    if head is None:
        return None
    seen = Seen(head, b"", number)
    if not body:
        return seen
    length = seen.value("content-length")
    if seen.value("transfer-encoding"):
        while True:
            size_line = _until(connection, buffer, b"\r\n")
            if size_line is None:
                return None
            chunk = _exactly(connection, buffer, int(size_line, 16) + 2)
            if chunk is None:
                return None
            if len(chunk) == 2:
                break
            seen.body += chunk[:-2]
    elif length is not None:
        body = _exactly(connection, buffer, int(length))
        if body is None:
            return None
        seen.body = body
    return seen


def _until(connection: socket.socket, buffer: bytearray, mark: bytes) -> bytes | None:
    while mark not in buffer:
        data = connection.recv(65536)
        if not data:
            return None
        buffer += data
    head, _, rest = bytes(buffer).partition(mark)
    buffer[:] = rest
    return head


def _exactly(connection: socket.socket, buffer: bytearray, size: int) -> bytes | None:
    while len(buffer) < size:
        data = connection.recv(65536)
        if not data:
            return None
        buffer += data
    piece = bytes(buffer[:size])
    del buffer[:size]
    return piece
