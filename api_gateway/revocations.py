"""Which access tokens are refused before they expire: asked of the users service every second, and kept through
whatever may happen to it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import msgspec

from api_gateway.upstream import Upstream, UpstreamAnswer, UpstreamError
from servicekit.identity.tokens import AccessToken, Now
from servicekit.observing.logs import get_logger
from servicekit.process.files import write_whole

_PATH = b"/internal/revocations"
#: Between two questions, and how long one may take, in seconds.
_EVERY = 1.0
_SECONDS = 2.0
_LARGEST = 16 * 1024 * 1024
#: How much longer than it is listed a revocation counts here, in seconds: until every process has noticed that the
#: users service is back, and honours no more tokens that it could not renew.
_KEPT = 90.0

log = get_logger(__name__)


class _Live(msgspec.Struct):
    """What the users service tells: sessions and keys that ended, and of users the least epoch that is good."""

    sessions: list[UUID]
    keys: list[UUID]
    users: dict[UUID, int]


class _Envelope(msgspec.Struct):
    data: _Live


class _Stored(msgspec.Struct):
    #: With the time at which each was listed no longer, in seconds since 1970; null while it is.
    ended: dict[UUID, float | None] = {}
    users: dict[UUID, tuple[int, float | None]] = {}


class Revocations:
    """The revocations that this process knows of, and the task that keeps them up to date."""

    def __init__(
        self,
        upstream: Upstream,
        token: str,
        *,
        file: Path | None = None,
        now: Now = time.time,
    ) -> None:
        """`token` is that by which the users service knows the gateway; `file` keeps them over restarts."""
        self._upstream = upstream
        self._fields = f"authorization: Bearer {token}\r\naccept: application/json\r\n".encode("ascii")
        self._file = file
        #: Called when there are others.
        self.on_change: Callable[[], None] = lambda: None
        self._now = now
        #: Another object with each change.
        self.known = _Stored()
        self._told = False
        #: When the last good answer came, in seconds since 1970; None: never, so that no token can be judged.
        self.seen_at: float | None = None
        self._restore()

    def covers(self, token: AccessToken) -> bool:
        """Whether a token is to be refused."""
        known, principal = self.known, token.principal
        if principal.session_id in known.ended:
            return True
        least = known.users.get(principal.user_id) if principal.user_id is not None else None
        return least is not None and token.epoch < least[0]

    @property
    def age(self) -> float:
        """How long ago the last good answer came, in seconds; infinite if none ever did."""
        return float("inf") if self.seen_at is None else max(0.0, self._now() - self.seen_at)

    async def run(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(_EVERY)

    async def ask(self) -> None:
        """Ask once; what was known stays unless there is a good answer."""
        answer: UpstreamAnswer | None = None
        try:
            until = self._upstream.loop.time() + _SECONDS
            answer = await self._upstream.exchange("GET", _PATH, self._fields, None, connect=_SECONDS, until=until)
            body = await answer.read(_LARGEST)
            if answer.status != 200:
                raise ValueError(f"status {answer.status}")
            live = msgspec.json.decode(body, type=_Envelope).data
        except (UpstreamError, TimeoutError, OSError, ValueError) as exc:
            if not self._told:
                log.warning("revocations_away", cause=repr(exc)[:300])
                self._told = True
            return
        finally:
            if answer is not None:
                answer.close()
        if self._told:
            log.info("revocations_back")
            self._told = False
        self.seen_at = self._now()
        changed = self._take(live, self.seen_at)
        if changed:
            self.on_change()
        await asyncio.to_thread(self._store, changed)

    def _take(self, live: _Live, now: float) -> bool:
        """Know what is listed, and for a while what was; whether anything has changed."""
        before = self.known
        ended = {one: since or now for one, since in before.ended.items() if since is None or now < since + _KEPT}
        users = {
            one: (least, since or now)
            for one, (least, since) in before.users.items()
            if since is None or now < since + _KEPT
        }
        listed = dict.fromkeys([*live.sessions, *live.keys])
        known = _Stored({**ended, **listed}, {**users, **{one: (least, None) for one, least in live.users.items()}})
        if known == before:
            return False
        self.known = known
        return True

    def _restore(self) -> None:
        if self._file is None:
            return
        try:
            self.known = msgspec.json.decode(self._file.read_bytes(), type=_Stored)
            self.seen_at = self._file.stat().st_mtime
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as exc:
            log.warning("stored_revocations_unusable", file=self._file.name, cause=str(exc))

    def _store(self, changed: bool) -> None:
        """The file's time of change says when they were seen last."""
        if self._file is None or self.seen_at is None:
            return
        try:
            if changed or not self._file.exists():
                write_whole(self._file, msgspec.json.encode(self.known))
            os.utime(self._file, (self.seen_at, self.seen_at))
        except OSError as exc:
            log.warning("revocations_not_stored", file=self._file.name, cause=exc.strerror)
