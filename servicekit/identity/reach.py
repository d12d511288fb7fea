"""The rows that a caller may touch, as every query takes them."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Reach:
    """All rows, or those of one owner. A row beyond it is to the caller as if it did not exist."""

    #: None: all rows.
    owner: UUID | None

    @classmethod
    def all(cls) -> Reach:
        return _ALL

    @classmethod
    def own(cls, user_id: UUID) -> Reach:
        return cls(user_id)


_ALL = Reach(None)
