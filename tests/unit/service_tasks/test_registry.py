"""Task types: made from functions, found in modules, refused when they cannot work."""

from __future__ import annotations

import sys
import types
from decimal import Decimal
from importlib.metadata import EntryPoint
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, SecretStr, ValidationError

from service_tasks.domain.retry import RetryPolicy
from service_tasks.engine import registry as registry_module
from service_tasks.engine.registry import BadResult, BadTaskTypes, Registry, TaskType, load_registry
from service_tasks.settings import BUILT_IN_MODULES
from service_tasks.task_types import Settings, TaskContext, task_type


@task_type("double", timeout=5)
def double(ctx: TaskContext, payload: int) -> int:
    """Doubles a number."""
    return payload * 2


@task_type("later")
async def later(ctx: TaskContext, payload: object) -> None: ...


class Size(BaseModel):
    width: float


class Count(BaseModel):
    number: int
    deeper: list[dict[str, int]] = []


@task_type("counted", payload=Count)
def counted(ctx: TaskContext, payload: Count) -> int:
    return payload.number


@task_type("sized", payload=Size)
def sized(ctx: TaskContext, payload: Size) -> float:
    return payload.width


def module_with(**members: object) -> types.ModuleType:
    module = types.ModuleType("site_tasks")
    vars(module).update(members)
    return module


@pytest.fixture(autouse=True)
def no_installed_types(monkeypatch):
    monkeypatch.setattr(registry_module, "entry_points", lambda group: [])


def test_a_number_without_a_fraction_is_whole_in_a_payload_too():
    assert counted.parse('{"number": 3.0, "deeper": [{"a": 1}, {"b": 2e1}]}') == Count(
        number=3, deeper=[{"a": 1}, {"b": 20}]
    )
    for wrong in ("3.5", '"3"', "true"):
        with pytest.raises(ValidationError):
            counted.parse(f'{{"number": {wrong}}}')


def test_a_function_becomes_a_type_with_what_can_be_known_of_it():
    assert (double.name, double.timeout_seconds, double.is_async, double.description) == (
        "double",
        5.0,
        False,
        "Doubles a number.",
    )
    assert later.is_async
    assert double.payload_schema() == {}
    assert sized.payload_schema()["properties"]["width"]["type"] == "number"


def test_a_payload_is_checked_strictly_by_its_model():
    assert sized.parse('{"width": 2}') == Size(width=2.0)
    with pytest.raises(ValidationError):
        sized.parse('{"width": "2"}')


def test_the_built_in_types_are_found():
    assert load_registry(BUILT_IN_MODULES).names() == (
        "account_mail",
        "callback",
        "http_request",
        "io",
        "noop",
        "send_email",
    )


def test_types_are_found_in_modules_and_a_name_twice_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "site_tasks", module_with(double=double, other_name_for_it=double, number=3))

    assert load_registry(["site_tasks"]).names() == ("double",)
    twin = TaskType("double", double.function, payload=None, timeout_seconds=1)
    with pytest.raises(BadTaskTypes, match="'double' is defined twice"):
        Registry([double, twin])


def test_types_of_installed_packages_are_found_by_their_entry_point(monkeypatch):
    monkeypatch.setitem(sys.modules, "site_tasks", module_with(double=double, later=later))
    offered = [
        EntryPoint("one", "site_tasks:double", registry_module.ENTRY_POINT_GROUP),
        EntryPoint("all", "site_tasks", registry_module.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(registry_module, "entry_points", lambda group: offered)

    assert load_registry([]).names() == ("double", "later")


def test_a_module_that_cannot_be_imported_is_named():
    with pytest.raises(BadTaskTypes, match="TASK_MODULES: cannot import 'no_such_module_here': ModuleNotFoundError"):
        load_registry(["no_such_module_here"])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("concrete", "; write own_tasks.concrete"),
        ("own_tasks.concret", "; there are own_tasks.concrete, own_tasks.paint"),
        ("own_tasks.paint", "no_such_package'"),  # it is there, but what it imports is not
    ],
)
def test_the_modules_of_own_tasks_are_proposed_for_one_that_does_not_exist(name, hint, tmp_path, monkeypatch):
    (tmp_path / "own_tasks").mkdir()
    (tmp_path / "own_tasks" / "__init__.py").touch()
    (tmp_path / "own_tasks" / "concrete.py").touch()
    (tmp_path / "own_tasks" / "test_concrete.py").touch()
    (tmp_path / "own_tasks" / "paint.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_tasks", raising=False)
    try:
        with pytest.raises(BadTaskTypes) as refused:
            load_registry([name])
    finally:
        sys.modules.pop("own_tasks", None)
    assert str(refused.value).endswith(hint)


@pytest.mark.parametrize(("name", "timeout"), [("", 1), ("x" * 51, 1), ("ok", 0), ("ok", 86_401)])
def test_a_type_that_could_never_run_is_refused(name, timeout):
    with pytest.raises(BadTaskTypes):
        task_type(name, timeout=timeout)(lambda ctx, payload: None)


@pytest.mark.parametrize(
    "wrong", [{"max_attempts": 0}, {"max_attempts": 26}, {"max_running": 0}, {"max_running_per_user": -1}]
)
def test_limits_that_make_no_sense_are_refused(wrong):
    with pytest.raises(BadTaskTypes, match="'ok'"):
        task_type("ok", **wrong)(lambda ctx, payload: None)


def test_what_a_type_says_of_its_attempts_and_limits_is_kept():
    kind = task_type(
        "careful", retry=RetryPolicy(base_seconds=10), max_attempts=7, max_running=4, max_running_per_user=1
    )(lambda ctx, payload: None)

    assert (kind.retry, kind.max_attempts) == (RetryPolicy(base_seconds=10), 7)
    assert (kind.max_running, kind.max_running_per_user) == (4, 1)
    assert (double.retry, double.max_attempts, double.max_running, double.max_running_per_user) == (None,) * 4


def test_an_entry_point_that_offers_something_else_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "site_tasks", module_with(number=3))
    offered = [EntryPoint("one", "site_tasks:number", registry_module.ENTRY_POINT_GROUP)]
    monkeypatch.setattr(registry_module, "entry_points", lambda group: offered)

    with pytest.raises(BadTaskTypes, match="'site_tasks:number' is neither a task type nor a module"):
        load_registry([])


# Results


class Area(BaseModel):
    square_metres: float = Field(ge=0)
    price: Decimal | None = None
    plan: UUID | None = None


@task_type("measure", result=Area)
def measure(ctx: TaskContext, payload: object) -> Area:
    return Area(square_metres=1)


PLAN = UUID("018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f")


@pytest.mark.parametrize(
    ("returned", "stored"),
    [
        (Area(square_metres=2.5), {"square_metres": 2.5, "price": None, "plan": None}),
        ({"square_metres": 2}, {"square_metres": 2.0, "price": None, "plan": None}),
        ({"square_metres": 2.0, "plan": PLAN}, {"square_metres": 2.0, "price": None, "plan": str(PLAN)}),
        (Area(square_metres=2, price=Decimal("10.50")), {"square_metres": 2.0, "price": "10.50", "plan": None}),
    ],
)
def test_a_result_is_stored_as_its_schema_says(returned, stored):
    assert measure.checked_result(returned) == stored
    assert set(measure.result_schema()["properties"]) == set(stored)


@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        ({"square_metres": "2"}, "the result is no Area: result.square_metres: must be a number"),
        ({"square_metres": -1}, "result.square_metres: must be at least 0"),
        ({}, "result.square_metres: is required"),
        (None, "the result is no Area: result: "),
        (object(), "the result is no Area: no JSON form for object"),
        ({"square_metres": float("nan")}, "the result is no Area: "),
        (Area.model_construct(square_metres="wide"), "the result is no Area: "),
    ],
)
def test_a_result_that_is_not_what_was_promised_is_refused_by_field(returned, complaint):
    with pytest.raises(BadResult) as refused:
        measure.checked_result(returned)
    assert complaint in str(refused.value)


def test_without_a_model_any_result_passes_and_the_schema_says_so():
    assert double.checked_result(value := object()) is value
    assert double.result_schema() == {}


# Settings of a type


class CraneSettings(Settings):
    crane_url: str
    crane_password: SecretStr
    crane_height: int = 30


@task_type("lift", settings=CraneSettings, result=Area, timeout=9, max_running=2)
async def lift(ctx: TaskContext, payload: object, *, settings: CraneSettings) -> str:
    """Lifts."""
    return settings.crane_url


def test_a_type_names_what_has_to_be_set_before_it_runs():
    assert lift.needs == ("CRANE_URL", "CRANE_PASSWORD")
    assert double.needs == ()


def test_a_type_whose_settings_are_missing_is_left_to_other_workers(monkeypatch):
    monkeypatch.setenv("CRANE_URL", "http://crane")

    able, unset = Registry([lift, double]).ready_to_run()

    assert (able.names(), unset) == (("double",), {"lift": ("CRANE_PASSWORD",)})


def test_a_type_gets_its_settings_and_stays_what_it_was(monkeypatch):
    monkeypatch.setenv("CRANE_URL", "http://crane")
    monkeypatch.setenv("CRANE_PASSWORD", "secret")

    able, unset = Registry([lift]).ready_to_run()

    kind = able.get("lift")
    assert kind is not None
    assert unset == {}
    assert (kind.is_async, kind.description, kind.timeout_seconds, kind.max_running) == (True, "Lifts.", 9, 2)
    assert (kind.needs, kind.result_model) == (lift.needs, Area)
    coroutine = kind(None, {})
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    assert ended.value.value == "http://crane"


def test_a_wrong_setting_stops_the_start_and_does_not_show_its_value(monkeypatch):
    monkeypatch.setenv("CRANE_URL", "http://crane")
    monkeypatch.setenv("CRANE_HEIGHT", "very high")

    with pytest.raises(BadTaskTypes, match="'lift': CRANE_PASSWORD: is not set; CRANE_HEIGHT: ") as refused:
        Registry([lift]).ready_to_run()
    assert "very high" not in str(refused.value)
