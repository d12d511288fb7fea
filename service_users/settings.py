"""The settings of the users service."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from servicekit.process.settings import Bind, DatabaseUrl, WebServiceSettings


class UsersSettings(WebServiceSettings):
    """Settings of the users service."""

    process: ClassVar[str] = "users"

    users_database_url: DatabaseUrl = Field(description="where the users database is")
    users_bind: Bind = Field(default="127.0.0.1:8001", description="where the users service listens")
