"""The gateway's settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, FilePath, create_model, model_validator

from api_gateway.headers import TrustedProxies
from api_gateway.limits import Quota
from api_gateway.route_table import EVENTS
from servicekit.http_server.tls import BadTlsFile, ServerTls, names_of, read_context
from servicekit.process.hosts import read_origins
from servicekit.process.services import Service, services
from servicekit.process.settings import Bind, CallerSettings, GatewayToken, HttpUrl, Token


def _proxies(value: str) -> str:
    try:
        TrustedProxies(value)
    except ValueError:
        raise ValueError("write addresses or networks separated by commas, such as 10.0.0.0/8") from None
    return value


def _origins(value: str) -> str:
    if "*" in value:
        raise ValueError("* would let any web page do what needs no login: list the origins")
    try:
        read_origins(value)
    except ValueError:
        raise ValueError("write origins separated by commas, such as https://app.example.com") from None
    return value


def _rate(value: str) -> str:
    if value:
        try:
            Quota.parse(value)
        except ValueError:
            raise ValueError("write it as REQUESTS/SECONDS, such as 100/60") from None
    return value


def _address_of(service: Service) -> tuple[object, object]:
    return HttpUrl, Field(default=service.default_url, description=f"where the {service.name} service listens")


if TYPE_CHECKING:
    _Addresses = CallerSettings
else:
    # One variable for each service: USERS_URL and so on.
    _Addresses = create_model(
        "_Addresses",
        __base__=CallerSettings,
        **{row.variable("URL").lower(): _address_of(row) for row in services().values()},
    )


class GatewaySettings(GatewayToken, _Addresses):
    """All settings of the gateway."""

    process: ClassVar[str] = "gateway"

    gateway_bind: Bind = Field(default="127.0.0.1:8000", description="where the gateway listens")
    gateway_processes: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1,
        description="processes that serve the gateway's port, about one for each core; they share circuits and quotas",
    )
    events_url: HttpUrl = Field(default="http://127.0.0.1:8004", description="where the tasks' event streams are")
    trusted_proxies: Annotated[str, AfterValidator(_proxies)] = Field(
        default="",
        description="addresses and networks of the proxies in front, whose forwarded header fields are trusted",
    )
    admin_token: Token | None = Field(
        default=None,
        description="the bearer token that opens POST /admin/circuits/{name}, at least 16 characters; unset: 403",
    )
    cors_origins: Annotated[str, AfterValidator(_origins)] = Field(
        default="", description="origins whose pages may call the API besides its own, separated by commas"
    )
    console_read_only: bool = Field(
        default=False,
        description="true: pages of the gateway, such as the console, log in and out and change nothing else",
    )
    gateway_tls_cert_file: FilePath | None = Field(
        default=None,
        description="the certificate, with its chain, by which the gateway speaks TLS instead of plain HTTP, in PEM; "
        "read again when it or its key changes",
    )
    gateway_tls_key_file: FilePath | None = Field(
        default=None, description="the certificate's private key, in PEM, without a password"
    )
    gateway_upstream_connections: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=128, description="requests of one process that may be under way at one service at a time"
    )
    gateway_event_streams: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=2000, description="event streams that one process holds open at a time"
    )
    gateway_event_streams_per_client: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=200,
        description="how many of them one client address may have; beyond it 429. Behind proxies set TRUSTED_PROXIES",
    )
    gateway_rate_limit: Annotated[str, AfterValidator(_rate)] = Field(
        default="",
        description="REQUESTS/SECONDS that one client address may send, such as 100/60, counted over all processes of "
        "this gateway; beyond it 429. Behind proxies set TRUSTED_PROXIES, or they count as one client. Empty: no limit",
    )

    @model_validator(mode="after")
    def _has_its_token(self) -> Self:
        if self.auth == "required" and self.gateways_token is None:
            raise ValueError("GATEWAY_TOKEN: is not set, nor GATEWAY_TOKEN_FILE, but AUTH=required")
        return self

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        certificate, key = self.gateway_tls_cert_file, self.gateway_tls_key_file
        if (certificate is None) != (key is None):
            set_one, other = ("CERT", "KEY") if key is None else ("KEY", "CERT")
            raise ValueError(f"GATEWAY_TLS_{other}_FILE: is not set, but GATEWAY_TLS_{set_one}_FILE is")
        if certificate is not None and key is not None:
            try:
                read_context(certificate, key)
            except BadTlsFile as error:
                name = "CERT" if error.file == certificate else "KEY"
                raise ValueError(f"GATEWAY_TLS_{name}_FILE: {error}") from None
        return self

    def tls(self) -> ServerTls | None:
        """How the gateway's port speaks TLS, if it does."""
        certificate, key = self.gateway_tls_cert_file, self.gateway_tls_key_file
        return None if certificate is None or key is None else ServerTls(certificate, key)

    def own_names(self) -> str:
        """The names by which the gateway may be asked: those that are allowed, and those of its certificate."""
        certificate = self.gateway_tls_cert_file
        return ",".join([self.allowed_hosts, *([] if certificate is None else names_of(certificate))])

    def upstream_urls(self) -> dict[str, str]:
        """The address of each upstream, by name."""
        urls = {row.name: getattr(self, row.variable("URL").lower()) for row in services().values()}
        return {**urls, EVENTS: self.events_url}

    def places(self, upstream: str) -> int:
        """How many requests may be in flight at an upstream."""
        return self.gateway_event_streams if upstream == EVENTS else self.gateway_upstream_connections

    def revocations_file(self) -> Path | None:
        """Where revocations are kept: beside the keys of access tokens."""
        keys = self.auth_keys_file
        return None if keys is None else keys.with_name(f"{keys.name}.revocations")

    def quota(self) -> Quota | None:
        """The rate limit per client address, if there is one."""
        return Quota.parse(self.gateway_rate_limit) if self.gateway_rate_limit else None

    def allowed_origins(self) -> frozenset[str]:
        """The configured CORS origins."""
        return read_origins(self.cors_origins)
