"""One client of a soak: a thread with a kept connection, a steady rate and a record of every answer."""

from __future__ import annotations

import http.client
import json
import random
import select
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.instance.ports import HOST
from scripts.soaking.records import NotedAnswer

_PATIENCE = 15.0
#: Pages whose answers have no envelope.
_NO_ENVELOPE = frozenset({"/metrics", "/openapi.json", "/swagger"})


@dataclass(frozen=True, slots=True)
class SoakReply:
    """The answer to one request. `data` is that of a 2xx; `status` is 0 if no complete answer came."""

    status: int
    data: Any = None
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_clear(self) -> bool:
        """Whether the answer tells the outcome of the request."""
        return 0 < self.status < 500


class Caller(ABC):
    """Acts `rate` times a second until `stopped` is set. `seed` determines its choices."""

    def __init__(self, port: int, seed: str, stopped: threading.Event, *, rate: float) -> None:
        self.answers: list[NotedAnswer] = []
        self.crash: BaseException | None = None
        self._port = port
        self._rate = rate
        self._random = random.Random(seed)
        self._stopped = stopped
        self._connection: http.client.HTTPConnection | None = None
        self._thread = threading.Thread(target=self._run, name=f"soak {seed}", daemon=True)

    @abstractmethod
    def act(self) -> None:
        """Do one thing."""

    def finish(self) -> None:
        """Finish up once `stopped` is set; by default nothing."""
        return

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(4 * _PATIENCE)

    def _run(self) -> None:
        due = time.monotonic() + self._random.random() / self._rate
        try:
            while not self._stopped.wait(max(due - time.monotonic(), 0)):
                # When more than a second behind, missed ones are dropped, not sent all at once.
                due = max(due + 1 / self._rate, time.monotonic() - 1)
                self.act()
            self.finish()
        except BaseException as error:  # a fault of the soak itself must not end it quietly
            self.crash = error
        finally:
            self._hang_up()

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        needs: tuple[str, ...],
        expect: Sequence[int],
        route: str = "",
        content: bytes | None = None,
        promised: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> SoakReply:
        """Send one request and record its answer. `promised`: fields that the data of a 2xx must have."""
        sent = content if body is None else json.dumps(body).encode()
        began = time.monotonic()
        status, fields, raw, said = self._exchange(method, path, sent, headers or {})
        ended = time.monotonic()
        route = route or path.partition("?")[0]
        data, code, enveloped = None, "", True
        if status:
            data, code, trouble = _open(method, route, status, fields, raw)
            enveloped, said = not trouble, trouble or code
        expected = status in expect
        if expected and promised is not None and status < 300:
            wrong = [name for name, value in promised.items() if not isinstance(data, dict) or data.get(name) != value]
            if wrong:
                expected, said = False, f"{path}: not as promised: {', '.join(wrong)}"
        self.answers.append(NotedAnswer(began, ended, method, route, needs, status, code, enveloped, expected, said))
        return SoakReply(status, data if 200 <= status < 300 else None, fields or {})

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, Any, bytes, str]:
        """Status, fields, body and complaint; the status is 0 if no complete answer came."""
        try:
            if self._connection is not None and _has_ended(self._connection):
                self._hang_up()
            if self._connection is None:
                self._connection = http.client.HTTPConnection(HOST, self._port, timeout=_PATIENCE)
            about = {"Content-Type": "application/json"} if body else {}
            self._connection.request(method, path, body, {**about, **headers})
            answer = self._connection.getresponse()
            raw = answer.read()
            if answer.will_close:
                self._hang_up()
            return answer.status, answer.headers, raw, ""
        except (OSError, http.client.HTTPException) as error:
            self._hang_up()
            return 0, None, b"", repr(error)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _has_ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has closed a kept connection, which is then readable: end of file."""
    if connection.sock is None:
        return True
    readable, _, _ = select.select([connection.sock], [], [], 0)
    return bool(readable)


def _open(method: str, route: str, status: int, fields: Any, raw: bytes) -> tuple[Any, str, str]:
    """The data, the error's code, and any fault of the envelope (empty: none)."""
    if not fields.get("X-Request-ID"):
        return None, "", "no X-Request-ID"
    if method == "HEAD" or status == 204:
        return None, "", "a body" if raw else ""
    if route in _NO_ENVELOPE and status == 200:
        return None, "", ""
    try:
        body = json.loads(raw)
        if fields.get_content_type() != "application/json":
            raise ValueError(fields.get_content_type())
        if status < 400 and body["success"] is True and body.keys() == {"success", "data"}:
            return body["data"], "", ""
        if status >= 400 and body["success"] is False and body.keys() == {"success", "error"}:
            if status == 503 and not fields.get("Retry-After"):
                return None, str(body["error"]["code"]), "503 without Retry-After"
            return None, str(body["error"]["code"]), "" if body["error"]["message"] else "no message"
    except (ValueError, KeyError, TypeError) as error:
        return None, "", f"{error!r}: {raw[:100]!r}"
    return None, "", f"success does not fit the status: {raw[:100]!r}"
