"""Make tasks from your own program, in your own transaction. docs/enqueueing.md explains it.

from service_tasks.client import enqueue

with Session(engine) as session, session.begin():
    session.add(order)
    task_id = enqueue(session, "send_email", {"to": "user@example.com", "subject": "Your order"})
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache, partial
from typing import Any, Final
from uuid import UUID

from service_tasks.engine.registry import load_registry
from service_tasks.persistence.callers_transaction import CallersConnection, CallersTransaction
from service_tasks.schemas.tasks import TaskCreate
from service_tasks.settings import MakerSettings
from service_tasks.use_cases.tasks import TaskMaker
from servicekit.identity.reach import Reach
from servicekit.process.settings import load
from servicekit.web.idempotency import checked_key
from servicekit.web.schemas import parse_body
from servicekit.wire.envelope import dump
from servicekit.wire.errors import Invalid


class _LeftOut:
    """The default payload: None is a valid one."""


_LEFT_OUT: Final = _LeftOut()


def enqueue(
    connection: CallersConnection,
    task_type: str | None = None,
    payload: Any = _LEFT_OUT,
    *,
    title: str | None = None,
    user_id: UUID | str | None = None,
    priority: int | None = None,
    max_attempts: int | None = None,
    timeout: float | None = None,
    execute_at: datetime | None = None,
    unique_key: str | None = None,
    callback_url: str | None = None,
    idempotency_key: str | None = None,
    announce: bool = True,
) -> UUID:
    """Make a task as POST /tasks does, in the transaction of this connection to the tasks database; return its id.

    The task exists once the transaction is committed; a rollback leaves no trace of it. `payload` is any JSON value or
    a pydantic model. Without `announce` workers find the task at their next poll: commits that announce wait for each
    other on the whole server.

    Raises `Invalid` for what would be a 400, `PayloadTooLarge` for a 413 and `IdempotencyKeyReused` for a 409, all
    before anything is written; `TypeError` and `ValueError` for an unsuitable connection; the driver's own errors;
    and, at the first call, `SettingsError` and `BadTaskTypes` for an invalid environment.
    """
    given = {
        "task_type": task_type,
        "title": title,
        "user_id": user_id,
        "priority": priority,
        "max_attempts": max_attempts,
        "timeout": timeout,
        "execute_at": execute_at,
        "unique_key": unique_key,
        "callback_url": callback_url,
    }
    sent = {name: value for name, value in given.items() if value is not None}
    if payload is not _LEFT_OUT:
        sent["payload"] = payload
    body = _read(sent)
    key = None if idempotency_key is None else checked_key(idempotency_key, "idempotency_key")
    # Announced with the commit, or not at all.
    maker = _rules()(CallersTransaction(connection), may_announce=lambda: announce, announce=lambda what: None)
    return maker.make(body, idempotency_key=key, reach=Reach.all()).task


def _read(sent: Mapping[str, Any]) -> TaskCreate:
    """Validate as strictly as a client's request."""
    for name, value in sent.items():
        try:
            dump(value)
        except (TypeError, ValueError, RecursionError) as exc:
            raise Invalid.field(name, f"cannot be written as JSON: {exc}") from exc
    return parse_body(TaskCreate, dump(sent), "application/json")


@cache
def _rules() -> partial[TaskMaker[UUID]]:
    settings = load(MakerSettings)
    return partial(
        TaskMaker,
        registry=load_registry(settings.modules),
        callback_hosts=settings.allowed_callback_hosts,
    )
