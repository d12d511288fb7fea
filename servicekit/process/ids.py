"""Identifiers: UUID version 7 (RFC 9562), made here because PostgreSQL only makes them from version 18 on."""

from __future__ import annotations

from uuid import UUID

import uuid_utils
from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """Make a new id; later ids of the same process sort after earlier ones."""
    return uuid7()


def new_id_hex() -> str:
    """`new_id().hex`, without the intermediate object."""
    return uuid_utils.uuid7().hex
