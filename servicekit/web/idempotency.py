"""Idempotency-Key: repeating a request with its key returns what the first one made, without making anything.

A service stores keys in their own table, in the transaction of what is made: a second request with the key waits there
until the first is committed, and then finds what it made. A refused request leaves no key. The relay removes keys after
relay.REMEMBER_DAYS.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from psycopg2 import IntegrityError
from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)

from servicekit.database.engine import Database
from servicekit.identity.reach import Reach
from servicekit.web.schemas import Body
from servicekit.wire.envelope import dump
from servicekit.wire.errors import IdempotencyKeyReused, Invalid

IDEMPOTENCY_KEY = "Idempotency-Key"
#: Documents the header for operations that read it.
HEADERS: Mapping[str, str] = {
    IDEMPOTENCY_KEY: "the same key and body again give what was made before, not a second one"
}
MAX_KEY_CHARACTERS = 200
_KEY = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY_CHARACTERS}}}")

_FIND = "SELECT made, fingerprint FROM idempotency_keys WHERE key = %(key)s"
#: Remembers the row in `made` as what a request made; part of the statement that makes it.
REMEMBER = """
INSERT INTO idempotency_keys (key, fingerprint, made)
SELECT %(idempotency_key)s, %(fingerprint)s, made.id FROM made
"""
_CONSTRAINT = "pk_idempotency_keys"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A request's key, and the fingerprint of its body."""

    key: str
    fingerprint: bytes

    def within(self, reach: Reach) -> RequestKey:
        """The same with its key as it is stored."""
        return replace(self, key=own_key(self.key, reach))


@dataclass(frozen=True, slots=True)
class Made(Generic[T]):
    """What a request made, or, if `replayed`, what an earlier one with its key made."""

    view: T
    replayed: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """The header fields for the answer."""
        return replay_headers(self.replayed)


def replay_headers(replayed: bool) -> dict[str, str]:
    """The header fields that say whether an earlier request made the answer."""
    return {"Idempotency-Replayed": "true"} if replayed else {}


def request_key(headers: Mapping[str, str | None], body: Body, *, secret: Collection[str] = ()) -> RequestKey | None:
    """The key of a request, if it has one; raises `Invalid` for an unusable one; for `secret` see `fingerprint`."""
    key = headers[IDEMPOTENCY_KEY]
    return None if key is None else RequestKey(checked_key(key), fingerprint(body, secret=secret))


def checked_key(key: str, field: str = IDEMPOTENCY_KEY) -> str:
    """Return the key; raises `Invalid`, naming the field, unless it is fit for a header field."""
    if not _KEY.fullmatch(key):
        raise Invalid.field(field, f"must be 1 to {MAX_KEY_CHARACTERS} printable ASCII characters without spaces")
    return key


def own_key(key: str, reach: Reach) -> str:
    """A key as it is stored: that of somebody with rows of their own alone is apart from all others."""
    if reach.owner is None:
        return key
    # A request's key has no space.
    return f"{reach.owner} {hashlib.sha256(key.encode('ascii')).hexdigest()}"


def fingerprint(body: Body, *, secret: Collection[str] = ()) -> bytes:
    """A fingerprint that is equal for equal requests, whatever the order of their fields.

    Only the presence of a `secret` field counts: a plain hash of a password would allow guessing it offline.
    """
    named = {
        name: getattr(body, name) is not None if name in secret else getattr(body, name)
        for name in body.model_fields_set
    }
    return hashlib.sha256(dump(_in_order(named))).digest()


def find_made(database: Database, request: RequestKey) -> UUID | None:
    """The id of what this request made before, if it did; raises `IdempotencyKeyReused` if another one used its key."""
    for made, fingerprint in database.once(_FIND, {"key": request.key}):
        if bytes(fingerprint) != request.fingerprint:
            raise IdempotencyKeyReused
        return cast(UUID, made)
    return None


def is_taken(exc: IntegrityError) -> bool:
    """Whether this says that `REMEMBER` found the key of an earlier request."""
    return exc.diag.constraint_name == _CONSTRAINT


def define_idempotency_keys(metadata: MetaData) -> None:
    """Add the table to a service's models; its migrations create the same."""
    Table(
        "idempotency_keys",
        metadata,
        Column("key", Text, nullable=False),
        Column("fingerprint", LargeBinary, nullable=False),
        # No foreign key: a late repetition must not make again what was deleted.
        Column("made", Uuid, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        PrimaryKeyConstraint("key", name=_CONSTRAINT),
        CheckConstraint(f"char_length(key) BETWEEN 1 AND {MAX_KEY_CHARACTERS}", name="ck_idempotency_keys_key"),
        Index("ix_idempotency_keys_created_at", "created_at"),
    )


def _in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_in_order(item) for item in value]
    return value
