"""What a resolver remembers, when it looks up again, and in which order addresses are tried."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence

import pytest

from servicekit.observing.shortage import is_shortage
from servicekit.wire import resolver as resolver_module
from servicekit.wire.resolver import (
    AVOID_SECONDS,
    FRESH_SECONDS,
    LOOK_UP_SECONDS,
    PAUSE_SECONDS,
    HostAddress,
    Resolver,
    system_resolve,
)

SECONDS = 10.0


def v4(host: str) -> HostAddress:
    return HostAddress(socket.AF_INET, host)


def v6(host: str) -> HostAddress:
    return HostAddress(socket.AF_INET6, host)


class Server:
    """A name server of the test; `answers` is given from now on, or raised, once `open` is set."""

    def __init__(self, *answer: HostAddress) -> None:
        self.answer: Sequence[HostAddress] | Exception = answer
        self.open = threading.Event()
        self.open.set()
        self.asked = 0

    def __call__(self, host: str, port: int) -> Sequence[HostAddress]:
        self.asked += 1
        assert self.open.wait(SECONDS)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ask(resolver: Resolver) -> list[HostAddress]:
    return resolver.find_within(SECONDS)


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("127.0.0.1", [v4("127.0.0.1")]),
        ("::1", [v6("::1")]),
        ("localhost", [v4("127.0.0.1"), v6("::1")]),
    ],
)
def test_a_number_and_localhost_are_never_looked_up(host: str, addresses: list[HostAddress]) -> None:
    server = Server()
    resolver = Resolver(host, 80, resolve=server)
    assert resolver.addresses() == (addresses, None, 0.0)
    assert resolver.renew() is None
    assert (resolver.fixed, resolver.known, server.asked) == (True, True, 0)


def test_an_answer_serves_for_a_while_and_is_then_looked_up_again(clock: Clock) -> None:
    server = Server(v4("10.0.0.1"))
    resolver = Resolver("users", 80, resolve=server, clock=clock)
    assert [ask(resolver), ask(resolver)] == [[v4("10.0.0.1")]] * 2
    assert server.asked == 1
    server.answer = [v4("10.0.0.2")]
    clock.now += FRESH_SECONDS
    assert ask(resolver) == [v4("10.0.0.2")]
    assert server.asked == 2


@pytest.mark.parametrize("fault", [socket.gaierror(socket.EAI_AGAIN, "again"), OSError("no"), ValueError("a fault")])
def test_the_last_answer_outlives_a_name_server_that_fails(
    clock: Clock, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(v4("10.0.0.1"))
    resolver = Resolver("users", 80, resolve=server, clock=clock)
    ask(resolver)
    server.answer = fault
    warned: list[str] = []
    monkeypatch.setattr(resolver_module._log, "warning", lambda event, **_: warned.append(event))
    for _ in range(3):
        clock.now += FRESH_SECONDS
        assert ask(resolver) == [v4("10.0.0.1")]
    assert server.asked == 4
    assert warned == ["look_up_failed"]


def test_a_name_server_that_says_nothing_is_waited_for_a_moment_once_and_asked_once(clock: Clock) -> None:
    server = Server(v4("10.0.0.1"))
    resolver = Resolver("users", 80, resolve=server, clock=clock)
    ask(resolver)
    server.open.clear()
    clock.now += FRESH_SECONDS
    known, look_up, patience = resolver.addresses()
    assert (known, patience) == ([v4("10.0.0.1")], LOOK_UP_SECONDS)
    assert look_up is not None
    for _ in range(50):
        clock.now += FRESH_SECONDS
        assert resolver.addresses() == ([v4("10.0.0.1")], None, 0.0)
        assert resolver.renew() is look_up
    server.open.set()
    look_up.result(SECONDS)
    assert server.asked == 2


def test_without_any_answer_everybody_waits_for_the_same_look_up() -> None:
    server = Server(v4("10.0.0.1"))
    server.open.clear()
    resolver = Resolver("users", 80, resolve=server)
    waits = [resolver.addresses() for _ in range(50)]
    assert not resolver.known
    server.open.set()
    assert {patience for _, _, patience in waits} == {float("inf")}
    assert [look_up.result(SECONDS) for _, look_up, _ in waits if look_up] == [[v4("10.0.0.1")]] * 50
    assert server.asked == 1


def test_whoever_finds_nobody_there_may_look_up_again_once_in_a_second(clock: Clock) -> None:
    server = Server(v4("10.0.0.1"))
    resolver = Resolver("users", 80, resolve=server, clock=clock)
    ask(resolver)
    assert resolver.renew() is None
    clock.now += PAUSE_SECONDS
    look_up = resolver.renew()
    assert look_up is not None
    look_up.result(SECONDS)
    assert resolver.renew() is None


def test_what_did_not_answer_is_tried_last_for_a_while(clock: Clock) -> None:
    first, second, third = v4("10.0.0.1"), v4("10.0.0.2"), v4("10.0.0.3")
    resolver = Resolver("users", 80, resolve=Server(first, second, third), clock=clock)
    ask(resolver)
    resolver.failed(first)
    resolver.failed(second)
    assert ask(resolver) == [third, first, second]
    resolver.answered(second)
    assert ask(resolver) == [second, third, first]
    clock.now += AVOID_SECONDS
    ask(resolver)
    assert ask(resolver) == [first, second, third]


@pytest.mark.parametrize(
    ("given", "tried"),
    [
        ([v6("::1"), v6("::2"), v6("::3"), v4("1.1.1.1")], [v6("::1"), v4("1.1.1.1"), v6("::2"), v6("::3")]),
        ([v4("1.1.1.1"), v4("1.1.1.2"), v6("::1")], [v4("1.1.1.1"), v6("::1"), v4("1.1.1.2")]),
        ([v4("1.1.1.1"), v4("1.1.1.1")], [v4("1.1.1.1")]),
    ],
)
def test_the_families_take_turns_and_the_first_one_begins(given: list[HostAddress], tried: list[HostAddress]) -> None:
    assert ask(Resolver("users", 80, resolve=Server(*given))) == tried


def test_without_a_thread_to_look_up_on_the_next_one_is_tried_later(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    resolver = Resolver("users", 80, resolve=Server(v4("10.0.0.1")), clock=clock)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="can't start new thread") as refused:
            ask(resolver)
    assert is_shortage(refused.value)
    assert ask(resolver) == [v4("10.0.0.1")]


def test_a_host_without_addresses_is_an_error_of_the_name() -> None:
    with pytest.raises(socket.gaierror):
        ask(Resolver("users", 80, resolve=Server()))


def test_the_system_knows_this_machine() -> None:
    assert v4("127.0.0.1") in system_resolve("localhost", 80)
