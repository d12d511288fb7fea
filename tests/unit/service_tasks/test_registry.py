"""Task types: made from functions, found in modules, refused when they cannot work."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint

import pytest
from pydantic import BaseModel, ValidationError

from service_tasks.engine import registry as registry_module
from service_tasks.engine.registry import BadTaskTypes, Registry, TaskType, load_registry
from service_tasks.settings import BUILT_IN_MODULES
from service_tasks.task_types import TaskContext, task_type


@task_type("double", timeout=5)
def double(ctx: TaskContext, payload: int) -> int:
    """Doubles a number."""
    return payload * 2


@task_type("later")
async def later(ctx: TaskContext, payload: object) -> None: ...


class Size(BaseModel):
    width: float


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
    assert load_registry(BUILT_IN_MODULES).names() == ("io", "noop")


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
    with pytest.raises(BadTaskTypes, match="cannot import 'no_such_module_here': ModuleNotFoundError"):
        load_registry(["no_such_module_here"])


@pytest.mark.parametrize(("name", "timeout"), [("", 1), ("x" * 51, 1), ("ok", 0), ("ok", 86_401)])
def test_a_type_that_could_never_run_is_refused(name, timeout):
    with pytest.raises(BadTaskTypes):
        task_type(name, timeout=timeout)(lambda ctx, payload: None)
