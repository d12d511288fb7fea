"""What is compiled from a view's model writes the bytes that pydantic's own way writes."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, field_serializer

import service_orders
import service_tasks
import service_users
from servicekit.process.services import services
from servicekit.web.encoders import encoder_of
from servicekit.web.preconditions import Resource
from servicekit.web.schemas import Money, View
from servicekit.wire.envelope import Written, dump

for name in ("api_gateway.control", "servicekit.events.inbox"):
    importlib.import_module(name)
for package in (service_users, service_orders, service_tasks):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if "schemas" in module.name:
            importlib.import_module(module.name)

OWN = ("servicekit", "api_gateway", *(service.package for service in services().values()))


def every(base: type[View] = View) -> Iterator[type[View]]:
    if base.__module__.startswith(OWN):
        yield base
    for below in base.__subclasses__():
        yield from every(below)


NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | NUMBERS | st.builds(Written, st.just('{"a": 1}')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(),
    int: st.integers(),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    UUID: st.uuids(),
    Decimal: NUMBERS,
    datetime: st.datetimes(
        min_value=datetime(2, 1, 1), timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])
    ),
    date: st.dates(),
    Any: JSON,
}


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return values_of(arguments[0])
    if origin in (Union, UnionType):
        return st.one_of(*(st.none() if one is NoneType else values_of(one) for one in arguments))
    if origin is list:
        return st.lists(values_of(arguments[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=3)
    if origin is Literal:
        return st.sampled_from(arguments)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = {name: values_of(field.annotation) for name, field in kind.model_fields.items()}
        return st.builds(kind.model_construct, **fields)
    return SIMPLE[kind]


class Odd(Resource):
    """What a service of somebody else may have."""

    untagged: ClassVar[frozenset[str]] = frozenset({"when"})

    prices: dict[str, Money]
    either: int | str
    cheapest: Money | None
    when: datetime
    due: date | None


class OwnSerializer(View):
    name: str

    @field_serializer("name")
    def loud(self, name: str) -> str:
        return name.upper()


class Outer(View):
    inner: list[OwnSerializer]


@pytest.mark.parametrize(
    "model", [*dict.fromkeys(every()), Odd, OwnSerializer, Outer], ids=lambda model: model.__name__
)
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_encoder_writes_what_pydantic_writes(model, data):
    view = data.draw(values_of(model))
    assert encoder_of(model)(view).encode() == dump(view)
    if issubclass(model, Resource):
        tagged = view.model_dump(exclude=set(model.untagged))
        assert encoder_of(model, model.untagged)(view).encode() == dump(tagged)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_refused(number):
    class Measured(View):
        value: float

    with pytest.raises(ValueError, match="JSON"):
        encoder_of(Measured)(Measured(value=number))
