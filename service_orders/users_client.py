"""Asks the users service whether a user exists."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from servicekit.http_client import ServiceClient


class UserDirectory(Protocol):
    """What the use cases need from users."""

    def exists(self, user_id: UUID, token: str = "") -> bool:
        """Whether the user exists, for whoever has this access token. Raises `UsersUnavailable` if that is unknown."""


class UsersClient:
    """The directory behind HTTP."""

    def __init__(self, client: ServiceClient) -> None:
        self._client = client

    def exists(self, user_id: UUID, token: str = "") -> bool:
        """Ask for the user; a 404 means no."""
        return self._client.get(f"/users/{user_id}", token=token) is not None
