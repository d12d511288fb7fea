"""The settings of the users service."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, FilePath, SecretStr, model_validator

from service_users.auth_key import AuthKey
from servicekit.process.settings import Bind, DatabaseUrl, GatewayToken, PeopleToken, WebServiceSettings, secret_of

_MAKE_ONE = 'make one with: python3 -c "import secrets; print(secrets.token_urlsafe(32))"'


class UsersSettings(GatewayToken, PeopleToken, WebServiceSettings):
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

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if self.key_of_accounts() is None and self.auth == "required":
            raise ValueError(f"AUTH_KEY: is not set, but AUTH=required; {_MAKE_ONE}")
        return self

    def key_of_accounts(self) -> AuthKey | None:
        """The key, from either variable."""
        text = secret_of("AUTH_KEY", self.auth_key, self.auth_key_file)
        try:
            return None if text is None else AuthKey.read(text)
        except ValueError as exc:
            variable = "AUTH_KEY" if self.auth_key is not None else "AUTH_KEY_FILE"
            raise ValueError(f"{variable}: {exc}; {_MAKE_ONE}") from None
