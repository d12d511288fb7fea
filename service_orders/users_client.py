"""Asks the users service whether somebody exists."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from servicekit.http_client import ServiceClient


class UserDirectory(Protocol):
    """What the use cases need to know about users."""

    def exists(self, user_id: UUID) -> bool:
        """Tell whether there is such a user; `UsersUnavailable` when nobody can tell."""


class UsersClient:
    """The directory behind HTTP."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    def exists(self, user_id: UUID) -> bool:
        """Ask for the user; a 404 means no."""
        return self._client.get(f"/users/{user_id}") is not None
