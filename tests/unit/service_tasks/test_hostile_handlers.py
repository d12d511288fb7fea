"""Nothing that a handler raises, returns or is leaves its task unjudged, its place held, or another task waiting."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from service_tasks.domain.task import MAX_ERROR_CHARACTERS, MAX_TRACE_CHARACTERS, FailedForGood, Succeeded, WillRetry
from service_tasks.engine import runner
from service_tasks.engine.context import GiveUp, RetryAfter
from service_tasks.engine.registry import TaskType
from tests.unit.service_tasks.test_runner import Run, on_a_loop, who


class Panic(BaseException):
    """As extensions in Rust raise."""


class BadText(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


class BadRepr(Exception):
    __repr__ = __str__ = None  # type: ignore[assignment]


class NotText(str):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __len__(self) -> int:
        raise RuntimeError("len")


class StrangeText(Exception):
    def __str__(self) -> str:
        return NotText("strange")


class BadAttributes(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise Panic(name)


class BadClass(type):
    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError(name)


class OfBadClass(Exception, metaclass=BadClass):
    pass


class BadNotes(Exception):
    @property
    def __notes__(self) -> Any:
        raise KeyboardInterrupt


class Spoilt(RetryAfter):
    def __init__(self) -> None:
        super().__init__(1.0)
        self.seconds = "soon"  # type: ignore[assignment]


class BadGiveUp(GiveUp, BadText):
    pass


def long_chain() -> Exception:
    error = last = Exception("first")
    for number in range(100_000):
        last.__cause__ = Exception(str(number))
        last = last.__cause__
    return error


def own_cause() -> Exception:
    error = Exception("round")
    error.__cause__ = error.__context__ = error
    return error


def deep_group() -> BaseException:
    group: BaseException = Exception("leaf")
    for _ in range(5000):
        group = BaseExceptionGroup("nested", [group])
    return group


def noted(*notes: Any) -> Exception:
    error = Exception("noted")
    error.__notes__ = notes[0] if len(notes) == 1 else list(notes)
    return error


RAISED: dict[str, Callable[[], BaseException]] = {
    "Exception": lambda: Exception("plain"),
    "a panic": lambda: Panic("panic"),
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "StopIteration": lambda: StopIteration("over"),
    "StopAsyncIteration": StopAsyncIteration,
    "CancelledError": asyncio.CancelledError,
    "a group": lambda: BaseExceptionGroup("many", [SystemExit(1), Panic(), BadText()]),
    "a deep group": deep_group,
    "a text that raises": BadText,
    "a text that cannot be called": BadRepr,
    "a text of a class of its own": StrangeText,
    "attributes that raise": BadAttributes,
    "a class whose attributes raise": OfBadClass,
    "notes that raise": BadNotes,
    "notes that are none": lambda: noted(7),
    "notes that cannot be shown": lambda: noted(BadText(), "\ud800"),
    "a long chain": long_chain,
    "its own cause": own_cause,
    "an enormous text": lambda: Exception("x" * 30_000_000),
    "a lone surrogate and a NUL": lambda: Exception("\ud800\x00"),
    "RetryAfter with a spoilt time": Spoilt,
    "GiveUp with a text that raises": BadGiveUp,
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
}


class RaisingDict(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise Panic("items")

    def __iter__(self) -> Iterator[Any]:
        raise SystemExit("iter")


class RaisingList(list):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Any]:
        raise GeneratorExit


class Endless:
    """Has no JSON, and tells so badly."""

    def __repr__(self) -> str:
        raise Panic("repr")

    def __getattribute__(self, name: str) -> Any:
        raise KeyboardInterrupt(name)


class OwnInt(int):
    def __repr__(self) -> str:
        raise Panic("repr")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


async def a_coroutine() -> None:
    return None


RETURNED: dict[str, Callable[[], Any]] = {
    "a set": lambda: {1, 2},
    "bytes": lambda: b"x",
    "NaN": lambda: math.nan,
    "infinity": lambda: [math.inf],
    "a lone surrogate": lambda: "\ud800",
    "a NUL": lambda: {"\x00": 1},
    "too much": lambda: "x" * 2_000_000,
    "a cycle": cyclic,
    "a deep list": lambda: nested(100_000),
    "a dict that raises": lambda: RaisingDict(a=1),
    "a list that raises": lambda: RaisingList([1]),
    "an object that raises": Endless,
    "a key that is no text": lambda: {(1, 2): 3},
    "a huge number": lambda: 10**5000,
    "a number that raises": lambda: OwnInt(7),
    "a generator": lambda: (number for number in [1]),
    "a coroutine": a_coroutine,
    "a class": lambda: Endless,
    "an exception": BadAttributes,
}

KINDS = ["async", "async that waits", "plain"]


def handler(kind: str, act: Callable[[], Any]) -> TaskType:
    async def at_once(ctx: object, payload: object) -> Any:
        return act()

    async def waiting(ctx: object, payload: object) -> Any:
        await asyncio.sleep(0)
        return act()

    def plain(ctx: object, payload: object) -> Any:
        return act()

    return TaskType("hostile", {"async": at_once, "async that waits": waiting, "plain": plain}[kind])


async def judged(kind: str, act: Callable[[], Any]) -> Any:
    """The outcome; and whoever comes behind is served, and every place is free."""
    run = Run()
    hostile = handler(kind, act)
    tasks = run.start(hostile, who, hostile, who)
    outcomes = await run.ended(*tasks)
    bystanders = [outcome for task, outcome in zip(tasks, outcomes, strict=True) if task.type is who]
    assert all(isinstance(outcome, Succeeded) for outcome in bystanders)
    async with asyncio.timeout(10):
        while run.runner.threads.free() < run.runner.threads.capacity:
            await asyncio.sleep(0)
    return outcomes[0]


def assert_can_be_stored(outcome: Any) -> None:
    assert isinstance(outcome, WillRetry | FailedForGood), outcome
    for text, limit in (
        (outcome.error.type, 100),
        (outcome.error.message, MAX_ERROR_CHARACTERS),
        (outcome.error.trace or "", MAX_TRACE_CHARACTERS),
    ):
        assert type(text) is str
        assert len(text) <= limit
        assert b"\x00" not in text.encode("utf-8")


def raiser(error: Callable[[], BaseException]) -> Callable[[], Any]:
    def act() -> Any:
        raise error()

    return act


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RAISED)
@on_a_loop
async def test_whatever_a_handler_raises_is_the_error_of_its_attempt(name, kind):
    outcome = await judged(kind, raiser(RAISED[name]))

    assert_can_be_stored(outcome)
    assert isinstance(outcome, FailedForGood) == (name == "GiveUp with a text that raises")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RETURNED)
@on_a_loop
async def test_whatever_a_handler_returns_is_its_result_or_the_error_of_its_attempt(name, kind):
    outcome = await judged(kind, RETURNED[name])

    if isinstance(outcome, Succeeded):
        assert name in ("a number that raises", "a huge number", "a generator", "bytes")
    else:
        assert_can_be_stored(outcome)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), Panic()])
@on_a_loop
async def test_an_error_of_that_kind_of_a_handler_that_was_told_to_stop_ends_it_too(error):
    async def stopping(ctx: object, payload: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise error

    run = Run()
    (task,) = run.start(TaskType("stopping", stopping), timeout=0.01)
    (outcome,) = await run.ended(task)

    assert_can_be_stored(outcome)


@on_a_loop
async def test_a_handler_that_swallows_its_cancel_is_over_without_it(monkeypatch):
    monkeypatch.setattr(runner, "STOPPING_SECONDS", 0.01)
    release = asyncio.Event()

    async def deaf(ctx: object, payload: object) -> str:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "late"

    run = Run()
    (task,) = run.start(TaskType("deaf", deaf), timeout=0.01)
    (outcome,) = await run.ended(task)

    assert isinstance(outcome, WillRetry)
    assert outcome.error.type == "TimedOut"
    # What it still says changes nothing.
    release.set()
    await run.ended(*run.start(who))
    assert run.outcomes[task] is outcome


@on_a_loop
async def test_a_handler_that_cancels_its_own_task_and_waits_has_failed(monkeypatch):
    async def cancels(ctx: object, payload: object) -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(0)

    run = Run()
    first, second = run.start(TaskType("cancels", cancels), who)
    outcomes = await run.ended(first, second)

    assert_can_be_stored(outcomes[0])
    assert isinstance(outcomes[1], Succeeded)
