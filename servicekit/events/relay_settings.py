"""The settings of the relay process. Apart from the process, so that reading them imports little."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, Self

from pydantic import Field, create_model, model_validator

from servicekit.process.services import services
from servicekit.process.settings import Bind, BrokerUrl, DatabaseUrl, HttpUrl, InternalToken

PROCESS = "relay"


class RelaySettings(InternalToken):
    """The relay's settings; `relay_settings` adds the addresses of the services and their databases."""

    process: ClassVar[str] = PROCESS

    relay_bind: Bind = Field(default="127.0.0.1:8007", description="where the relay shows its pages")
    relay_keep_days: float = Field(default=7.0, ge=0, le=3650, description="days that delivered events are kept")
    rabbitmq_url: BrokerUrl | None = Field(
        default=None,
        description="where RabbitMQ is: amqp://USER:PASSWORD@HOST:PORT/VHOST, with %2F for the usual vhost. Ingestion "
        "needs it; a relay that has it publishes every event there too",
    )

    @model_validator(mode="after")
    def _has_a_token(self) -> Self:
        if self.token is None:
            raise ValueError("INTERNAL_TOKEN is not set, nor INTERNAL_TOKEN_FILE")
        return self

    @property
    def urls(self) -> dict[str, str]:
        """The address of each service."""
        return {name: getattr(self, service.variable("URL").lower()) for name, service in services().items()}

    @property
    def database_urls(self) -> dict[str, str]:
        """The URLs of the databases that are set, by service."""
        urls = {name: getattr(self, service.variable("DATABASE_URL").lower()) for name, service in services().items()}
        return {name: url for name, url in urls.items() if url is not None}


def relay_settings(required: Collection[str] = ()) -> type[RelaySettings]:
    """Build the settings class from the table of services. The databases of the services in `required` must be set."""
    fields: dict[str, Any] = {}
    for service in services().values():
        where = f"where the {service.name} database is"
        fields[service.variable("DATABASE_URL").lower()] = (
            (DatabaseUrl, Field(description=where))
            if service.name in required
            else (DatabaseUrl | None, Field(default=None, description=where))
        )
        fields[service.variable("URL").lower()] = (
            HttpUrl,
            Field(default=service.default_url, description=f"where the {service.name} service is"),
        )
    return create_model("RelaySettings", __base__=RelaySettings, **fields)
