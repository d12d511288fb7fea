"""The settings of the sites service."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from servicekit.process.settings import Bind, DatabaseUrl, PeopleToken, WebServiceSettings


class SitesSettings(PeopleToken, WebServiceSettings):
    """Settings of the sites service."""

    process: ClassVar[str] = "sites"
    calls = ("users",)

    sites_database_url: DatabaseUrl = Field(description="where the sites database is")
    sites_bind: Bind = Field(default="127.0.0.1:8009", description="where the sites service listens")
