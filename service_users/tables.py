"""The users table. Every constraint has a name, so that its violation becomes a domain error."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, Index, MetaData, Text, UniqueConstraint, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from servicekit.database.trigrams import define_trigrams
from servicekit.events.outbox import define_outbox
from servicekit.web.idempotency import define_idempotency_keys


class Base(DeclarativeBase):
    """Holds this service's metadata."""

    metadata = MetaData()


define_outbox(Base.metadata)
define_idempotency_keys(Base.metadata)
define_trigrams(Base.metadata, "name_key", "email_key")


class User(Base):
    """One person."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    email: Mapped[str] = mapped_column(Text)
    #: The address as it is compared; see servicekit.wire.caseless.
    email_key: Mapped[str] = mapped_column(Text(collation="C"))
    name: Mapped[str] = mapped_column(Text)
    #: The name as it is searched and sorted. Collation C is the same on every server, and of every version.
    name_key: Mapped[str] = mapped_column(Text(collation="C"))
    roles: Mapped[list[str]] = mapped_column(ARRAY(Text))
    password_hash: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    __table_args__ = (
        UniqueConstraint("email_key", name="uq_users_email_key"),
        CheckConstraint("char_length(email) BETWEEN 3 AND 254", name="ck_users_email_length"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 200", name="ck_users_name_length"),
        CheckConstraint("cardinality(roles) BETWEEN 1 AND 16", name="ck_users_roles_count"),
        Index("ix_users_newest", text("created_at DESC"), text("id DESC")),
        Index("ix_users_name", "name_key", "id"),
        Index("ix_users_roles", "roles", postgresql_using="gin"),
        Index("ix_users_trigrams", text("trigrams(name_key, email_key)"), postgresql_using="gin"),
    )
