"""(pure) A work item, as far as rules depend on it."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID


class ItemKind(StrEnum):
    """What a work item is."""

    DEFECT = "defect"
    TASK = "task"
    CUSTOMER_REMARK = "customer_remark"


class WorkState(StrEnum):
    """How far the work is."""

    DRAFT = "draft"
    OPEN = "open"
    IN_PROGRESS = "in_progress"
    READY = "ready"
    RETURNED = "returned"
    DISPUTED = "disputed"
    CLOSED = "closed"
    VOID = "void"


class Resolution(StrEnum):
    """How a closed or void item came to its end."""

    FIXED = "fixed"
    ACCEPTED_AS_IS = "accepted_as_is"
    DUPLICATE = "duplicate"
    NO_DEFECT = "no_defect"
    MISTAKE = "mistake"


class Severity(StrEnum):
    """How dangerous a defect is."""

    CRITICAL = "critical"
    SIGNIFICANT = "significant"
    MINOR = "minor"


class ItemState(Protocol):
    """An item as it is now: a row, or anything else with these columns."""

    @property
    def id(self) -> UUID: ...
    @property
    def kind(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def resolution(self) -> str | None: ...
    @property
    def organisation(self) -> str: ...
    @property
    def assignee_id(self) -> UUID | None: ...
    @property
    def assignee_name(self) -> str: ...
    @property
    def author_id(self) -> UUID | None: ...
    @property
    def done_by_id(self) -> UUID | None: ...
    @property
    def done_by_organisation(self) -> str: ...
    @property
    def due_on(self) -> date | None: ...
    @property
    def original_due_on(self) -> date | None: ...
    @property
    def submitted_at(self) -> datetime | None: ...
    @property
    def first_closed_at(self) -> datetime | None: ...
    @property
    def closed_at(self) -> datetime | None: ...
    @property
    def reopen_count(self) -> int: ...
    @property
    def visible_to_customer(self) -> bool: ...
    @property
    def duplicate_of(self) -> UUID | None: ...
