"""What the users service reads from its environment."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from servicekit.process.settings import Bind, DatabaseUrl, HttpUrl, InternalToken, RelaySettings, Threads


class UsersSettings(InternalToken):
    """Settings of the users service."""

    process: ClassVar[str] = "users"

    users_database_url: DatabaseUrl = Field(description="where the users database is")
    users_bind: Bind = Field(default="127.0.0.1:8001", description="where the users service listens")
    users_threads: Threads = Field(default=8, description="requests served at once, and as many database connections")


class UsersRelaySettings(RelaySettings):
    """Settings of the relay of the users' events."""

    process: ClassVar[str] = "users-relay"

    users_database_url: DatabaseUrl = Field(description="where the users database is")
    users_relay_bind: Bind = Field(default="127.0.0.1:8007", description="where the users' relay shows its pages")
    orders_url: HttpUrl = Field(default="http://127.0.0.1:8002", description="where the orders service is")
    tasks_url: HttpUrl = Field(default="http://127.0.0.1:8003", description="where the task service is")
