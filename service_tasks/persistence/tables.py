"""The tables of the task service. Every constraint and index has a name."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    DateTime,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    Uuid,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from servicekit.events.inbox import define_inbox
from servicekit.events.outbox import define_outbox
from servicekit.events.tombstones import define_tombstones

_NOW = text("now()")
#: Who goes first: a waiting task gains a point of priority a minute. Written as PostgreSQL itself writes it, so that
#: Alembic sees no difference.
_TURN = "((execute_at AT TIME ZONE 'UTC'::text) - priority::double precision * '00:01:00'::interval)"


class Base(DeclarativeBase):
    """Holds this service's metadata."""

    metadata = MetaData()


define_outbox(Base.metadata)
define_inbox(Base.metadata)
define_tombstones(Base.metadata)


class Task(Base):
    """One task. Written by the statements of queries.sql alone."""

    __tablename__ = "tasks"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    state: Mapped[str] = mapped_column(Text)
    task_type: Mapped[str] = mapped_column(Text)
    title: Mapped[str | None] = mapped_column(Text)
    user_id: Mapped[UUID | None] = mapped_column(Uuid)
    payload: Mapped[Any] = mapped_column(JSONB, nullable=False)
    priority: Mapped[int] = mapped_column(SmallInteger)
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    max_attempts: Mapped[int] = mapped_column(SmallInteger)
    #: None: the type's own
    timeout_seconds: Mapped[float | None] = mapped_column(Float)
    #: when the task, or its next attempt, is due
    execute_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    #: grows with every claim; every write of a running task names it
    lease_no: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: who runs it; after a cancel, whose handler may still be stopping
    worker_id: Mapped[UUID | None] = mapped_column(Uuid)
    deadline_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    progress_percent: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    progress_message: Mapped[str | None] = mapped_column(Text)
    result: Mapped[Any | None] = mapped_column(JSONB)
    #: why the last attempt failed
    error: Mapped[str | None] = mapped_column(Text)
    #: one object for each failed attempt
    errors: Mapped[Any] = mapped_column(JSONB, nullable=False, server_default=text("'[]'::jsonb"))
    idempotency_key: Mapped[str | None] = mapped_column(Text)
    #: SHA-256 of the request that came with the key
    request_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: at most one live task has it
    unique_key: Mapped[str | None] = mapped_column(Text)
    #: whom its end is told; null in nearly every row
    callback_url: Mapped[str | None] = mapped_column(Text)
    #: the task that tells it
    callback_task_id: Mapped[UUID | None] = mapped_column(Uuid)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_NOW)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_NOW)
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    completed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    #: among so many tasks it was when their worker died, perhaps of one of them; bounds how many of these run at once
    suspects: Mapped[int | None] = mapped_column(Integer)

    __table_args__ = (
        CheckConstraint(
            "state IN ('scheduled', 'ready', 'running', 'completed', 'failed', 'cancelled')",
            name="ck_tasks_state",
        ),
        CheckConstraint("char_length(task_type) BETWEEN 1 AND 50", name="ck_tasks_task_type"),
        CheckConstraint("char_length(title) BETWEEN 1 AND 200", name="ck_tasks_title"),
        CheckConstraint("priority BETWEEN 0 AND 100", name="ck_tasks_priority"),
        CheckConstraint("max_attempts BETWEEN 1 AND 25", name="ck_tasks_max_attempts"),
        CheckConstraint("attempts BETWEEN 0 AND max_attempts", name="ck_tasks_attempts"),
        CheckConstraint("state NOT IN ('scheduled', 'ready') OR attempts < max_attempts", name="ck_tasks_attempt_left"),
        CheckConstraint("timeout_seconds > 0 AND timeout_seconds <= 86400", name="ck_tasks_timeout"),
        CheckConstraint("progress_percent BETWEEN 0 AND 100", name="ck_tasks_progress"),
        CheckConstraint(
            "state <> 'running' OR (worker_id IS NOT NULL AND started_at IS NOT NULL AND deadline_at IS NOT NULL)",
            name="ck_tasks_running",
        ),
        CheckConstraint(
            "worker_id IS NULL OR state IN ('running', 'cancelled')",
            name="ck_tasks_worker",
        ),
        CheckConstraint(
            "(completed_at IS NOT NULL) = (state IN ('completed', 'failed', 'cancelled'))",
            name="ck_tasks_completed_at",
        ),
        CheckConstraint("(deadline_at IS NOT NULL) = (state = 'running')", name="ck_tasks_deadline"),
        CheckConstraint("(result IS NOT NULL) = (state = 'completed')", name="ck_tasks_result"),
        CheckConstraint("lease_no >= attempts", name="ck_tasks_lease"),
        CheckConstraint("(idempotency_key IS NULL) = (request_hash IS NULL)", name="ck_tasks_idempotency"),
        CheckConstraint("char_length(unique_key) BETWEEN 1 AND 200", name="ck_tasks_unique_key"),
        CheckConstraint("char_length(callback_url) BETWEEN 1 AND 2000", name="ck_tasks_callback_url"),
        CheckConstraint("callback_task_id IS NULL OR callback_url IS NOT NULL", name="ck_tasks_callback_task"),
        CheckConstraint("suspects >= 1", name="ck_tasks_suspects"),
        Index("ix_tasks_ready", "task_type", text(_TURN), "id", postgresql_where=text("state = 'ready'")),
        Index(
            "ix_tasks_ready_of_user",
            "task_type",
            "user_id",
            text(_TURN),
            "id",
            postgresql_where=text("state = 'ready' AND user_id IS NOT NULL"),
        ),
        Index("ix_tasks_scheduled", "execute_at", "id", postgresql_where=text("state = 'scheduled'")),
        Index(
            "ix_tasks_suspects",
            "suspects",
            postgresql_where=text("suspects IS NOT NULL AND state IN ('scheduled', 'ready', 'running')"),
        ),
        Index("ix_tasks_worker", "worker_id", "task_type", postgresql_where=text("worker_id IS NOT NULL")),
        Index("ix_tasks_user", "user_id", text("id DESC"), postgresql_where=text("user_id IS NOT NULL")),
        Index(
            "ix_tasks_ended_badly",
            "state",
            text("id DESC"),
            postgresql_where=text("state IN ('failed', 'cancelled')"),
        ),
        Index("ix_tasks_cancelled_at", "completed_at", postgresql_where=text("state = 'cancelled'")),
        Index(
            "uq_tasks_idempotency_key",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index(
            "uq_tasks_unique_key",
            "unique_key",
            unique=True,
            postgresql_where=text("unique_key IS NOT NULL AND state IN ('scheduled', 'ready', 'running')"),
        ),
    )


class WorkerRow(Base):
    """One worker process; silent for longer than its lease, it counts as dead."""

    __tablename__ = "workers"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    task_types: Mapped[list[str]] = mapped_column(ARRAY(Text))
    lease_seconds: Mapped[float] = mapped_column(Float)
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_NOW)
    heartbeat_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_NOW)
    #: tasks that it may hold, and holds as of its last beat; and the plain functions among them
    slots: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    busy: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    threads: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    busy_threads: Mapped[int] = mapped_column(Integer, server_default=text("0"))

    __table_args__ = (CheckConstraint("lease_seconds > 0", name="ck_workers_lease"),)


class TaskMinute(Base):
    """What one worker saw end in one minute. Kept by the workers' counting, not by looking at tasks: what a worker that
    is killed has not told yet is missing, and what it told twice, the first answer lost, is there twice."""

    __tablename__ = "task_minutes"

    minute: Mapped[datetime] = mapped_column(DateTime(timezone=True), primary_key=True)
    worker_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    task_type: Mapped[str] = mapped_column(Text, primary_key=True)
    completed: Mapped[int] = mapped_column(Integer)
    failed: Mapped[int] = mapped_column(Integer)
    #: failed attempts that were not the last
    retried: Mapped[int] = mapped_column(Integer)
    #: in the buckets of domain.distribution
    waits: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    runs: Mapped[list[int]] = mapped_column(ARRAY(Integer))


class TaskTypeControl(Base):
    """What people have set for one type of task; a type without a row runs, with the limits it
    declares."""

    __tablename__ = "task_type_controls"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    paused: Mapped[bool] = mapped_column(Boolean, server_default=false())
    #: tasks of the type that may run at once, on all workers together
    max_running: Mapped[int | None] = mapped_column(Integer)
    #: the same for those of any one user
    max_running_per_user: Mapped[int | None] = mapped_column(Integer)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_NOW)

    __table_args__ = (
        CheckConstraint("char_length(name) BETWEEN 1 AND 50", name="ck_task_type_controls_name"),
        CheckConstraint("max_running > 0", name="ck_task_type_controls_max_running"),
        CheckConstraint("max_running_per_user > 0", name="ck_task_type_controls_max_running_per_user"),
    )


class ScheduleRow(Base):
    """What makes a task again and again, or once at its date. Written by the statements of schedules.sql alone."""

    __tablename__ = "schedules"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    # The task it makes.
    task_type: Mapped[str] = mapped_column(Text)
    title: Mapped[str | None] = mapped_column(Text)
    user_id: Mapped[UUID | None] = mapped_column(Uuid)
    payload: Mapped[Any] = mapped_column(JSONB, nullable=False)
    priority: Mapped[int] = mapped_column(SmallInteger)
    max_attempts: Mapped[int] = mapped_column(SmallInteger)
    timeout_seconds: Mapped[float | None] = mapped_column(Float)
    callback_url: Mapped[str | None] = mapped_column(Text)
    # When.
    cron: Mapped[str | None] = mapped_column(Text)
    timezone: Mapped[str | None] = mapped_column(Text)
    every_seconds: Mapped[int | None] = mapped_column(Integer)
    run_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    #: an interval without starts_at is counted from here
    anchor_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    starts_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    ends_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    missed: Mapped[str] = mapped_column(Text)
    paused_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    #: None while paused, and when nothing follows any more
    next_run_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    #: why nothing follows although the schedule has not come to its end
    problem: Mapped[str | None] = mapped_column(Text)
    last_run_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    last_task_id: Mapped[UUID | None] = mapped_column(Uuid)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_NOW)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_NOW)

    __table_args__ = (
        UniqueConstraint("name", name="uq_schedules_name"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 100", name="ck_schedules_name"),
        CheckConstraint("char_length(task_type) BETWEEN 1 AND 50", name="ck_schedules_task_type"),
        CheckConstraint("char_length(title) BETWEEN 1 AND 200", name="ck_schedules_title"),
        CheckConstraint("priority BETWEEN 0 AND 100", name="ck_schedules_priority"),
        CheckConstraint("max_attempts BETWEEN 1 AND 25", name="ck_schedules_max_attempts"),
        CheckConstraint("timeout_seconds > 0 AND timeout_seconds <= 86400", name="ck_schedules_timeout"),
        CheckConstraint("char_length(callback_url) BETWEEN 1 AND 2000", name="ck_schedules_callback_url"),
        CheckConstraint("num_nonnulls(cron, every_seconds, run_at) = 1", name="ck_schedules_kind"),
        CheckConstraint("(cron IS NULL) = (timezone IS NULL)", name="ck_schedules_timezone"),
        CheckConstraint("every_seconds BETWEEN 1 AND 31622400", name="ck_schedules_every"),
        CheckConstraint("starts_at <= ends_at", name="ck_schedules_dates"),
        CheckConstraint("missed IN ('skip', 'run_once', 'run_all')", name="ck_schedules_missed"),
        CheckConstraint("paused_at IS NULL OR next_run_at IS NULL", name="ck_schedules_paused"),
        CheckConstraint("problem IS NULL OR next_run_at IS NULL", name="ck_schedules_problem"),
        Index("ix_schedules_due", "next_run_at", "id", postgresql_where=text("next_run_at IS NOT NULL")),
    )


class ScheduleTick(Base):
    """One run of a schedule that a task was made for. Its key lets no second task be made for the same moment."""

    __tablename__ = "schedule_ticks"

    schedule_id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    due_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), primary_key=True)
    task_id: Mapped[UUID] = mapped_column(Uuid)

    # The pruner takes the oldest. No foreign key: a schedule with a million ticks must be deleted at once.
    __table_args__ = (Index("ix_schedule_ticks_due", "due_at"),)


class Leader(Base):
    """Which worker has the maintenance duties, until when."""

    __tablename__ = "leaders"

    duty: Mapped[str] = mapped_column(Text, primary_key=True)
    worker_id: Mapped[UUID] = mapped_column(Uuid)
    elected_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_NOW)
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class AnsweredKey(Base):
    """The idempotency key of a request that was answered with a task which had its unique key already."""

    __tablename__ = "answered_keys"

    idempotency_key: Mapped[str] = mapped_column(Text, primary_key=True)
    request_hash: Mapped[bytes] = mapped_column(LargeBinary)
    #: goes with it
    task_id: Mapped[UUID] = mapped_column(Uuid)

    # Asked for each task that is removed.
    __table_args__ = (Index("ix_answered_keys_task_id", "task_id"),)


class IngestedMessage(Base):
    """A message with an id that was dealt with; its key lets no second task be made of it."""

    __tablename__ = "ingested_messages"

    source: Mapped[str] = mapped_column(Text, primary_key=True)
    message_id: Mapped[str] = mapped_column(Text, primary_key=True)
    #: the task that it made, or its rejection
    task_id: Mapped[UUID] = mapped_column(Uuid)
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_NOW)

    # The pruner takes the oldest.
    __table_args__ = (Index("ix_ingested_messages_received_at", "received_at"),)


class RejectedMessage(Base):
    """A message that made no task, with the reason."""

    __tablename__ = "rejected_messages"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    source: Mapped[str] = mapped_column(Text)
    message_id: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    details: Mapped[Any] = mapped_column(JSONB, nullable=False)
    #: cut off where `size` is larger
    body: Mapped[bytes] = mapped_column(LargeBinary)
    size: Mapped[int] = mapped_column(Integer)
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_NOW)

    __table_args__ = (CheckConstraint("size >= octet_length(body)", name="ck_rejected_messages_size"),)
