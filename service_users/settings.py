"""What the users service reads from its environment."""

from __future__ import annotations

from pydantic import Field

from servicekit.settings import Bind, DatabaseUrl, ServiceSettings, Threads


class UsersSettings(ServiceSettings):
    """Settings of the users service."""

    users_database_url: DatabaseUrl = Field(description="where the users database is")
    users_bind: Bind = Field(default="127.0.0.1:8001", description="where the users service listens")
    users_threads: Threads = Field(default=8, description="requests served at once, and database connections")
