"""The tables of the task service. Every constraint and index has a name."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    DateTime,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from servicekit.inbox import define_inbox
from servicekit.outbox import define_outbox
from servicekit.tombstones import define_tombstones

_NOW = text("now()")


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
    cancel_requested_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    idempotency_key: Mapped[str | None] = mapped_column(Text)
    #: SHA-256 of the request that came with the key
    request_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_NOW)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=_NOW)
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    completed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

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
        CheckConstraint("(idempotency_key IS NULL) = (request_hash IS NULL)", name="ck_tasks_idempotency"),
        Index(
            "ix_tasks_ready",
            "task_type",
            text("priority DESC"),
            "execute_at",
            "id",
            postgresql_where=text("state = 'ready'"),
        ),
        Index("ix_tasks_scheduled", "execute_at", "id", postgresql_where=text("state = 'scheduled'")),
        Index("ix_tasks_worker", "worker_id", postgresql_where=text("worker_id IS NOT NULL")),
        Index("ix_tasks_user", "user_id", text("id DESC"), postgresql_where=text("user_id IS NOT NULL")),
        Index(
            "ix_tasks_ended_badly",
            "state",
            text("id DESC"),
            postgresql_where=text("state IN ('failed', 'cancelled')"),
        ),
        Index(
            "uq_tasks_idempotency_key",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
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

    __table_args__ = (CheckConstraint("lease_seconds > 0", name="ck_workers_lease"),)
