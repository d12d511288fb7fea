"""The place in a list that `next` names, and what is refused as `after`."""

from __future__ import annotations

import base64
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import Date, DateTime, Integer, Numeric, Text, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from servicekit.web.paging import SortedQuery, Sorting
from servicekit.web.schemas import parse_query
from servicekit.wire.errors import Invalid

AN_ID = UUID("018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f")
MOMENT = datetime(2026, 1, 31, 15, 0, 0, 123456, UTC)


class Base(DeclarativeBase):
    pass


class Crate(Base):
    __tablename__ = "crates"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    label: Mapped[str] = mapped_column(Text)
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    due: Mapped[date] = mapped_column(Date)
    number: Mapped[int] = mapped_column(Integer)


SORTING = Sorting(Crate.id, Crate.created_at, label=Crate.label, price=Crate.price, due=Crate.due, number=Crate.number)


def place(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def query(sort: str, after: str) -> SortedQuery:
    return parse_query(SortedQuery, f"sort={sort}&after={after}")


@pytest.mark.parametrize(
    ("sort", "value"),
    [
        ("created_at", MOMENT),
        ("-created_at", datetime(1, 1, 1, tzinfo=UTC)),
        ("label", ""),
        ("-label", " a b\nё 👷🏽‍♀️ "),
        ("label", "\U0001d160" * 3 * 200),  # the longest that a name of 200 characters can become
        ("price", Decimal("99999999.99")),
        ("-price", Decimal("0.00")),
        ("due", date(9999, 12, 31)),
        ("-number", 123456789),
    ],
)
def test_a_place_is_read_as_it_was_written(sort, value):
    after = SORTING.next(sort, AN_ID, value)
    assert SORTING.place(query(sort, after)) == {"after_value": value, "after_id": AN_ID}


def test_without_after_there_is_no_place():
    assert SORTING.place(SortedQuery()) == {}


@pytest.mark.parametrize(
    ("sort", "after"),
    [
        ("created_at", ""),
        ("created_at", "x"),
        ("created_at", "Ж"),
        ("created_at", str(AN_ID)),
        ("created_at", place("")),
        ("created_at", place(f"created_at {AN_ID}")),
        ("created_at", place(f"created_at {AN_ID} yesterday")),
        ("created_at", place(f"created_at {AN_ID} 2026-01-31T15:00:00")),
        ("created_at", place(f"created_at 1 {MOMENT.isoformat()}")),
        ("created_at", place(f"created_at {AN_ID} {MOMENT.isoformat()}") + "!"),
        ("created_at", base64.urlsafe_b64encode(b"created_at \xff x").decode().rstrip("=")),
        ("label", place(f"label {AN_ID} a\0b")),
        ("label", base64.urlsafe_b64encode(f"label {AN_ID} ".encode() + b"\xed\xa0\x80").decode().rstrip("=")),
        ("price", place(f"price {AN_ID} NaN")),
        ("price", place(f"price {AN_ID} 1e999999")),
        ("price", place(f"price {AN_ID} -1")),
        ("price", place(f"price {AN_ID} ١")),
        ("due", place(f"due {AN_ID} 2026-02-30")),
        ("due", place(f"due {AN_ID} 20260228")),
        ("number", place(f"number {AN_ID} 1e9")),
    ],
)
def test_whatever_no_page_gave_is_refused_as_after(sort, after):
    with pytest.raises(Invalid) as refused:
        SORTING.place(query(sort, after))
    assert [(detail.field, detail.message) for detail in refused.value.details] == [
        ("after", "must be the `next` of a page of this list")
    ]


@pytest.mark.parametrize("sort", ["-label", "created_at"])
def test_a_place_in_another_order_is_refused(sort):
    with pytest.raises(Invalid, match="belongs to another `sort`"):
        SORTING.place(query(sort, SORTING.next("label", AN_ID, "x")))


@pytest.mark.parametrize(
    ("raw", "moment"),
    [
        ("2026-01-31T15:00:00Z", datetime(2026, 1, 31, 15, tzinfo=UTC)),
        ("2026-01-31T18:00:00%2B03:00", datetime(2026, 1, 31, 15, tzinfo=UTC)),
        ("2026-01-31T18:00:00+03:00", datetime(2026, 1, 31, 15, tzinfo=UTC)),  # a plus sign is a space
        ("2026-01-31T10:00:00.5-05:00", datetime(2026, 1, 31, 15, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_a_time_in_a_query_may_have_any_offset(raw, moment):
    assert parse_query(SortedQuery, f"created_from={raw}").created_from == moment


@pytest.mark.parametrize(
    ("raw", "field", "said"),
    [
        ("created_from=2026-01-31", "created_from", "must be a time with its offset, such as 2026-01-31T15:00:00Z"),
        (
            "created_to=2026-01-31T15:00:00",
            "created_to",
            "must be a time with its offset, such as 2026-01-31T15:00:00Z",
        ),
        ("created_to=2026-02-30T15:00:00Z", "created_to", "is not a time that exists"),
        (
            "created_from=2026-01-31T15:00:00Z&created_to=2026-01-31T15:00:00%2B01:00",
            "created_to",
            "must not be before created_from",
        ),
        ("offset=10001", "offset", "must be at most 10000; to go further, send the `next` of a page as `after`"),
        ("total=no", "total", "must be true or false"),
        ("after=" + "x" * 4001, "after", "must have at most 4000 characters"),
    ],
)
def test_other_values_are_refused_by_name(raw, field, said):
    with pytest.raises(Invalid) as refused:
        parse_query(SortedQuery, raw)
    assert [(detail.field, detail.message) for detail in refused.value.details] == [(field, said)]
