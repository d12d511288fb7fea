"""Models of input and output, and their strict parsing with one error per field."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args
from urllib.parse import parse_qsl
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core.core_schema import ErrorType

from servicekit.wire.envelope import dump
from servicekit.wire.errors import FieldError, Invalid, UnsupportedMediaType
from servicekit.wire.json_reader import read_json

MAX_ERRORS_SHOWN = 20
_IN_MESSAGE = 3
MAX_QUERY_FIELDS = 50
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_WHOLE = re.compile(r"(-?[0-9]{1,18})(?:\.0{1,18})?")
_MONEY = re.compile(r"[0-9]{1,18}\.[0-9]{2}")
_JOINERS = "\u200c\u200d"
#: Fillers that Unicode calls letters and symbols, and what is invisible by default without being a format character.
_UNSEEN = re.compile("[\u115f\u1160\u2065\u2800\u3164\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]")

__all__ = [
    "Amount",
    "Body",
    "Date",
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
    "Visible",
    "id_from_path",
    "invalid_from",
    "make_whole",
    "not_before",
    "parse_body",
    "parse_query",
    "plain_message",
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


def parse_date(value: Any) -> Any:
    """Accept only a full date of RFC 3339, without a time."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise ValueError("must be a date such as 2026-01-31")
    try:
        return date.fromisoformat(value)
    except ValueError as exc:
        raise ValueError("is not a date that exists") from exc


def _number(value: Any) -> Any:
    if isinstance(value, str) and not _MONEY.fullmatch(value):
        raise ValueError('must be a number, or a decimal in a string such as "52.00"')
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise ValueError("must be a number")
    return Decimal(value)


def _seconds(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be a number of seconds")
    return float(value)


def _whole_from_query(value: Any) -> Any:
    if isinstance(value, str):
        found = _WHOLE.fullmatch(value)
        if found is None:
            raise ValueError("must be a whole number")
        return int(found[1])
    return value


def _flag_from_query(value: Any) -> Any:
    if isinstance(value, str):
        if value not in ("true", "false"):
            raise ValueError("must be true or false")
        return value == "true"
    return value


def _visible(value: str) -> str:
    """Refuse a name that cannot be seen, or that changes how what stands around it is shown (Unicode TR 36)."""
    if value.isascii() and value.isprintable() and value.strip():
        return value
    seen = False
    for at, character in enumerate(value):
        category = unicodedata.category(character)
        if category in ("Cc", "Cf", "Zl", "Zp"):
            if not (character in _JOINERS and _is_joined(value[at - 1 : at]) and _is_joined(value[at + 1 : at + 2])):
                raise ValueError(f"must not hold the invisible character U+{ord(character):04X}")
        elif category[0] not in "ZM" and not _UNSEEN.match(character):
            seen = True
    if value and not seen:
        raise ValueError("must not be blank")
    return value


def _is_joined(character: str) -> bool:
    """Whether a joiner may stand beside it: a letter or its mark, or a part of an emoji."""
    return character != "" and unicodedata.category(character)[0] in "LMS"


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not hold the character U+0000")
    return value


Id = Annotated[UUID, BeforeValidator(parse_uuid)]
Timestamp = Annotated[datetime, BeforeValidator(parse_timestamp)]
Date = Annotated[date, BeforeValidator(parse_date)]
#: For the name of a person or a thing, in any script: one line in which something can be seen.
Visible = AfterValidator(_visible)
#: An exact JSON number, or a string as `Money` writes it; add bounds and decimals with Field.
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


def _described(schema: dict[str, Any], model: type[BaseModel]) -> None:
    for field in schema.get("properties", {}).values():
        if field.get("default", ...) is None:
            del field["default"]
    if issubclass(model, Body) and model.example:
        schema["examples"] = [dict(model.example)]


class Body(BaseModel):
    """A request body: strict types, unknown fields refused by name."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, json_schema_extra=_described)

    #: For a body that is a JSON array: the only field, which takes it.
    array_field: ClassVar[str | None] = None
    #: What readers of the document are shown, and may send as it is; without it they make one up of every field.
    example: ClassVar[Mapping[str, Any]] = {}


class Update(Body):
    """A body that changes only the fields it contains; an absent field differs from null.

    Its fields default to `unsent()`, so that an explicit null is refused unless the type allows it.
    """

    #: What GET shows, if that may be sent back, with its `id`. What only the service sets is then passed over, …
    shown: ClassVar[type[View] | None] = None
    #: … except these, which must be as they are.
    fixed: ClassVar[frozenset[str]] = frozenset({"id", "created_at"})
    _sent_back: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _set_apart(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        names = cls.shown.model_fields.keys() - cls.model_fields.keys() if cls.shown is not None else set()
        if not isinstance(value, dict) or "id" not in value or not names:
            return handler(value)
        made = handler({name: one for name, one in value.items() if name not in names})
        made._sent_back = {name: value[name] for name in names & value.keys()}
        return made

    def require_unchanged(self, present: View) -> None:
        """Raise `Invalid` if a fixed field was sent back with another value than the resource has."""
        sent = self._sent_back.keys() & self.fixed
        shown = read_json(dump(present)) if sent else {}
        if wrong := [name for name in sorted(sent) if self._sent_back[name] != shown[name]]:
            raise _invalid(FieldError(name, "cannot be changed") for name in wrong)

    def sent_back(self, name: str) -> Any:
        """What was sent as a field that only the service sets; None for nothing."""
        return self._sent_back.get(name)

    def named(self) -> dict[str, Any]:
        """The fields that were sent, with their values."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def not_before(first: str, as_sent: str | None = None) -> AfterValidator:
    """What ends a period is not before the field that begins it, which is sent as `as_sent` if not by its own name."""

    def check(value: Any, info: ValidationInfo) -> Any:
        begins = info.data.get(first)
        if begins is not None and value < begins:
            raise ValueError(f"must not be before {as_sent or first}")
        return value

    return AfterValidator(check)


def unsent(description: str | None = None) -> Any:
    """The default of an Update's field: never validated, never visible, absent from the OpenAPI document."""
    return Field(default=None, description=description)


class Query(BaseModel):
    """A query string: each parameter at most once, unknown ones refused by name."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


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

    @classmethod
    def unchecked(cls, **values: Any) -> Self:
        """Make it of values that need no check, such as a row's. Each field must be given; where it is another view,
        any object with the same attributes will do."""
        view = cls.__new__(cls)
        object.__setattr__(view, "__dict__", values)
        object.__setattr__(view, "__pydantic_fields_set__", set(values))
        object.__setattr__(view, "__pydantic_extra__", None)
        object.__setattr__(view, "__pydantic_private__", None)
        return view


class PageView(View):
    """One page of a list; subclasses add the list, named after the resource."""

    total: int = Field(description="how many there are in all", ge=0)
    limit: int
    offset: int


B = TypeVar("B", bound=Body)
Q = TypeVar("Q", bound=Query)


#: What each kind of pydantic's errors means, in our words; the braces take the error's context.
_MESSAGES = {
    "extra_forbidden": "unknown field",
    "unexpected_keyword_argument": "unknown field",
    "missing": "is required",
    "missing_argument": "is required",
    "string_type": "must be a string",
    "string_unicode": "must be a string",
    "string_not_ascii": "must hold only ASCII characters",
    "bytes_type": "must be a string",
    "bytes_invalid_encoding": "must be encoded as {encoding}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "decimal_type": "must be a number",
    "decimal_parsing": "must be a number",
    "decimal_max_digits": "must have at most {max_digits} digits",
    "decimal_max_places": "must have at most {decimal_places} decimals",
    "decimal_whole_digits": "must have at most {whole_digits} digits before the point",
    "multiple_of": "must be a multiple of {multiple_of}",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "none_required": "must be null",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "frozen_set_type": "must be a list",
    "iterable_type": "must be a list",
    "dict_type": "must be an object",
    "mapping_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dataclass_type": "must be an object",
    "union_tag_not_found": "must have {discriminator}",
    "union_tag_invalid": "must have {discriminator} as one of {expected_tags}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "bytes_too_short": "must have at least {min_length} bytes",
    "bytes_too_long": "must have at most {max_length} bytes",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "string_pattern_mismatch": "must match {pattern}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "uuid_type": "must be a UUID",
    "uuid_parsing": "must be a UUID",
    "uuid_version": "must be a UUID of version {expected_version}",
    "url_type": "must be a URL",
    "url_parsing": "must be a URL",
    "url_syntax_violation": "must be a URL",
    "url_too_long": "must be a URL of at most {max_length} characters",
    "url_scheme": "must be a URL that begins with {expected_schemes}",
    "date_type": "must be a date such as 2026-01-31",
    "date_parsing": "must be a date such as 2026-01-31",
    "date_from_datetime_parsing": "must be a date such as 2026-01-31",
    "date_from_datetime_inexact": "must be a date such as 2026-01-31",
    "date_past": "must be in the past",
    "date_future": "must be in the future",
    "time_type": "must be a time of day such as 15:00:00",
    "time_parsing": "must be a time of day such as 15:00:00",
    "datetime_type": "must be a time such as 2026-01-31T15:00:00Z",
    "datetime_parsing": "must be a time such as 2026-01-31T15:00:00Z",
    "datetime_from_date_parsing": "must be a time such as 2026-01-31T15:00:00Z",
    "datetime_object_invalid": "must be a time such as 2026-01-31T15:00:00Z",
    "datetime_past": "must be in the past",
    "datetime_future": "must be in the future",
    "timezone_naive": "must be a time without an offset",
    "timezone_aware": "must be a time with its offset, such as 2026-01-31T15:00:00Z",
    "timezone_offset": "must be a time with another offset",
    "time_delta_type": "must be a duration such as PT15M",
    "time_delta_parsing": "must be a duration such as PT15M",
}
#: Other kinds are an author's own, whose text is kept, or so rare that "is not valid" must do.
_PYDANTICS_OWN = frozenset(get_args(ErrorType)) - {"value_error", "assertion_error"}
_DECIMAL = re.compile(r"Decimal\('([^']*)'\)")  # how pydantic writes a Decimal bound


def plain_message(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors in our words; it needs its context. The text of a model's own validator stays."""
    context = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in error.get("ctx", {}).items()
    }
    kind = error["type"]
    if context.get("field_type") == "Value":  # a length limit after one of our functions: always a string
        kind = f"string_{kind}"
    if template := _MESSAGES.get(kind):
        message = _DECIMAL.sub(r"\1", template.format_map(context))
        return message.removesuffix("s") if re.search(r" 1 \w+s$", message) else message
    if kind in _PYDANTICS_OWN:
        return "is not valid"
    return str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _invalid(found: Iterable[FieldError]) -> Invalid:
    """One `Invalid` for all; its message has the first three, and says how many more there are."""
    details = list(found)
    more = f"; and {len(details) - _IN_MESSAGE} more" if len(details) > _IN_MESSAGE else ""
    message = "; ".join(f"{one.field}: {one.message}" for one in details[:_IN_MESSAGE]) + more
    return Invalid(message, details=details[:MAX_ERRORS_SHOWN])


def invalid_from(exc: ValidationError, *within: str) -> Invalid:
    """Turn pydantic's errors into one `Invalid` with a detail for each of the first 20; `within` precedes each path."""
    return _invalid(
        # A long or strange key from the body is shortened: it appears in our answer and our log.
        FieldError(".".join(str(part)[:100] for part in (*within, *error["loc"])) or "body", plain_message(error))
        for error in exc.errors(include_input=False, include_url=False)
    )


def make_whole(value: Any, exc: ValidationError) -> bool:
    """Replace numbers such as 1.0 that a model refused as an int: they are whole, as in JSON Schema. Returns whether
    there were any, so that it is worth validating again."""
    found = False
    for error in exc.errors(include_input=False, include_url=False, include_context=False):
        if error["type"] not in ("int_type", "int_from_float"):
            continue
        *path, last = error["loc"]
        holder = value
        try:
            for part in path:
                holder = holder[part]
            number = holder[last]
        except (LookupError, TypeError):
            continue  # the path names a variant of a union
        if isinstance(number, Decimal) and number == number.to_integral_value():
            holder[last] = int(number)
            found = True
    return found


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
        raise Invalid.field("body", "is empty")
    value = read_json(raw)
    if model.array_field is not None:
        if not isinstance(value, list):
            raise Invalid.field("body", "must be a list")
        value = {model.array_field: value}
    if not isinstance(value, dict):
        raise Invalid.field("body", "must be an object")
    try:
        return _validated(model, value)
    except ValidationError as exc:
        raise invalid_from(exc) from exc


def _validated(model: type[B], value: dict[str, Any]) -> B:
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        if not make_whole(value, exc):
            raise
    return model.model_validate(value)


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
