"""Settings from the environment and `.env`: one frozen, validated object per process."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

_MAX_PORT = 65535


class SettingsError(Exception):
    """A setting is missing or wrong; the text names the variable, and never shows its value."""


def _has_host(url: str) -> bool:
    """Tell whether a URL names a host, and a port that is a number if any."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port <= _MAX_PORT)
    except ValueError:
        return False


def _host_and_port(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > _MAX_PORT:
        raise ValueError("write it as HOST:PORT, for example 127.0.0.1:8001")
    return value


def _http_url(value: str) -> str:
    if not value.startswith(("http://", "https://")) or any(c in value for c in "?# \t\r\n") or not _has_host(value):
        raise ValueError("write it as http://HOST:PORT")
    return value.rstrip("/")


def _database_url(value: str) -> str:
    if value.startswith("postgresql://"):
        value = value.replace("postgresql://", "postgresql+psycopg2://", 1)
    if not value.startswith("postgresql+psycopg2://") or not _has_host(value):
        raise ValueError("write it as postgresql://ROLE:PASSWORD@HOST:PORT/DATABASE")
    return value


def _broker_url(value: str) -> str:
    if not value.startswith(("amqp://", "amqps://")) or not _has_host(value):
        raise ValueError("write it as amqp://USER:PASSWORD@HOST:PORT/VHOST")
    return value


Bind = Annotated[str, AfterValidator(_host_and_port)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
BrokerUrl = Annotated[str, AfterValidator(_broker_url)]
Threads = Annotated[int, Field(ge=1, le=256)]


class ServiceSettings(BaseSettings):
    """What every process reads. A field `users_bind` is the variable USERS_BIND."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    log_format: Literal["json", "console"] = Field(default="json", description="how log lines are written")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least serious level that is written"
    )


S = TypeVar("S", bound=ServiceSettings)


def load(cls: type[S]) -> S:
    """Read and validate the settings of one process; `SettingsError` names every wrong variable."""
    try:
        return cls()
    except ValidationError as exc:
        lines = []
        for error in exc.errors(include_input=False, include_url=False):
            variable = str(error["loc"][0]).upper() if error["loc"] else "settings"
            message = error["msg"].removeprefix("Value error, ")
            lines.append(f"{variable}: {'is not set' if error['type'] == 'missing' else message}")
        raise SettingsError("; ".join(lines)) from exc


def load_or_exit(cls: type[S], process: str) -> S:
    """Do as `load`, but end the process with one clear line when a setting is wrong."""
    try:
        return load(cls)
    except SettingsError as exc:
        raise SystemExit(f"{process} cannot start: {exc} (every variable is explained in .env.example)") from None
