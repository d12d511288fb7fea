"""Makes the tasks that send the mail of accounts, of the events that want it."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy.orm import Session

from service_tasks.domain.account_mail import ACCOUNT_MAIL_TYPE
from service_tasks.use_cases.tasks import NewTask
from servicekit.events.cloudevents import Event, SubjectId, read_data
from servicekit.process.ids import new_id
from servicekit.wire.envelope import dump

#: Above all that people ask for, who wait for it.
_PRIORITY = 100
#: With the pauses of the type, about as long as most links are good.
_MAX_ATTEMPTS = 10


class InternalTasks(Protocol):
    def add_within(self, session: Session, task: NewTask) -> None:
        """Store a task in this transaction, and tell the workers with its commit."""


class MailOfAccounts:
    """Works in the given transaction, which also records the event."""

    def __init__(self, tasks: InternalTasks) -> None:
        self._tasks = tasks

    def act(self, session: Session, event: Event) -> None:
        """Have a message sent. Raises `Invalid` for bad data."""
        wanted = read_data(SubjectId, event)
        # Without a user: it is nobody's to read or to cancel.
        task = NewTask(
            id=new_id(),
            task_type=ACCOUNT_MAIL_TYPE,
            title=None,
            user_id=None,
            payload=dump({"id": wanted.id}).decode("utf-8"),
            priority=_PRIORITY,
            max_attempts=_MAX_ATTEMPTS,
            timeout_seconds=None,
            execute_at=None,
        )
        self._tasks.add_within(session, task)
