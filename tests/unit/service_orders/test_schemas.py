"""What is taken for an order, and what is refused."""

from __future__ import annotations

from uuid import UUID

import pytest

from service_orders.domain import OrderStatus
from service_orders.schemas import OrderCreate, OrderQuery, OrderUpdate, OrderView
from servicekit.web.schemas import parse_body, parse_query
from servicekit.wire.errors import AppError, Invalid

AN_ID = "018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f"
DECIMAL = 'must be a number, or a decimal in a string such as "52.00"'
OTHER = "118f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f"


def order(quantity: str = "1", price: str = "1", product: str = '"x"', more: str = "") -> bytes:
    line = f'{{"product": {product}, "quantity": {quantity}, "price": {price}{more}}}'
    return f'{{"user_id": "{AN_ID}", "items": [{line}]}}'.encode()


def parse(raw: bytes, model=OrderCreate):
    return parse_body(model, raw, "application/json")


def refused(raw: bytes, model=OrderCreate) -> list[tuple[str, str]]:
    with pytest.raises(AppError) as caught:
        parse(raw, model)
    assert isinstance(caught.value, Invalid)
    return [(detail.field, detail.message) for detail in caught.value.details]


@pytest.mark.parametrize("quantity", ["1", "10", "1000000", "10.0", "1e1"])
def test_a_quantity_is_a_whole_number_from_one_to_a_million(quantity):
    assert parse(order(quantity=quantity)).items[0].quantity == float(quantity)


@pytest.mark.parametrize(
    ("quantity", "said"),
    [
        ('"10"', "must be a whole number"),
        ("true", "must be a whole number"),
        ("10.5", "must be a whole number"),
        ("null", "must be a whole number"),
        ("[1]", "must be a whole number"),
        ("0", "must be at least 1"),
        ("-1", "must be at least 1"),
        ("1000001", "must be at most 1000000"),
    ],
)
def test_other_quantities_are_refused(quantity, said):
    assert refused(order(quantity=quantity)) == [("items.0.quantity", said)]


@pytest.mark.parametrize(
    ("price", "kept"),
    [
        ("52.00", "52.00"),
        ("52", "52"),
        ("0.1", "0.1"),
        ("0", "0"),
        ("-0.0", "0.0"),  # JSON has a negative zero, money has not
        ("1e1", "10"),
        ("1e-2", "0.01"),
        ("99999999.99", "99999999.99"),
        ("52.000", "52.000"),  # the number counts, however it is written
        ('"52.00"', "52.00"),  # as answers have it
    ],
)
def test_a_price_has_at_most_two_decimals(price, kept):
    assert str(parse(order(price=price)).items[0].price) == kept


@pytest.mark.parametrize(
    ("price", "said"),
    [
        ("52.001", "must have at most two decimals"),
        ("1e-3", "must have at most two decimals"),
        ("-0.01", "must be at least 0"),
        ("100000000", "must be at most 99999999.99"),
        ('"52.0"', DECIMAL),
        ('"100000000.00"', "must be at most 99999999.99"),
        ("true", "must be a number"),
        ("null", "must be a number"),
    ],
)
def test_other_prices_are_refused(price, said):
    assert refused(order(price=price)) == [("items.0.price", said)]


@pytest.mark.parametrize("product", ['"Чокопай"', '"x"', '"' + "x" * 200 + '"', '"王 \\"q\\" \\\\"'])
def test_a_product_is_any_text(product):
    assert parse(order(product=product)).items[0].product


@pytest.mark.parametrize("product", ['""', '" "', '"' + "x" * 201 + '"', "1", "null", '"a\\u202eb"', '"\\u200b"'])
def test_blank_or_overlong_products_are_refused(product):
    assert [field for field, _ in refused(order(product=product))] == ["items.0.product"]


@pytest.mark.parametrize(
    ("raw", "findings"),
    [
        (b"{}", [("user_id", "is required"), ("items", "is required")]),
        (f'{{"user_id": "{AN_ID}", "items": []}}'.encode(), [("items", "must have at least 1 item")]),
        (f'{{"user_id": "{AN_ID}", "items": {{}}}}'.encode(), [("items", "must be a list")]),
        (f'{{"user_id": "{AN_ID}", "items": [1]}}'.encode(), [("items.0", "must be an object")]),
        (order(more=', "total": 1'), [("items.0.total", "unknown field")]),
        (order()[:-1] + b', "status": "completed"}', [("status", "unknown field")]),
        (order()[:-1] + b', "total_amount": "1.00"}', [("total_amount", "unknown field")]),
    ],
)
def test_missing_and_unknown_fields_are_named(raw, findings):
    assert refused(raw) == findings


def test_an_order_has_at_most_200_lines():
    line = '{"product": "x", "quantity": 1, "price": 1}'
    whole = '{{"user_id": "%s", "items": [{}]}}' % AN_ID  # noqa: UP031 - the braces are JSON's
    assert len(parse(whole.format(", ".join([line] * 200)).encode()).items) == 200
    assert refused(whole.format(", ".join([line] * 201)).encode()) == [("items", "must have at most 200 items")]


def test_an_update_names_items_status_or_both_and_never_null():
    assert parse(b"{}", OrderUpdate).named() == {}
    assert parse(b'{"status": "cancelled"}', OrderUpdate).named() == {"status": "cancelled"}
    expected = "must be 'created', 'in_progress', 'completed' or 'cancelled'"
    assert refused(b'{"status": null, "items": null}', OrderUpdate) == [
        ("items", "must be a list"),
        ("status", expected),
    ]
    assert refused(b'{"status": "Completed"}', OrderUpdate) == [("status", expected)]
    assert refused(f'{{"user_id": "{AN_ID}"}}'.encode(), OrderUpdate) == [("user_id", "unknown field")]


@pytest.mark.parametrize("raw", [f"user_id={AN_ID}", f"userId={AN_ID}", f"user_id={AN_ID}&userId={AN_ID.upper()}"])
def test_the_owner_may_be_asked_for_under_either_spelling(raw):
    assert parse_query(OrderQuery, raw).owner == UUID(AN_ID)


def test_two_spellings_that_disagree_are_refused():
    with pytest.raises(Invalid, match="user_id and userId name different users"):
        parse_query(OrderQuery, f"user_id={AN_ID}&userId={OTHER}")


@pytest.mark.parametrize("raw", ["user_id=1", "user_id=", "userId=x", "status=", "status=done", "USER_ID=1", "user=1"])
def test_other_filters_are_refused_by_name(raw):
    with pytest.raises(Invalid) as caught:
        parse_query(OrderQuery, raw)
    assert [detail.field for detail in caught.value.details] == [raw.partition("=")[0]]


def test_the_words_of_the_schema_are_those_of_the_domain():
    assert OrderView.model_json_schema()["properties"]["status"]["enum"] == [status.value for status in OrderStatus]
