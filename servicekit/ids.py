"""Identifiers: UUID version 7 (RFC 9562), made here since PostgreSQL makes them only from 18 on."""

from __future__ import annotations

from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """Make a new id; later ids sort after earlier ones of the same process."""
    return uuid7()
