"""What PostgreSQL writes of a row is what the compiled encoder of its view writes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from service_orders.schemas import ItemView, OrderView
from service_orders.tables import Order
from service_users.schemas import UserView
from service_users.tables import User
from servicekit.web.encoders import encoder_of
from servicekit.web.sql_encoders import sql_encoder_of
from tests.support.postgres import ServiceDatabase

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=3, max_size=20)
MONEY = st.decimals(min_value=0, max_value=Decimal("99999999.99"), places=2)
#: As many decimals as a second has, and none.
TIMES = st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)) | st.datetimes(
    min_value=datetime(2026, 1, 1), max_value=datetime(2027, 1, 1), timezones=st.just(UTC)
).map(lambda moment: moment.replace(microsecond=moment.microsecond // 10_000 * 10_000))
ITEMS = st.fixed_dictionaries({"product": TEXT, "quantity": st.integers(1, 1_000_000), "price": MONEY})


def written(database: ServiceDatabase, model: type, view: type, row: dict) -> str:
    with database.database.transaction() as session:
        session.execute(insert(model).values(row))
        text = session.scalar(
            select(sql_encoder_of(view, model.__table__.columns)).where(model.__table__.c.id == row["id"])
        )
        session.rollback()
    return text


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(email=TEXT, name=TEXT, roles=st.lists(TEXT, min_size=1, max_size=3), created=TIMES, updated=TIMES)
def test_a_user_has_the_same_bytes(users_database, email, name, roles, created, updated):
    row = {"id": uuid4(), "email": email, "name": name, "roles": roles, "created_at": created, "updated_at": updated}
    view = UserView.unchecked(**row)
    assert written(users_database, User, UserView, {**row, "email_key": email, "name_key": name}) == encoder_of(
        UserView
    )(view)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    items=st.lists(ITEMS, min_size=1, max_size=3),
    reason=st.none() | TEXT,
    total=MONEY,
    user=st.uuids(),
    created=TIMES,
    updated=TIMES,
)
def test_an_order_has_the_same_bytes(orders_database, items, reason, total, user, created, updated):
    row = {
        "id": uuid4(),
        "user_id": user,
        "items": items,
        "status": "cancelled",
        "total_amount": total,
        "cancel_reason": reason,
        "created_at": created,
        "updated_at": updated,
    }
    view = OrderView.unchecked(**{**row, "items": [ItemView.unchecked(**item) for item in items]})
    assert written(orders_database, Order, OrderView, {**row, "products_key": "x"}) == encoder_of(OrderView)(view)


def test_a_field_of_another_kind_is_refused_when_the_statement_is_made():
    class Strange(UserView):
        name: dict[str, UUID]

    with pytest.raises(TypeError, match="no SQL"):
        sql_encoder_of(Strange, User.__table__.columns)
