"""Request and response bodies of users."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema, model_validator

from service_users.domain import DEFAULT_ROLES
from servicekit.web.paging import SortedPage, SortedQuery
from servicekit.web.preconditions import Resource
from servicekit.web.schemas import Body, Id, QueryText, Timestamp, Update, View, Visible, parse_uuid, unsent

MAX_EMAIL = 254
#: What stands before the @ of most addresses, and is in its normal form.
_PLAIN_LOCAL = re.compile(r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*")
_MAX_LOCAL = 64
#: As many as a page has rows.
MOST_IDS = 100
_ROLE = re.compile(r"^[a-z][a-z0-9_]{0,31}$")
_ROLES_RULE = "1 to 16 different ones, each of 1 to 32 of a-z, 0-9 and _, beginning with a letter"


def _email(value: str) -> str:
    # Checked before the library parses it, whose work grows with the length.
    if len(value) > MAX_EMAIL:
        raise ValueError(f"must have at most {MAX_EMAIL} characters")
    local, _, domain = value.rpartition("@")
    try:
        if len(local) <= _MAX_LOCAL and domain.isascii() and _PLAIN_LOCAL.fullmatch(local):
            return f"{local}@{_domain(domain)}"
        return validate_email(value, check_deliverability=False).normalized
    except EmailNotValidError as exc:
        raise ValueError("must be an e-mail address such as user@example.com") from exc


@lru_cache(maxsize=1024)
def _domain(domain: str) -> str:
    """The normal form of an ASCII domain. Cached: a few make up most addresses, and one takes the library 20 µs."""
    return validate_email(f"x@{domain}", check_deliverability=False).domain


def _email_if_it_is_one(value: str) -> str:
    try:
        return _email(value)
    except ValueError:
        return value


def _ids(value: str) -> str:
    ids = value.split(",", MOST_IDS)
    if len(ids) > MOST_IDS:
        raise ValueError(f"must have at most {MOST_IDS} ids")
    return ",".join(str(parse_uuid(one)) for one in ids)


def _role(value: str) -> str:
    if not _ROLE.fullmatch(value):
        raise ValueError("must be 1 to 32 of a-z, 0-9 and _, and begin with a letter")
    return value


def _distinct(roles: list[str]) -> list[str]:
    if len(set(roles)) != len(roles):
        raise ValueError("must not name a role twice")
    return roles


Email = Annotated[
    str,
    AfterValidator(_email),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": MAX_EMAIL}),
]
#: An address in a query, normalised like a stored one if it is valid (such as its IDNA domain).
EmailSought = Annotated[QueryText, AfterValidator(_email_if_it_is_one)]
Sought = Annotated[QueryText, StringConstraints(max_length=200)]
#: Several ids in a query, as text in the form of the database.
IdsSought = Annotated[str, AfterValidator(_ids)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200), Visible]
Role = Annotated[str, AfterValidator(_role), Field(examples=["user"], json_schema_extra={"pattern": _ROLE.pattern})]
Roles = Annotated[
    list[Role], Field(min_length=1, max_length=16, json_schema_extra={"uniqueItems": True}), AfterValidator(_distinct)
]
Password = Annotated[str, StringConstraints(min_length=8, max_length=128), Field(json_schema_extra={"writeOnly": True})]


class UserCreate(Body):
    """A new user; an e-mail address and a name suffice."""

    example: ClassVar[Mapping[str, Any]] = {"email": "user@example.com", "name": "Белов Ярослав"}

    email: Email = Field(
        description="no other user has it, whatever the case of its letters", examples=["user@example.com"]
    )
    name: Name = Field(description="in any script, not blank, without invisible characters", examples=["Белов Ярослав"])
    roles: Roles = Field(
        default_factory=lambda: list(DEFAULT_ROLES),
        description=f'{_ROLES_RULE}; ["user"] when left out',
    )
    password: Password | None = Field(default=None, description="kept as an argon2id hash, never given back")


class UserQuery(SortedQuery):
    """Which users are wanted."""

    sort: Literal["-created_at", "created_at", "name", "-name", "email", "-email"] = Field(
        default="-created_at", description="the field to sort by; with a minus sign descending"
    )
    email: EmailSought | None = Field(default=None, description="exactly this address, whatever the case")
    role: QueryText | None = Field(default=None, description="users who have this role")
    id: IdsSought | None = Field(default=None, description=f"these alone: up to {MOST_IDS} ids, separated by commas")
    q: Sought | None = Field(default=None, description="part of the name or the address")


class UserView(Resource):
    """A user."""

    id: UUID
    email: str
    name: str
    roles: list[str]
    created_at: Timestamp
    updated_at: Timestamp


class PersonSought(Body):
    """Somebody whom a service asks about, by exactly one of address and id."""

    email: EmailSought | None = None
    id: Id | None = None

    @model_validator(mode="after")
    def _is_named_once(self) -> Self:
        if (self.email is None) == (self.id is None):
            raise ValueError("must have either email or id")
        return self


class ColleagueView(Resource):
    """Somebody as the others on their sites know them."""

    id: UUID
    name: str


class PeopleView(View):
    """Whoever was found."""

    people: list[ColleagueView]


class UserUpdate(Update):
    """The fields to change; the others stay as they are. A user as GET shows it may be sent back whole."""

    example: ClassVar[Mapping[str, Any]] = {"name": "Белов Ярослав"}
    shown = UserView

    email: Email = unsent()
    name: Name = unsent()
    roles: Roles = unsent(_ROLES_RULE)
    password: Password | None = Field(default=None, description="null takes the password away")


class UserPage(SortedPage):
    """A page of users."""

    users: list[UserView | ColleagueView]
