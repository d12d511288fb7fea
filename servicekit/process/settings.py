"""Settings from the environment and `.env`: one frozen, validated object per process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, FilePath, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from servicekit.process.hosts import read_hosts
from servicekit.process.services import BadServiceTable, Service

_MAX_PORT = 65535
_SHORTEST_TOKEN = 16


class SettingsError(Exception):
    """A setting is missing or invalid; the text names the variable and never shows its value."""


class MissingSettings(SettingsError):
    """Required settings are missing, and nothing else is wrong."""

    def __init__(self, variables: tuple[str, ...]) -> None:
        super().__init__("; ".join(f"{variable}: is not set" for variable in variables))
        self.variables = variables


def _has_host(url: str) -> bool:
    """Whether a URL has a host, and a numeric port if any."""
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


def _hosts(value: str) -> str:
    try:
        read_hosts(value)
    except ValueError:
        raise ValueError(
            "write names and addresses without ports, separated by commas, such as api.example.com"
        ) from None
    return value


def _token(value: SecretStr) -> SecretStr:
    token = value.get_secret_value()
    if len(token) < _SHORTEST_TOKEN:
        raise ValueError(
            f"has less than {_SHORTEST_TOKEN} characters; make one with: "
            'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    if not (token.isascii() and token.isprintable()) or token != token.strip():
        raise ValueError("must be printable ASCII, without spaces around it")
    return value


Bind = Annotated[str, AfterValidator(_host_and_port)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
DatabaseUrl = Annotated[
    str, AfterValidator(_database_url), Field(examples=["postgresql://ROLE:PASSWORD@127.0.0.1:5432/DATABASE"])
]
BrokerUrl = Annotated[str, AfterValidator(_broker_url)]
#: A secret that is sent as `Authorization: Bearer TOKEN`.
Token = Annotated[SecretStr, AfterValidator(_token)]


class Settings(BaseSettings):
    """Some of a process's settings. The field `users_bind` is the variable USERS_BIND."""

    #: The name of the process that reads them; empty for shared settings.
    process: ClassVar[str] = ""

    model_config = SettingsConfigDict(
        frozen=True,
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
    )


class ServiceSettings(Settings):
    """Settings of every process."""

    log_format: Literal["json", "console"] = Field(
        default="json", description="how log lines are written; console is for people"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least serious level that is written"
    )


class ServerSettings(ServiceSettings):
    """Settings of every process that listens."""

    allowed_hosts: Annotated[str, AfterValidator(_hosts)] = Field(
        default="",
        description="names and addresses, without ports, by which the process may be asked besides those of loopback "
        "and the address it listens on; separated by commas. Requests for any other name get a 421",
    )


class CallerSettings(ServerSettings):
    """Settings of every process that serves people or programs."""

    auth: Literal["off", "required"] = Field(
        default="required",
        description="whether whoever calls must show an access token; off: everybody is an administrator",
    )
    auth_issuer: str = Field(
        default="siteworks", min_length=1, max_length=100, description="who issues the access tokens, as they say it"
    )
    auth_stale_seconds: int = Field(
        default=3600,
        ge=0,
        le=86_400,
        description="how long an access token that could not be renewed stays good while the users service is away, "
        "in seconds",
    )
    auth_keys_file: Path | None = Field(
        default=None,
        description="where the keys of access tokens are kept, so that a process that starts while the users service "
        "is away knows them; unset: nowhere",
    )
    users_url: HttpUrl = Field(default="http://127.0.0.1:8001", description="where the users service is")


class InternalToken(ServerSettings):
    """The token that the services share."""

    internal_token: Token | None = Field(
        default=None,
        description="the token by which the services know each other, at least 16 characters; without it no service "
        "takes events, and no relay starts",
    )
    internal_token_file: FilePath | None = Field(
        default=None, description="a file that holds the internal token; INTERNAL_TOKEN wins over it"
    )

    @model_validator(mode="after")
    def _can_read_internal_token(self) -> Self:
        _ = self.token
        return self

    @property
    def token(self) -> str | None:
        """The token, from either variable."""
        return _token_of("INTERNAL_TOKEN", self.internal_token, self.internal_token_file)


class GatewayToken(ServerSettings):
    """The token by which the users service knows the gateway, and nobody else."""

    gateway_token: Token | None = Field(
        default=None,
        description="the token by which the users service knows the gateway, at least 16 characters; needed with "
        "AUTH=required, and for X-Act-As",
    )
    gateway_token_file: FilePath | None = Field(
        default=None, description="a file that holds the gateway's token; GATEWAY_TOKEN wins over it"
    )

    @model_validator(mode="after")
    def _can_read_gateway_token(self) -> Self:
        _ = self.gateways_token
        return self

    @property
    def gateways_token(self) -> str | None:
        """The token, from either variable."""
        return _token_of("GATEWAY_TOKEN", self.gateway_token, self.gateway_token_file)


class PeopleToken(ServerSettings):
    """The token by which the users service knows who may look up people by their addresses."""

    people_token: Token | None = Field(
        default=None,
        description="the token by which a service finds people by their addresses at the users service, at least 16 "
        "characters; without it nobody is found",
    )
    people_token_file: FilePath | None = Field(
        default=None, description="a file that holds the token for people; PEOPLE_TOKEN wins over it"
    )

    @model_validator(mode="after")
    def _can_read_people_token(self) -> Self:
        _ = self.token_for_people
        return self

    @property
    def token_for_people(self) -> str | None:
        """The token, from either variable."""
        return _token_of("PEOPLE_TOKEN", self.people_token, self.people_token_file)


class MailToken(ServerSettings):
    """The token by which the users service knows who may fetch its mail."""

    mail_token: Token | None = Field(
        default=None,
        description="the token by which the workers fetch the mail of accounts at the users service, at least 16 "
        "characters; without it they send none",
    )
    mail_token_file: FilePath | None = Field(
        default=None, description="a file that holds the token for mail; MAIL_TOKEN wins over it"
    )

    @model_validator(mode="after")
    def _can_read_mail_token(self) -> Self:
        _ = self.token_for_mail
        return self

    @property
    def token_for_mail(self) -> str | None:
        """The token, from either variable."""
        return _token_of("MAIL_TOKEN", self.mail_token, self.mail_token_file)


def secret_of(variable: str, value: SecretStr | None, file: Path | None) -> str | None:
    """A secret from a variable, or from the file that `variable`_FILE names; raises ValueError."""
    if value is not None or file is None:
        return None if value is None else value.get_secret_value()
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as exc:
        raise ValueError(f"{variable}_FILE: cannot be read") from exc


def _token_of(variable: str, value: SecretStr | None, file: Path | None) -> str | None:
    """The same for a token, which is long."""
    text = secret_of(variable, value, file)
    if text is not None and value is None and len(text) < _SHORTEST_TOKEN:
        raise ValueError(f"{variable}_FILE: the token in it has less than {_SHORTEST_TOKEN} characters")
    return text


class ServiceSize(ServiceSettings):
    """How much each service of the table does at once."""

    service_processes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="processes that serve a service's port, up to one for each core; they share circuits and memory "
        "limits",
    )
    service_threads: int = Field(
        default=8,
        ge=1,
        le=256,
        description="requests that each of them serves at once, each with a database connection",
    )


class WebServiceSettings(ServiceSize, InternalToken, CallerSettings):
    """Settings of every service of the table."""

    #: The services that it calls, each through a circuit.
    calls: ClassVar[tuple[str, ...]] = ()

    @property
    def connections(self) -> int:
        """The database connections that one of its processes may open."""
        return self.service_threads


def settings_of(service: Service) -> type[WebServiceSettings]:
    """The settings of a service's web server: the class of its `settings` module whose `process` is its name."""
    for found in vars(service.module("settings")).values():
        if isinstance(found, type) and issubclass(found, WebServiceSettings) and found.process == service.name:
            return found
    raise BadServiceTable(
        f"{service.package}.settings has no settings of [{service.name}]: a class below WebServiceSettings with "
        f'process = "{service.name}"'
    )


S = TypeVar("S", bound=Settings)

#: The last result of `load_or_exit`.
_loaded: dict[type[Settings], Settings] = {}


def load(cls: type[S]) -> S:
    """Read and validate the settings of a process; raises `SettingsError`, which names every wrong variable.

    Raises `MissingSettings` when the only fault is that some are not set.
    """
    try:
        return cls()
    except ValidationError as exc:
        errors = exc.errors(include_input=False, include_url=False)
        if all(error["type"] == "missing" for error in errors):
            raise MissingSettings(tuple(str(error["loc"][0]).upper() for error in errors)) from exc
        lines = []
        for error in errors:
            variable = str(error["loc"][0]).upper() if error["loc"] else "settings"
            message = error["msg"].removeprefix("Value error, ")
            lines.append(f"{variable}: {'is not set' if error['type'] == 'missing' else message}")
        raise SettingsError("; ".join(lines)) from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(".env: is not UTF-8; save it as UTF-8") from exc
    except OSError as exc:
        raise SettingsError(f".env: cannot be read: {exc.strerror}") from exc


def load_or_exit(cls: type[S], process: str) -> S:
    """Like `load`, but exit with one clear line when a setting is wrong."""
    try:
        settings = _loaded[cls] = load(cls)
        return settings
    except SettingsError as exc:
        raise SystemExit(f"{process} cannot start: {exc} (every variable is explained in .env.example)") from None


def loaded_or_exit(cls: type[S], process: str) -> S:
    """Return what gunicorn's master has read; without a master, act like `load_or_exit`.

    A worker that replaces another thus keeps the settings of the others, even if `.env` has changed since.
    """
    settings = _loaded.get(cls)
    return settings if isinstance(settings, cls) else load_or_exit(cls, process)
