"""Views that PostgreSQL writes: SQL made from their models, which gives the text that `encoders` gives of a row.

A row of a page is then one text, which is neither read into Python's values nor written again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from json.encoder import encode_basestring
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Text, case, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from servicekit.web.schemas import Money

Sql = ColumnElement[Any]


def sql_encoder_of(
    model: type[BaseModel], columns: ReadOnlyColumnCollection[str, Any] | Mapping[str, Any]
) -> ColumnElement[str]:
    """An expression for the JSON of a row with these columns, named after the model's fields.

    Lists are arrays, or jsonb if they hold views, whose amounts have two decimals there. A column of the type JSON is
    written as it is. Raises TypeError for a field of a kind that no list has yet.
    """
    return _object(model, {name: (columns[name], isinstance(columns[name].type, JSONB)) for name in model.model_fields})


def _object(model: type[BaseModel], values: Mapping[str, tuple[Sql, bool]]) -> ColumnElement[str]:
    pieces: list[Sql] = []
    for name, field in model.model_fields.items():
        pieces.append(_constant(f"{',' if pieces else '{'}{encode_basestring(name)}:"))
        kind = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        pieces += _pieces(kind, *values[name])
    return func.concat(*pieces, _constant("}"), type_=Text())


def _pieces(kind: Any, value: Sql, in_json: bool) -> list[Sql]:
    """What is written of a value, one behind the other; `in_json`: it is jsonb."""
    if isinstance(value.type, JSON) and not isinstance(value.type, JSONB):
        return [value]
    origin, arguments = get_origin(kind), get_args(kind)
    quote = _constant('"')
    if kind == Money:
        return [quote, value, quote]
    if origin is Annotated:
        return _pieces(arguments[0], value, in_json)
    if origin in (Union, UnionType) and len(arguments) == 2 and NoneType in arguments and not in_json:
        (inner,) = (one for one in arguments if one is not NoneType)
        pieces = _pieces(inner, value, in_json)
        if len(pieces) == 1:
            # So that a value that is a subquery runs once.
            return [func.coalesce(cast(pieces[0], Text()), _constant("null"))]
        return [case((value.is_(None), _constant("null")), else_=func.concat(*pieces))]
    if origin is list and in_json and isinstance(arguments[0], type) and issubclass(arguments[0], BaseModel):
        item = func.jsonb_array_elements(value).column_valued("item")
        fields = {name: (item.op("->")(_constant(name)), True) for name in arguments[0].model_fields}
        items = select(func.string_agg(_object(arguments[0], fields), _constant(","))).scalar_subquery()
        return [_constant("["), items, _constant("]")]
    if kind in (int, Decimal) or (kind is str and in_json):
        return [value]
    if kind is str or origin is Literal or (origin is list and arguments == (str,)):
        return [func.to_json(value)]
    if kind is bool:
        return [cast(value, Text())]
    if kind in (UUID, date):
        return [quote, value, quote]
    if kind is datetime:
        # As isoformat() does: six decimals, or none.
        moment = func.to_char(func.timezone(_constant("UTC"), value), _constant('YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
        return [quote, func.replace(moment, _constant(".000000Z"), _constant("Z")), quote]
    raise TypeError(f"no SQL for {kind}")


def _constant(text: str) -> Sql:
    return literal_column("'" + text.replace("'", "''") + "'", Text())
