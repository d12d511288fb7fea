"""HTTP requests and responses, as tasks store them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from service_tasks.domain.destinations import http_url, networks_text
from servicekit.process.settings import Settings

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,4096}")
# They concern the connection or delimit the message (RFC 9110 section 7.6.1, RFC 9112 section 6).
_NOT_FOR_CALLERS = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def _fields(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _FIELD_NAME.fullmatch(name):
            raise ValueError(f"{name[:50]!r} is no name of a header field")
        if name.lower() in _NOT_FOR_CALLERS:
            raise ValueError(f"{name} is set by the client itself")
        if not _FIELD_VALUE.fullmatch(text):
            raise ValueError(f"{name} has a value with line breaks or other characters that no header field can hold")
    if len({name.lower() for name in value}) != len(value):
        raise ValueError("names a field twice")
    return value


class PrivateNetworks(Settings):
    """Where the workers' requests may go besides the public internet."""

    private_networks: Annotated[str, AfterValidator(networks_text)] = Field(
        default="",
        description="networks beyond the public internet where hosts of CALLBACK_HOSTS and HTTP_REQUEST_ALLOWED_HOSTS "
        "may lie, such as 10.0.0.0/8, 127.0.0.1/32; without them a name that points to a private, loopback or metadata "
        "address is not asked",
    )


class HttpRequest(BaseModel):
    """What to send, and where."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: Annotated[str, Field(max_length=4096), AfterValidator(http_url)] = Field(
        description="http or https; the workers' HTTP_REQUEST_ALLOWED_HOSTS must name its host"
    )
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    headers: Annotated[dict[str, str], Field(max_length=50), AfterValidator(_fields)] = Field(default_factory=dict)
    body: str | None = Field(default=None, description="text, sent as UTF-8")
    json_body: Any = Field(default=None, alias="json", description="sent as JSON, in the place of `body`")
    timeout: float = Field(default=30, ge=0.1, le=3600, description="seconds for everything, redirects included")
    max_redirects: int = Field(default=5, ge=0, le=10, description="each must lead to an allowed host too")

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        if self.body is not None and self.has_json:
            raise ValueError("send body or json, not both")
        return self

    @property
    def has_json(self) -> bool:
        """Whether `json` was sent; `null` counts."""
        return "json_body" in self.model_fields_set


class HttpResponse(BaseModel):
    """The answer that came in the end."""

    status: int
    url: str = Field(description="where it came from, after redirects")
    headers: dict[str, str] = Field(description="names in lower case; without Set-Cookie; 16 KiB at most")
    body: str
    base64: bool = Field(description="the body is not text and is given in Base64 (RFC 4648)")
    truncated: bool = Field(description="the body was longer than what is kept")
