"""The orders table. Every constraint has a name, so that its violation becomes a domain error."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, Index, MetaData, Numeric, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from servicekit.database.trigrams import define_trigrams
from servicekit.events.inbox import define_inbox
from servicekit.events.outbox import define_outbox
from servicekit.events.tombstones import define_tombstones
from servicekit.web.idempotency import define_idempotency_keys

_NEWEST = (text("created_at DESC"), text("id DESC"))


class Base(DeclarativeBase):
    """Holds this service's metadata."""

    metadata = MetaData()


define_outbox(Base.metadata)
define_inbox(Base.metadata)
define_tombstones(Base.metadata)
define_idempotency_keys(Base.metadata)
define_trigrams(Base.metadata, "products_key")


class Order(Base):
    """One order. Its user is in another service's database, so there is no foreign key."""

    __tablename__ = "orders"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    user_id: Mapped[UUID] = mapped_column(Uuid)
    items: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    status: Mapped[str] = mapped_column(Text)
    total_amount: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    #: The products as they are searched (servicekit.wire.caseless), each on a line. Not read with an order.
    products_key: Mapped[str] = mapped_column(Text(collation="C"), deferred=True)
    #: Why it was cancelled, if not by request.
    cancel_reason: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint("status IN ('created', 'in_progress', 'completed', 'cancelled')", name="ck_orders_status"),
        CheckConstraint("total_amount >= 0", name="ck_orders_total_not_negative"),
        CheckConstraint(
            "jsonb_typeof(items) = 'array' AND jsonb_array_length(items) BETWEEN 1 AND 200",
            name="ck_orders_items_count",
        ),
        CheckConstraint(
            "cancel_reason IS NULL OR (status = 'cancelled' AND char_length(cancel_reason) BETWEEN 1 AND 200)",
            name="ck_orders_cancel_reason",
        ),
        Index("ix_orders_newest", *_NEWEST),
        Index("ix_orders_status_newest", "status", *_NEWEST, postgresql_include=["user_id", "total_amount"]),
        Index("ix_orders_total", "total_amount", "id", postgresql_include=["user_id", "status"]),
        Index("ix_orders_trigrams", text("trigrams(products_key)"), postgresql_using="gin"),
        Index("ix_orders_user_newest", "user_id", *_NEWEST, postgresql_include=["status", "total_amount"]),
    )
