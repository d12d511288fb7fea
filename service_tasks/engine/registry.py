"""Task types: declaring them, and the registry of those that this process knows."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Awaitable, Callable, Iterable, Iterator
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from service_tasks.domain.retry import RetryPolicy
from service_tasks.domain.task import MAX_ATTEMPTS_LIMIT, MAX_TASK_TYPE_CHARACTERS, MAX_TIMEOUT_SECONDS
from service_tasks.engine.context import TaskContext
from servicekit.process.settings import MissingSettings, Settings, SettingsError, load
from servicekit.web.schemas import invalid_from, make_whole
from servicekit.wire.envelope import dump
from servicekit.wire.json_reader import read_stored

ENTRY_POINT_GROUP = "siteworks.task_types"
DEFAULT_TIMEOUT_SECONDS = 3600.0
_OWN = "own_tasks"  # the folder in the checkout

Handler = Callable[..., Any] | Callable[..., Awaitable[Any]]


class BadTaskTypes(SettingsError):
    """The task types cannot be registered; the text names the type and the reason."""


class BadPayload(Exception):
    """The payload does not fit this worker's model of the type."""


class BadResult(Exception):
    """What the handler returned cannot be stored."""


class TaskType:
    """A kind of work. It can still be called like the function it was made from."""

    def __init__(
        self,
        name: str,
        function: Handler,
        *,
        payload: type[BaseModel] | None = None,
        result: type[BaseModel] | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        retry: RetryPolicy | None = None,
        max_attempts: int | None = None,
        max_running: int | None = None,
        max_running_per_user: int | None = None,
        settings: type[Settings] | None = None,
        internal: bool = False,
    ) -> None:
        if not name or len(name) > MAX_TASK_TYPE_CHARACTERS:
            raise BadTaskTypes(f"the task type {name!r} needs a name of 1 to {MAX_TASK_TYPE_CHARACTERS} characters")
        if not 0 < timeout_seconds <= MAX_TIMEOUT_SECONDS:
            raise BadTaskTypes(f"the task type {name!r} needs a timeout of at most {MAX_TIMEOUT_SECONDS} seconds")
        if max_attempts is not None and not 1 <= max_attempts <= MAX_ATTEMPTS_LIMIT:
            raise BadTaskTypes(f"the task type {name!r} needs max_attempts from 1 to {MAX_ATTEMPTS_LIMIT}")
        for limit in (max_running, max_running_per_user):
            if limit is not None and limit < 1:
                raise BadTaskTypes(f"the task type {name!r} needs limits of 1 or more; None is no limit")
        self.name = name
        self.function = function
        self.payload_model = payload
        self.result_model = result
        self.timeout_seconds = timeout_seconds
        #: None: the worker's default
        self.retry = retry
        #: for tasks that name none; None: the default of all tasks
        self.max_attempts = max_attempts
        #: tasks of this type that may run at once, over all workers; None: any number
        self.max_running = max_running
        #: the same for the tasks of one user; tasks without a user are not counted
        self.max_running_per_user = max_running_per_user
        self.settings_model = settings
        #: whether only the services themselves make tasks of this type
        self.internal = internal
        self.is_async = inspect.iscoroutinefunction(function)
        self.description = inspect.getdoc(function) or ""

    def __call__(self, context: TaskContext, payload: Any, **settings: Any) -> Any:
        return self.function(context, payload, **settings)

    @property
    def needs(self) -> tuple[str, ...]:
        """The variables that a worker needs before it runs this type."""
        if self.settings_model is None:
            return ()
        fields = self.settings_model.model_fields
        return tuple(name.upper() for name, field in fields.items() if field.is_required())

    def with_settings(self, settings: Settings) -> TaskType:
        """A copy whose function gets these settings at every call."""
        bound = TaskType(
            self.name,
            functools.partial(self.function, settings=settings),
            payload=self.payload_model,
            result=self.result_model,
            timeout_seconds=self.timeout_seconds,
            retry=self.retry,
            max_attempts=self.max_attempts,
            max_running=self.max_running,
            max_running_per_user=self.max_running_per_user,
            internal=self.internal,
        )
        bound.settings_model, bound.description = self.settings_model, self.description
        return bound

    def parse(self, payload: str | bytes) -> Any:
        """Parse JSON into the handler's payload. Raises `pydantic.ValidationError` if the model refuses it."""
        if self.payload_model is None:
            return read_stored(payload if isinstance(payload, str) else payload.decode("utf-8"))
        try:
            return self.payload_model.model_validate_json(payload, strict=True)
        except ValidationError as exc:
            value = read_stored(payload if isinstance(payload, str) else payload.decode("utf-8"))
            if not make_whole(value, exc):
                raise
        return self.payload_model.model_validate_json(dump(value), strict=True)

    def checked_result(self, result: Any) -> Any:
        """Return a handler's result as it is stored. It may be an instance of the result model or anything whose JSON
        validates. Raises `BadResult` if the model refuses it; without a model nothing is checked."""
        model = self.result_model
        if model is None:
            return result
        try:
            if not isinstance(result, model):
                result = model.model_validate_json(dump(result), strict=True)
            # `warnings` catches instances that were made or changed without validation.
            return result.model_dump(mode="json", by_alias=True, warnings="error")
        except ValidationError as exc:
            raise BadResult(f"the result is no {model.__name__}: {invalid_from(exc, 'result').message}") from exc
        except (PydanticSerializationError, TypeError, ValueError, RecursionError) as exc:
            raise BadResult(f"the result is no {model.__name__}: {exc}") from exc

    def payload_schema(self) -> dict[str, Any]:
        """JSON Schema of the payload; `{}` allows anything."""
        return {} if self.payload_model is None else self.payload_model.model_json_schema()

    def result_schema(self) -> dict[str, Any]:
        """JSON Schema of the result as it is stored; `{}` allows anything."""
        return {} if self.result_model is None else self.result_model.model_json_schema(mode="serialization")


def task_type(
    name: str,
    *,
    payload: type[BaseModel] | None = None,
    result: type[BaseModel] | None = None,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    retry: RetryPolicy | None = None,
    max_attempts: int | None = None,
    max_running: int | None = None,
    max_running_per_user: int | None = None,
    settings: type[Settings] | None = None,
    internal: bool = False,
) -> Callable[[Handler], TaskType]:
    """Make `(ctx, payload) -> result` a task type.

    An `async def` runs on the worker's event loop, a plain `def` on a thread. `payload` is the pydantic model that
    checks payloads when tasks are created and again before they run, `result` the one that checks the return value;
    without a model, any JSON is allowed. A result has at most 1 MiB.

    `timeout`, in seconds, and `max_attempts` apply to tasks that name none. `retry` is the backoff, the worker's by
    default. `max_running` and `max_running_per_user` bound how many tasks of the type run at once over all workers.

    With a `settings` class, the function is called as `(ctx, payload, settings=…)`. A worker reads the settings when it
    starts: an invalid value stops it, and without a required one it leaves the type to other workers.

    Nobody can ask for a task of an `internal` type, by whatever way: the service makes them itself, of events.

    An exception fails the attempt, `GiveUp` the task; `RetryAfter` sets the time of the next attempt.
    """

    def make(function: Handler) -> TaskType:
        return TaskType(
            name,
            function,
            payload=payload,
            result=result,
            timeout_seconds=float(timeout),
            retry=retry,
            max_attempts=max_attempts,
            max_running=max_running,
            max_running_per_user=max_running_per_user,
            settings=settings,
            internal=internal,
        )

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
        """Return the types with these names. Raises `BadTaskTypes` for an unknown name, and for no name at all."""
        wanted = list(dict.fromkeys(names))
        unknown = [name for name in wanted if name not in self._types]
        if unknown or not wanted:
            known = ", ".join(self.names())
            raise BadTaskTypes(f"there is no task type {', '.join(unknown) or '(none named)'}; there are {known}")
        return Registry(self._types[name] for name in wanted)

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._types))

    def ready_to_run(self) -> tuple[Registry, dict[str, tuple[str, ...]]]:
        """Return the types that can run in this environment, with their settings, and the missing variables of each
        other type. Raises `BadTaskTypes` for an invalid value."""
        able, unset = Registry(), {}
        for item in self:
            if item.settings_model is None:
                able.add(item)
                continue
            try:
                able.add(item.with_settings(load(item.settings_model)))
            except MissingSettings as exc:
                unset[item.name] = exc.variables
            except SettingsError as exc:
                raise BadTaskTypes(f"the task type {item.name!r}: {exc}") from exc
        return able, unset

    def __iter__(self) -> Iterator[TaskType]:
        return (self._types[name] for name in self.names())

    def __len__(self) -> int:
        return len(self._types)


def load_registry(modules: Iterable[str]) -> Registry:
    """Import the modules and the entry points of installed packages, and register their task types."""
    registry = Registry()
    for name in modules:
        try:
            module = importlib.import_module(name)
        except Exception as exc:  # foreign code may fail in any way; name it and stop
            missing = isinstance(exc, ModuleNotFoundError) and f"{name}.".startswith(f"{exc.name}.")
            hint = _right_name(name) if missing else ""
            raise BadTaskTypes(f"TASK_MODULES: cannot import {name!r}: {type(exc).__name__}: {exc}{hint}") from exc
        _add_all(registry, module)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            offered = entry.load()
        except Exception as exc:  # the same
            package = "a package" if entry.dist is None else f"the package {entry.dist.name}"
            raise BadTaskTypes(f"{package}: cannot load {entry.value!r}: {type(exc).__name__}: {exc}") from exc
        if isinstance(offered, TaskType):
            registry.add(offered)
        elif isinstance(offered, ModuleType):
            _add_all(registry, offered)
        else:
            raise BadTaskTypes(f"{entry.value!r} is neither a task type nor a module")
    return registry


def _right_name(name: str) -> str:
    """What to write instead of a module that does not exist, as the end of a sentence; empty if `own_tasks` is."""
    folder = importlib.util.find_spec(_OWN)
    found = pkgutil.iter_modules((folder and folder.submodule_search_locations) or [])
    own = sorted(one.name for one in found if not one.name.startswith(("test_", "conftest")))
    if name in own:
        return f"; write {_OWN}.{name}"
    return f"; there are {', '.join(f'{_OWN}.{one}' for one in own)}" if own else ""


def _add_all(registry: Registry, module: ModuleType) -> None:
    for value in list(vars(module).values()):
        if isinstance(value, TaskType):
            registry.add(value)
