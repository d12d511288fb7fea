"""The settings of the users service."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, FilePath, SecretStr, model_validator

from service_users.auth_key import AuthKey
from servicekit.process.hosts import is_loopback
from servicekit.process.settings import (
    Bind,
    DatabaseUrl,
    GatewayToken,
    HttpUrl,
    MailToken,
    PeopleToken,
    WebServiceSettings,
    secret_of,
)

_MAKE_ONE = 'make one with: python3 -c "import secrets; print(secrets.token_urlsafe(32))"'


def _issuer(value: str) -> str:
    parts = urlsplit(value)
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    if not is_safe or not parts.hostname or any(one in value for one in "?#@ \t\r\n"):
        raise ValueError("write it as https://HOST, or with http for this machine")
    return value


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """An OpenID Connect provider, and as who it knows us."""

    issuer: str
    client_id: str
    #: None for a public client.
    client_secret: str | None = field(repr=False)
    redirect_uri: str
    name: str


class UsersSettings(GatewayToken, PeopleToken, MailToken, WebServiceSettings):
    """Settings of the users service."""

    process: ClassVar[str] = "users"

    users_database_url: DatabaseUrl = Field(description="where the users database is")
    users_bind: Bind = Field(default="127.0.0.1:8001", description="where the users service listens")
    auth_key: SecretStr | None = Field(
        default=None,
        description="the key of accounts, which encrypts the keys of access tokens and makes refresh tokens: 32 random "
        "bytes in base64url, needed with AUTH=required, and for X-Act-As. Another one ends all sessions",
    )
    auth_key_file: FilePath | None = Field(
        default=None, description="a file that holds the key of accounts; AUTH_KEY wins over it"
    )

    public_url: HttpUrl | None = Field(
        default=None,
        description="where people reach the gateway, such as https://sites.example.com; needed with OIDC_ISSUER, and "
        "for mail: without it no link is sent",
    )
    oidc_issuer: Annotated[str, AfterValidator(_issuer)] | None = Field(
        default=None,
        description="an OpenID Connect provider where people may sign in, to the letter as it calls itself. It must "
        "send them back to PUBLIC_URL/auth/oidc/callback",
    )
    oidc_client_id: str | None = Field(default=None, min_length=1, description="as who the provider knows this system")
    oidc_client_secret: SecretStr | None = Field(
        default=None, description="the secret that the provider gave; none for a public client"
    )
    oidc_client_secret_file: FilePath | None = Field(
        default=None, description="a file that holds the secret; OIDC_CLIENT_SECRET wins over it"
    )
    oidc_name: str = Field(
        default="Single sign-on", min_length=1, max_length=100, description="what the provider is called on buttons"
    )

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if self.key_of_accounts() is None and self.auth == "required":
            raise ValueError(f"AUTH_KEY: is not set, but AUTH=required; {_MAKE_ONE}")
        return self

    @model_validator(mode="after")
    def _has_a_whole_provider(self) -> Self:
        if self.oidc_issuer is not None:
            for variable, value in (("OIDC_CLIENT_ID", self.oidc_client_id), ("PUBLIC_URL", self.public_url)):
                if value is None:
                    raise ValueError(f"{variable}: is not set, but OIDC_ISSUER is")
        self.provider()
        return self

    def provider(self) -> OidcSettings | None:
        """The sign-in provider, if there is one."""
        secret = secret_of("OIDC_CLIENT_SECRET", self.oidc_client_secret, self.oidc_client_secret_file)
        if self.oidc_issuer is None or self.oidc_client_id is None:
            return None
        return OidcSettings(
            self.oidc_issuer, self.oidc_client_id, secret, f"{self.public_url}/auth/oidc/callback", self.oidc_name
        )

    def key_of_accounts(self) -> AuthKey | None:
        """The key, from either variable."""
        text = secret_of("AUTH_KEY", self.auth_key, self.auth_key_file)
        try:
            return None if text is None else AuthKey.read(text)
        except ValueError as exc:
            variable = "AUTH_KEY" if self.auth_key is not None else "AUTH_KEY_FILE"
            raise ValueError(f"{variable}: {exc}; {_MAKE_ONE}") from None
