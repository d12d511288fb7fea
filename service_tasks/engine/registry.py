"""Task types: how a function becomes one, and which of them this process knows."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from service_tasks.domain.task import MAX_TASK_TYPE_CHARACTERS, MAX_TIMEOUT_SECONDS
from service_tasks.engine.context import TaskContext
from servicekit.json_reader import read_json

ENTRY_POINT_GROUP = "siteworks.task_types"
DEFAULT_TIMEOUT_SECONDS = 3600.0

Handler = Callable[[TaskContext, Any], Any] | Callable[[TaskContext, Any], Awaitable[Any]]


class BadTaskTypes(Exception):
    """The task types of this process cannot be put together; the text says which and why."""


class TaskType:
    """One kind of work. Still callable as the function it was made from."""

    def __init__(
        self, name: str, function: Handler, *, payload: type[BaseModel] | None, timeout_seconds: float
    ) -> None:
        if not name or len(name) > MAX_TASK_TYPE_CHARACTERS:
            raise BadTaskTypes(f"the task type {name!r} needs a name of 1 to {MAX_TASK_TYPE_CHARACTERS} characters")
        if not 0 < timeout_seconds <= MAX_TIMEOUT_SECONDS:
            raise BadTaskTypes(f"the task type {name!r} needs a timeout of at most {MAX_TIMEOUT_SECONDS} seconds")
        self.name = name
        self.function = function
        self.payload_model = payload
        self.timeout_seconds = timeout_seconds
        self.is_async = inspect.iscoroutinefunction(function)
        self.description = inspect.getdoc(function) or ""

    def __call__(self, context: TaskContext, payload: Any) -> Any:
        return self.function(context, payload)

    def parse(self, payload: str | bytes) -> Any:
        """JSON text to what the handler gets; raises `pydantic.ValidationError` where the model refuses it."""
        if self.payload_model is None:
            return read_json(payload.encode("utf-8") if isinstance(payload, str) else payload)
        return self.payload_model.model_validate_json(payload, strict=True)

    def payload_schema(self) -> dict[str, Any]:
        """JSON Schema of the payload; `{}` takes anything."""
        return {} if self.payload_model is None else self.payload_model.model_json_schema()


def task_type(
    name: str, *, payload: type[BaseModel] | None = None, timeout: float = DEFAULT_TIMEOUT_SECONDS
) -> Callable[[Handler], TaskType]:
    """Make `(ctx, payload) -> result` a task type.

    An `async def` runs on the worker's event loop, a plain `def` on a thread. `payload` is the pydantic
    model that checks payloads when tasks are created and again before they run; without one, any JSON
    passes. `timeout`, in seconds, holds for tasks that name none. The result must be JSON of at most 1 MiB.
    An exception ends the attempt, `GiveUpError` the task.
    """

    def make(function: Handler) -> TaskType:
        return TaskType(name, function, payload=payload, timeout_seconds=float(timeout))

    return make


class Registry:
    """The task types of one process, by name."""

    def __init__(self, types: Iterable[TaskType] = ()) -> None:
        self._types: dict[str, TaskType] = {}
        for item in types:
            self.add(item)

    def add(self, item: TaskType) -> None:
        known = self._types.setdefault(item.name, item)
        if known is not item:
            raise BadTaskTypes(f"the task type {item.name!r} is defined twice")

    def get(self, name: str) -> TaskType | None:
        return self._types.get(name)

    def only(self, names: Iterable[str]) -> Registry:
        """The types of these names; raises `BadTaskTypes` when there is none of a name, or no name at all."""
        wanted = list(dict.fromkeys(names))
        unknown = [name for name in wanted if name not in self._types]
        if unknown or not wanted:
            known = ", ".join(self.names())
            raise BadTaskTypes(f"there is no task type {', '.join(unknown) or '(none named)'}; there are {known}")
        return Registry(self._types[name] for name in wanted)

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._types))

    def __iter__(self) -> Iterator[TaskType]:
        return (self._types[name] for name in self.names())

    def __len__(self) -> int:
        return len(self._types)


def load_registry(modules: Iterable[str]) -> Registry:
    """Import the modules, and what installed packages offer, and collect every task type they define."""
    registry = Registry()
    for name in modules:
        try:
            module = importlib.import_module(name)
        except Exception as exc:  # a module of somebody else may fail in any way; name it and stop
            raise BadTaskTypes(f"cannot import {name!r}: {type(exc).__name__}: {exc}") from exc
        _add_all(registry, module)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            offered = entry.load()
        except Exception as exc:  # the same
            raise BadTaskTypes(f"cannot load {entry.value!r}: {type(exc).__name__}: {exc}") from exc
        if isinstance(offered, TaskType):
            registry.add(offered)
        else:
            _add_all(registry, offered)
    return registry


def _add_all(registry: Registry, module: ModuleType) -> None:
    for value in list(vars(module).values()):
        if isinstance(value, TaskType):
            registry.add(value)
