"""Keeps the keys of access tokens up to date, and through everything that may happen to the service that has them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from servicekit.identity.keys import BadKeySet, KeySet
from servicekit.observing.logs import get_logger
from servicekit.process.backoff import Backoff, jittered
from servicekit.process.clock import Clock, utc_now
from servicekit.process.files import write_whole
from servicekit.process.lifecycle import Duty
from servicekit.wire.errors import AppError

#: Between two questions, in seconds. Tokens cause none, so that nobody can by sending unknown ones; a new key is
#: published long before it signs. Below the skew that verifiers allow: when a token ends that nobody could renew, it is
#: known that the service is away.
_EVERY = 25.0
#: Until the first good answer: the shortest and the longest pause, in seconds.
_AT_FIRST = (1.0, 5.0)

log = get_logger(__name__)


class KeyRing(Duty):
    """Asks for the key set again and again. The last good one is kept whatever comes, also over restarts, in a file."""

    def __init__(
        self,
        fetch: Callable[[], bytes],
        *,
        on_death: Callable[[], None],
        file: Path | None = None,
        clock: Clock = utc_now,
    ) -> None:
        """`fetch` gives a JSON Web Key Set, within a time of its own, or raises an `AppError`."""
        super().__init__("keys", pause=self._seconds, on_death=on_death, clock=clock)
        self._fetch = fetch
        self._file = file
        self._text = self._stored = b""
        #: The last good keys; None if there never were any.
        self.keys: KeySet | None = None
        self._touched: float | None = None
        self._is_away = True
        #: Whether the log says that it is away.
        self._told = False
        self._backoff = Backoff(*_AT_FIRST)
        self._restore()

    def out_of_touch_since(self) -> float | None:
        """When a good answer came last, in seconds since 1970, if none came to the last question; else None."""
        return self._touched if self._is_away else None

    def run_once(self, now: datetime) -> None:
        """Ask once."""
        try:
            text = self._fetch()
            if text != self._text:
                keys = KeySet.read(text)
                self.keys, self._text = keys, text
        except BadKeySet as exc:
            # An empty one in place of ours would shut everybody out.
            log.error("key_set_refused", cause=str(exc))
            self._is_away = True
        except AppError as exc:
            if not self._told:
                log.warning("keys_away", cause=repr(exc.__cause__ or exc)[:300])
            self._is_away = self._told = True
        else:
            if self._told:
                log.info("keys_back")
            self._touched = now.timestamp()
            self._is_away = self._told = False
            self._store()

    def _seconds(self) -> float:
        return self._backoff.next() if self.keys is None else jittered(_EVERY, 0.1)

    def _restore(self) -> None:
        if self._file is None:
            return
        try:
            text = self._file.read_bytes()
            touched = self._file.stat().st_mtime
            self.keys, self._text, self._touched = KeySet.read(text), text, touched
            self._stored = text
        except FileNotFoundError:
            pass
        except (OSError, BadKeySet) as exc:
            log.warning("stored_key_set_unusable", file=self._file.name, cause=str(exc))

    def _store(self) -> None:
        """Whole or not at all; the file's time of change says when the keys were seen last."""
        if self._file is None or self._touched is None:
            return
        try:
            if self._text != self._stored:
                write_whole(self._file, self._text)
                self._stored = self._text
            os.utime(self._file, (self._touched, self._touched))
        except OSError as exc:
            log.warning("key_set_not_stored", file=self._file.name, cause=exc.strerror)
            self._stored = b""
