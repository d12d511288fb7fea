"""The rules about orders: exact totals, and which status follows which."""

from __future__ import annotations

from decimal import Decimal
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service_orders.domain import (
    DELETABLE,
    LARGEST_TOTAL,
    TRANSITIONS,
    OrderStatus,
    require_deletable,
    require_items_changeable,
    step,
    total_of,
)
from service_orders.errors import OrderStateConflict, TotalTooLarge

CREATED, IN_PROGRESS, COMPLETED, CANCELLED = OrderStatus


@pytest.mark.parametrize(
    ("lines", "total"),
    [
        ([(10, "52.00")], "520.00"),  # 10 × 52.00
        ([(3, "0.1")], "0.30"),  # 3 × 0.1, where floats say 0.30000000000000004
        ([(1, "0.1"), (1, "0.2")], "0.30"),  # 0.1 + 0.2
        ([(1, "0")], "0.00"),
        ([(7, "1"), (2, "0.55")], "8.10"),  # 7 + 1.10
        ([(3, "19.99"), (2, "5.5"), (1, "100")], "170.97"),  # 59.97 + 11.00 + 100
        ([(1_000_000, "99.99")], "99990000.00"),
        ([(1, "99999999.99")], "99999999.99"),  # the most numeric(10,2) holds
        ([(1, "99999999.98"), (1, "0.01")], "99999999.99"),
        ([(1, "0.01")] * 200, "2.00"),  # 200 × 0.01
    ],
)
def test_totals_are_exact(lines, total):
    result = total_of((quantity, Decimal(price)) for quantity, price in lines)
    assert str(result) == total


@pytest.mark.parametrize(
    "lines",
    [
        [(1, "99999999.99"), (1, "0.01")],  # 100000000.00
        [(2, "50000000")],
        [(1_000_000, "100")],
        [(1_000_000, "99999999.99")] * 200,
    ],
)
def test_a_total_beyond_ten_digits_is_refused_on_the_items(lines):
    with pytest.raises(TotalTooLarge) as caught:
        total_of((quantity, Decimal(price)) for quantity, price in lines)
    (detail,) = caught.value.details
    assert (detail.field, detail.message) == ("items", f"add up to more than {LARGEST_TOTAL}")


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 10_000)), min_size=1, max_size=20))
def test_a_total_in_decimals_is_the_total_in_cents(lines):
    cents = sum(quantity * price for quantity, price in lines)
    assert total_of((quantity, Decimal(price) / 100) for quantity, price in lines) * 100 == cents


STEPS = {
    (CREATED, IN_PROGRESS),
    (CREATED, CANCELLED),
    (IN_PROGRESS, COMPLETED),
    (IN_PROGRESS, CANCELLED),
}


@pytest.mark.parametrize(("present", "wanted"), sorted(product(OrderStatus, OrderStatus)))
def test_each_step_is_taken_or_refused_naming_both_states(present, wanted):
    if present is wanted or (present, wanted) in STEPS:
        assert step(present, wanted) is wanted
    else:
        with pytest.raises(OrderStateConflict, match=f"An order that is {present} cannot become {wanted}"):
            step(present, wanted)


def test_the_table_of_steps_has_every_status():
    assert set(TRANSITIONS) == set(OrderStatus)


@pytest.mark.parametrize("present", OrderStatus)
def test_items_change_only_while_created(present):
    if present is CREATED:
        require_items_changeable(present)
    else:
        with pytest.raises(OrderStateConflict, match=f"order that is {present} cannot change"):
            require_items_changeable(present)


@pytest.mark.parametrize("present", OrderStatus)
def test_only_created_and_cancelled_orders_can_be_deleted(present):
    assert {CREATED, CANCELLED} == DELETABLE
    if present in DELETABLE:
        require_deletable(present)
    else:
        with pytest.raises(OrderStateConflict, match=f"An order that is {present} cannot be deleted"):
            require_deletable(present)
