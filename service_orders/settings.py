"""The settings of the orders service."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from servicekit.process.settings import Bind, DatabaseUrl, WebServiceSettings


class OrdersSettings(WebServiceSettings):
    """Settings of the orders service."""

    process: ClassVar[str] = "orders"
    calls = ("users",)

    orders_database_url: DatabaseUrl = Field(description="where the orders database is")
    orders_bind: Bind = Field(default="127.0.0.1:8002", description="where the orders service listens")
