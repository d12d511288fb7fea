"""What the audit is told: who was refused what, counted by address, reason and minute, so that a flood is a few rows,
and who set a circuit by hand."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from api_gateway.upstream import Upstream, UpstreamAnswer, UpstreamError
from servicekit.identity.tokens import Now
from servicekit.observing.logs import get_logger
from servicekit.process.clock import rfc3339
from servicekit.process.ids import new_id

_PATH = b"/internal/audit"
#: The statuses that refuse somebody, and the codes of others that do.
_STATUSES = frozenset({401, 403, 421})
_CODES = frozenset({"too_many_attempts", "too_many_credentials"})
#: Pairs of address and reason that are counted apart in a minute; the others are counted without an address.
_APART = 50
#: Minutes that are kept while the users service is away.
_MINUTES = 60
#: Between two tries, and how long one may take, in seconds.
_EVERY, _SECONDS = 15.0, 2.0
_LARGEST = 64 * 1024

log = get_logger(__name__)


class Refusals:
    """The counts of this process, and the task that tells them. Belongs to the event loop."""

    def __init__(self, upstream: Upstream, token: str, *, now: Now = time.time) -> None:
        """`token` is that by which the users service knows the gateway."""
        self._upstream = upstream
        self._token = token
        self._now = now
        self._minute = 0
        self._counts: dict[tuple[str | None, str], int] = {}
        #: Whole minutes and set circuits, the oldest first; each entry has its id, by which it is written once however
        #: often it is told.
        self._untold: deque[bytes] = deque(maxlen=_MINUTES)
        self._is_away = False

    def note(self, status: int, code: str, whose: Callable[[], str]) -> None:
        """Count an answer, if it refuses somebody; `whose` tells the client's address."""
        if status not in _STATUSES and code not in _CODES:
            return
        self._close_minute()
        key: tuple[str | None, str] = (whose(), code)
        if key not in self._counts and len(self._counts) >= _APART:
            key = (None, code)
        self._counts[key] = self._counts.get(key, 0) + 1

    def forced(self, actor: UUID | None, address: str, circuit: str, state: str) -> None:
        """Tell soon who has set a circuit; `state` is open, closed or auto."""
        at = rfc3339(datetime.fromtimestamp(self._now(), UTC))
        entry = {"id": str(new_id()), "at": at, "actor": actor and str(actor), "address": address}
        self._keep({"circuits": [{**entry, "circuit": circuit, "state": state}]})

    async def run(self) -> None:
        """Tell them again and again, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            self._close_minute()
            await self.tell()

    async def tell_all(self) -> None:
        """Tell also those of the present minute, at the end of the process."""
        self._close_minute(early=True)
        await self.tell()

    async def tell(self) -> None:
        """Tell the minutes that are over; those that cannot be told now are kept."""
        while self._untold:
            first = self._untold[0]
            if not await self._is_taken(first):
                return
            if self._untold and self._untold[0] is first:
                self._untold.popleft()

    def _close_minute(self, *, early: bool = False) -> None:
        minute = int(self._now() // 60)
        if self._counts and (early or minute != self._minute):
            at = rfc3339(datetime.fromtimestamp(self._minute * 60, UTC))
            entries = [
                {"id": str(new_id()), "minute": at, "address": address, "reason": reason, "count": count}
                for (address, reason), count in self._counts.items()
            ]
            self._keep({"refusals": entries})
            self._counts = {}
        self._minute = minute

    def _keep(self, told: dict[str, Any]) -> None:
        if len(self._untold) == _MINUTES:
            log.warning("refusals_lost", cause="the users service has been away for too long")
        self._untold.append(msgspec.json.encode(told))

    async def _is_taken(self, body: bytes) -> bool:
        fields = (
            f"authorization: Bearer {self._token}\r\ncontent-type: application/json\r\naccept: application/json\r\n"
        ).encode("ascii")
        answer: UpstreamAnswer | None = None
        try:
            until = self._upstream.loop.time() + _SECONDS
            answer = await self._upstream.exchange("POST", _PATH, fields, body, connect=_SECONDS, until=until)
            await answer.read(_LARGEST)
            if answer.status != 200:
                raise ValueError(f"status {answer.status}")
        except (UpstreamError, TimeoutError, OSError, ValueError) as exc:
            if not self._is_away:
                log.warning("refusals_not_told", cause=repr(exc)[:300])
            self._is_away = True
            return False
        finally:
            if answer is not None:
                answer.close()
        self._is_away = False
        return True
