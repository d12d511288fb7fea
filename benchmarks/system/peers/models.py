"""The tables as both stacks map them, and the bodies that both take."""

from __future__ import annotations

import base64
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, EmailStr, Field
from sqlalchemy import ARRAY, DateTime, Numeric, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

WORDS = {"scheduled": "pending", "ready": "pending", "running": "processing"}
STATES = {"pending": ["scheduled", "ready"], "processing": ["running"]}


def now() -> datetime:
    return datetime.now(UTC)


def place(row: Any) -> str:
    """Where the next page begins."""
    said = f"-created_at {row.id} {row.created_at.astimezone(UTC).isoformat()}"
    return base64.urlsafe_b64encode(said.encode()).decode().rstrip("=")


class Base(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(timezone=True), dict[str, Any]: JSONB, list[str]: ARRAY(Text)}  # noqa: RUF012 - SQLAlchemy's form


class User(Base):
    __tablename__ = "users"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    email: Mapped[str]
    email_key: Mapped[str]
    name: Mapped[str]
    name_key: Mapped[str]
    roles: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    user_id: Mapped[uuid.UUID]
    items: Mapped[list[Any]] = mapped_column(JSONB)
    status: Mapped[str] = mapped_column(default="created")
    total_amount: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    cancel_reason: Mapped[str | None]
    products_key: Mapped[str] = mapped_column(deferred=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class Task(Base):
    __tablename__ = "tasks"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    state: Mapped[str] = mapped_column(default="ready")
    task_type: Mapped[str]
    title: Mapped[str | None]
    user_id: Mapped[uuid.UUID | None]
    payload: Mapped[dict[str, Any]]
    priority: Mapped[int] = mapped_column(default=50)
    attempts: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=3)
    timeout_seconds: Mapped[float | None]
    execute_at: Mapped[datetime] = mapped_column(default=now)
    progress_percent: Mapped[int] = mapped_column(default=0)
    progress_message: Mapped[str | None]
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    error: Mapped[str | None]
    errors: Mapped[list[Any]] = mapped_column(JSONB, default=list, server_default=text("'[]'"))
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    unique_key: Mapped[str | None]
    callback_url: Mapped[str | None]
    callback_task_id: Mapped[uuid.UUID | None]

    @property
    def status(self) -> str:
        return WORDS.get(self.state, self.state)

    @property
    def timeout(self) -> float | None:
        return self.timeout_seconds

    @property
    def progress(self) -> dict[str, Any]:
        return {"percent": self.progress_percent, "message": self.progress_message}

    @property
    def duration(self) -> float | None:
        if self.started_at is None:
            return None
        return ((self.completed_at or now()) - self.started_at).total_seconds()


Name = Annotated[str, Field(min_length=1, max_length=200)]


class UserCreate(BaseModel):
    email: EmailStr
    name: Name
    roles: list[str] = Field(default=["user"], min_length=1, max_length=16)

    def made(self) -> User:
        return User(
            email=self.email,
            email_key=self.email.casefold(),
            name=self.name,
            name_key=self.name.casefold(),
            roles=self.roles,
        )


class UserUpdate(BaseModel):
    email: EmailStr | None = None
    name: Name | None = None
    roles: list[str] | None = None

    def apply(self, user: User) -> None:
        for field, value in self.model_dump(exclude_unset=True).items():
            setattr(user, field, value)
            if field in ("email", "name"):
                setattr(user, f"{field}_key", value.casefold())


class Item(BaseModel):
    product: Name
    quantity: int = Field(ge=1, le=1_000_000)
    price: Decimal = Field(ge=0, decimal_places=2)


class OrderCreate(BaseModel):
    user_id: uuid.UUID
    items: list[Item] = Field(min_length=1, max_length=200)

    def made(self) -> Order:
        order = Order(user_id=self.user_id)
        put_items(order, self.items)
        return order


class OrderUpdate(BaseModel):
    items: list[Item] | None = Field(default=None, min_length=1, max_length=200)
    status: str | None = None

    def apply(self, order: Order) -> None:
        if self.items is not None:
            put_items(order, self.items)
        if self.status is not None:
            order.status = self.status


class TaskCreate(BaseModel):
    task_type: str = Field(default="noop", min_length=1, max_length=50)
    payload: dict[str, Any] = Field(default_factory=dict)
    title: Name | None = None
    user_id: uuid.UUID | None = None
    priority: int = Field(default=50, ge=0, le=100)
    max_attempts: int = Field(default=3, ge=1, le=25)

    def made(self) -> Task:
        return Task(**self.model_dump())


def put_items(order: Order, items: list[Item]) -> None:
    order.items = [{"product": i.product, "quantity": i.quantity, "price": float(i.price)} for i in items]
    order.products_key = "\n".join(item.product.casefold() for item in items)
    order.total_amount = sum((item.quantity * item.price for item in items), Decimal())
