"""Asks the users service who somebody is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol
from uuid import UUID

from service_sites.errors import PeopleUnavailable
from servicekit.http_client import ServiceClient
from servicekit.observing.logs import get_logger
from servicekit.wire.envelope import dump
from servicekit.wire.errors import AppError

_PATH = "/internal/people"
#: How long a name is known, and how long nobody asks again after a failure, in seconds.
_KNOWN, _UNKNOWN = 300.0, 10.0
_MOST = 1000

log = get_logger(__name__)


class Person(NamedTuple):
    """Somebody who has an account that is not disabled."""

    id: UUID
    name: str


class PeopleDirectory(Protocol):
    """What the use cases need from users."""

    def find(self, *, email: str | None = None, id: UUID | None = None) -> Person | None:
        """The person with exactly this address, or this id, if any. Raises `PeopleUnavailable` if that is unknown."""


class PeopleClient:
    """The directory behind HTTP. `token` is the one for people."""

    def __init__(self, client: ServiceClient, token: str | None) -> None:
        self._client = client
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token or ''}"}

    def find(self, *, email: str | None = None, id: UUID | None = None) -> Person | None:
        body = {"email": email} if id is None else {"id": id}
        answer = self._client.post(_PATH, dump(body), self._headers)
        if answer.status == 400:
            # Nobody can have such an address.
            return None
        if answer.code is not None:
            # Such as another token there than here.
            log.error("people_refused", status=answer.status, code=answer.code)
            raise PeopleUnavailable(retry_after=5)
        for one in answer.data["people"]:
            return Person(UUID(one["id"]), one["name"])
        return None


class Names:
    """The names of people by their ids, as far as they can be had without trouble. Thread-safe."""

    def __init__(self, people: PeopleDirectory, *, now: Callable[[], float] = time.monotonic) -> None:
        self._people = people
        self._now = now
        #: With the time until which each is believed.
        self._known: dict[UUID, tuple[str | None, float]] = {}

    def of(self, user_id: UUID) -> str | None:
        """Their name; None if the users service does not say. Ask before a transaction: it may take a while."""
        name, until = self._known.get(user_id, (None, 0.0))
        if until > self._now():
            return name
        try:
            found = self._people.find(id=user_id)
        except AppError:
            # Whoever does much at once does not wait for it each time.
            self._remember(user_id, name, _UNKNOWN)
            return name
        name = None if found is None else found.name
        self._remember(user_id, name, _KNOWN)
        return name

    def _remember(self, user_id: UUID, name: str | None, seconds: float) -> None:
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[user_id] = (name, self._now() + seconds)
