"""What was answered to operations: steps and comments, each with an id that its client made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, insert, select
from sqlalchemy.orm import Session

from service_sites.errors import OperationReused
from service_sites.persistence.sites import run
from service_sites.tables import Operation
from servicekit.database.engine import Database
from servicekit.database.statement import Statement
from servicekit.wire.envelope import dump

_COLUMNS: list[Any] = [Operation.user_id, Operation.digest, Operation.answer]
_FIND = Statement(select(*_COLUMNS).where(Operation.op_id == bindparam("op_id")))
_VALUES = {column.key: bindparam(column.key, type_=column.type) for column in Operation.__table__.columns}
_ADD = Statement(insert(Operation).values(_VALUES).returning(Operation.op_id))


class Asked(NamedTuple):
    """An operation that somebody asks for."""

    op_id: UUID
    #: None: the machine itself.
    user_id: UUID | None
    #: Equal for equal requests.
    digest: bytes

    @classmethod
    def of(cls, op_id: UUID, user_id: UUID | None, said: Mapping[str, Any]) -> Asked:
        """`said` is all that the request says, in an order that does not depend on it."""
        return cls(op_id, user_id, hashlib.sha256(dump(said)).digest())


def find_answer(source: Database | Session, asked: Asked) -> bytes | None:
    """What was answered to this operation before, if it was. Raises `OperationReused` if it was another one."""
    for row in run(source, _FIND, {"op_id": asked.op_id}):
        if row.user_id != asked.user_id or bytes(row.digest) != asked.digest:
            raise OperationReused
        return bytes(row.answer)
    return None


def remember(session: Session, asked: Asked, answer: bytes, now: datetime) -> None:
    """Keep an answer in the transaction of what it answers, so that either both are there or neither is."""
    run(session, _ADD, {**asked._asdict(), "answer": answer, "created_at": now})
