"""Identifiers: UUID version 7 (RFC 9562), made here since PostgreSQL makes them only from 18 on."""

from __future__ import annotations

from uuid import UUID

import uuid_utils
from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """Make a new id; later ids sort after earlier ones of the same process."""
    return uuid7()


def new_id_hex() -> str:
    """`new_id().hex`, without the object in between."""
    return uuid_utils.uuid7().hex
