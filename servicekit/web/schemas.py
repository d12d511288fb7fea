"""Models of input and output, and their strict parsing with one error per field."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Self, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)
from pydantic.json_schema import SkipJsonSchema

from servicekit.wire.errors import FieldError, Invalid, UnsupportedMediaType
from servicekit.wire.json_reader import read_json

MAX_ERRORS_SHOWN = 20
MAX_QUERY_FIELDS = 50
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_WHOLE = re.compile(r"-?[0-9]{1,18}")

__all__ = [
    "Amount",
    "Body",
    "Id",
    "JsonValue",
    "Money",
    "PageQuery",
    "PageView",
    "Query",
    "QueryFlag",
    "QueryInt",
    "QueryText",
    "Seconds",
    "SkipJsonSchema",
    "Timestamp",
    "Update",
    "View",
    "id_from_path",
    "parse_body",
    "parse_query",
    "unsent",
]


def parse_uuid(value: Any) -> UUID:
    """Accept a UUID only in its usual text form (RFC 9562 section 4)."""
    if isinstance(value, UUID):
        return value
    if isinstance(value, str) and _UUID.fullmatch(value):
        return UUID(value)
    raise ValueError("must be a UUID such as 018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f")


def parse_timestamp(value: Any) -> Any:
    """Accept only RFC 3339 with an offset; return the time in UTC, to the microsecond."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("must be a time with its offset, such as 2026-01-31T15:00:00Z")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise ValueError("is not a time that exists") from exc


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("must be a number")
    return Decimal(value)


def _seconds(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be a number of seconds")
    return float(value)


def _whole_from_query(value: Any) -> Any:
    if isinstance(value, str):
        if not _WHOLE.fullmatch(value):
            raise ValueError("must be a whole number")
        return int(value)
    return value


def _flag_from_query(value: Any) -> Any:
    if isinstance(value, str):
        if value not in ("true", "false"):
            raise ValueError("must be true or false")
        return value == "true"
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not hold the character U+0000")
    return value


Id = Annotated[UUID, BeforeValidator(parse_uuid)]
Timestamp = Annotated[datetime, BeforeValidator(parse_timestamp)]
#: An exact JSON number; add bounds and decimals with Field.
Amount = Annotated[Decimal, BeforeValidator(_number), WithJsonSchema({"type": "number"})]
#: A JSON number of seconds, as a float.
Seconds = Annotated[float, BeforeValidator(_seconds)]
#: A Decimal sent as a string, so that no client rounds it.
Money = Annotated[
    Decimal,
    PlainSerializer(lambda value: format(value, "f"), return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+\.\d{2}$", "examples": ["520.00"]}),
]
QueryInt = Annotated[int, BeforeValidator(_whole_from_query)]
QueryFlag = Annotated[bool, BeforeValidator(_flag_from_query)]
QueryText = Annotated[
    str, Field(max_length=500, json_schema_extra={"pattern": r"^[^\u0000]*$"}), AfterValidator(_no_nul)
]
#: Any JSON, with exact numbers.
JsonValue = Annotated[Any, WithJsonSchema({})]


def _without_default(schema: dict[str, Any]) -> None:
    for field in schema.get("properties", {}).values():
        if field.get("default", ...) is None:
            del field["default"]


class Body(BaseModel):
    """A request body: strict types, unknown fields refused by name."""

    model_config = ConfigDict(
        strict=True, extra="forbid", hide_input_in_errors=True, json_schema_extra=_without_default
    )

    #: For a body that is a JSON array: the only field, which takes it.
    array_field: ClassVar[str | None] = None


class Update(Body):
    """A body that changes only the fields it contains; an absent field differs from null.

    Its fields default to `unsent()`, so that an explicit null is refused unless the type allows it.
    """

    def named(self) -> dict[str, Any]:
        """The fields that were sent, with their values."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def unsent(description: str | None = None) -> Any:
    """The default of an Update's field: never validated, never visible, absent from the OpenAPI document."""
    return Field(default=None, description=description)


class Query(BaseModel):
    """A query string: each parameter at most once, unknown ones refused by name."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, populate_by_name=True)


class PageQuery(Query):
    """Which part of a list is wanted."""

    limit: QueryInt = Field(default=50, ge=1, le=100, description="how many at most")
    offset: QueryInt = Field(default=0, ge=0, le=1_000_000_000, description="how many to pass over first")


class View(BaseModel):
    """An answer, built from a row or a domain object by attribute."""

    model_config = ConfigDict(from_attributes=True)

    @classmethod
    def of(cls, source: object) -> Self:
        return cls.model_validate(source)


class PageView(View):
    """One page of a list; subclasses add the list, named after the resource."""

    total: int = Field(description="how many there are in all", ge=0)
    limit: int
    offset: int


B = TypeVar("B", bound=Body)
Q = TypeVar("Q", bound=Query)


#: Messages for pydantic's errors, for people; the braces take the error's context.
_MESSAGES = {
    "extra_forbidden": "unknown field",
    "missing": "is required",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "string_pattern_mismatch": "must match {pattern}",
    "literal_error": "must be {expected}",
}
_DECIMAL = re.compile(r"Decimal\('([^']*)'\)")  # how pydantic writes a Decimal bound
_OPENINGS = re.compile(r"^(?:Value error, |(?:Input|String|List|Dictionary|Value) should )")


def _plain_message(error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    kind = error["type"]
    if context.get("field_type") == "Value":  # a length limit after one of our functions: always a string
        kind = f"string_{kind}"
    if template := _MESSAGES.get(kind):
        message = _DECIMAL.sub(r"\1", template.format_map(context))
        return message.removesuffix("s") if re.search(r" 1 \w+s$", message) else message
    return _OPENINGS.sub(lambda opening: "must " if "should" in opening[0] else "", str(error["msg"]))


def _field_errors(exc: ValidationError) -> Iterator[FieldError]:
    for error in exc.errors(include_input=False, include_url=False)[:MAX_ERRORS_SHOWN]:
        # A long or strange key from the body is shortened: it appears in our answer and our log.
        yield FieldError(".".join(str(part)[:100] for part in error["loc"]) or "body", _plain_message(error))


def invalid_from(exc: ValidationError) -> Invalid:
    """Turn pydantic's errors into one `Invalid` with a detail per field."""
    details = list(_field_errors(exc))
    return Invalid("; ".join(f"{d.field}: {d.message}" for d in details[:3]), details=details)


def is_json(content_type: str | None) -> bool:
    media_type = (content_type or "").partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


def parse_body(model: type[B], raw: bytes | str, content_type: str | None, *, may_be_empty: bool = False) -> B:
    """Parse a body; with `may_be_empty`, an empty one counts as `{}` and needs no Content-Type.

    Raises `UnsupportedMediaType`, `InvalidJson`, or `Invalid` with a detail per field.
    """
    if not raw and may_be_empty:
        return model.model_validate({})
    if not is_json(content_type):
        raise UnsupportedMediaType
    if not raw:
        raise Invalid("Send a JSON object as the body.", details=[FieldError("body", "is empty")])
    value = read_json(raw)
    if model.array_field is not None:
        if not isinstance(value, list):
            raise Invalid("The body must be a JSON array.", details=[FieldError("body", "must be a list")])
        value = {model.array_field: value}
    if not isinstance(value, dict):
        raise Invalid("The body must be a JSON object.", details=[FieldError("body", "must be an object")])
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        raise invalid_from(exc) from exc


def parse_query(model: type[Q], raw: str | bytes) -> Q:
    """Parse the undecoded query string; raises `Invalid`, naming what is unknown, repeated or wrong.

    Bytes beyond ASCII that are not percent-encoded count as UTF-8, as in every browser.
    """
    try:
        text = raw if isinstance(raw, str) else raw.decode("utf-8")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except UnicodeDecodeError as exc:
        raise Invalid("The query string is not UTF-8.") from exc
    except ValueError as exc:
        raise Invalid(f"The query string has more than {MAX_QUERY_FIELDS} parameters.") from exc
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise Invalid.field(name[:100], "is given twice")
        values[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        raise invalid_from(exc) from exc


def id_from_path(name: str, text: str) -> UUID:
    """Parse a UUID from the path."""
    try:
        return parse_uuid(text)
    except ValueError as exc:
        raise Invalid.field(name, str(exc)) from exc
