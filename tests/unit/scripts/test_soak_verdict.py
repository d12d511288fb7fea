"""What the soak calls a fault."""

from __future__ import annotations

import pytest

from scripts.soaking.records import Kill, Memory, NotedAnswer
from scripts.soaking.verdict import GATEWAY_MASTER, GATEWAY_PROCESS, RECOVERY_SECONDS, faults, growths

USERS_KILLED = Kill(at=100.0, victim="users master", pid=1, hurts=("users",), well_at=103.0)
GATEWAY_KILLED = Kill(at=100.0, victim=GATEWAY_PROCESS, pid=2, hurts=(), well_at=100.2)
NEVER_WELL = Kill(at=100.0, victim="postgres", pid=3, hurts=("users", "orders"), well_at=None)


def answer(
    began: float, ended: float, status: int, *, needs: tuple[str, ...] = ("users",), **more: object
) -> NotedAnswer:
    return NotedAnswer(began, ended, "GET", "/users", needs, status, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "kill"),
    [
        (answer(50.0, 50.1, 200), USERS_KILLED),
        (answer(50.0, 50.1, 404), USERS_KILLED),  # expected, so it says
        (answer(99.9, 100.1, 502), USERS_KILLED),  # under way as it was killed
        (answer(101.0, 101.1, 503), USERS_KILLED),
        (answer(102.9, 104.0, 504), USERS_KILLED),  # began before it was well
        (answer(101.0, 101.1, 503, needs=("orders", "users")), USERS_KILLED),
        (answer(99.9, 100.1, 0), GATEWAY_KILLED),
        (answer(100.1, 100.2, 0), GATEWAY_KILLED),  # the kernel is still closing
        (answer(101.0, 101.1, 503), NEVER_WELL),
    ],
)
def test_no_fault(one: NotedAnswer, kill: Kill) -> None:
    assert [fault for fault in faults([one], [kill], [], 0.0) if "/users" in fault] == []


@pytest.mark.parametrize(
    ("one", "kill"),
    [
        (answer(50.0, 50.1, 503), USERS_KILLED),  # before
        (answer(103.1, 103.2, 503), USERS_KILLED),  # after it was well
        (answer(101.0, 101.1, 503, needs=("orders",)), USERS_KILLED),  # somebody else's
        (answer(101.0, 101.1, 503, needs=()), USERS_KILLED),  # the gateway's own page
        (answer(101.0, 101.1, 503), GATEWAY_KILLED),
        (answer(101.0, 101.1, 0), USERS_KILLED),  # the gateway lives, so it answers
        (answer(99.0, 99.9, 0), GATEWAY_KILLED),  # ended before the kill
        (answer(100.6, 100.7, 0), GATEWAY_KILLED),  # began after it
        (answer(101.0, 101.1, 503, enveloped=False), USERS_KILLED),  # never without the envelope
        (answer(101.0, 101.1, 404, expected=False), USERS_KILLED),  # what is there is not away
        (answer(100.0 + RECOVERY_SECONDS + 1, 100.0 + RECOVERY_SECONDS + 2, 503), NEVER_WELL),
    ],
)
def test_a_fault(one: NotedAnswer, kill: Kill) -> None:
    assert len([fault for fault in faults([one], [kill], [], 0.0) if "/users" in fault]) == 1


def test_what_does_not_come_back_is_a_fault() -> None:
    assert faults([], [USERS_KILLED, GATEWAY_KILLED], [], 0.0) == []
    (fault,) = faults([], [NEVER_WELL], [], 0.0)
    assert "postgres" in fault


def life(name: str, pid: int, *mib: float) -> list[Memory]:
    return [Memory(60.0 * at, name, pid, one) for at, one in enumerate(mib)]


def test_a_process_that_grows_until_it_has_settled_is_no_fault() -> None:
    memory = life("gateway worker", 1, *[40.0, 50.0, 55.0, 58.0], *[60.0] * 8)
    assert faults([], [], memory, 0.0) == []
    (seen,) = growths(memory)
    assert (seen.before, seen.after, seen.minutes) == (60.0, 60.0, 11.0)


def test_a_process_that_goes_on_growing_is_a_fault() -> None:
    (fault,) = faults([], [], life("gateway worker", 1, *[50.0 + 3 * minute for minute in range(12)]), 0.0)
    assert "gateway worker (1)" in fault


def test_two_short_lives_are_not_taken_for_one_long_one() -> None:
    assert growths(life("users worker", 1, *[50.0] * 6) + life("users worker", 2, *[90.0] * 6)) == []


def test_a_process_that_begins_slowly_is_judged_by_what_comes_after_its_beginning() -> None:
    # Every two seconds: eighteen until it has begun, and then no more.
    memory = [Memory(2.0 * number, "task worker", 1, min(20.0 + 8.0 * number, 92.0)) for number in range(16)]
    (seen,) = growths(memory)
    assert (seen.before, seen.after) == (92.0, 92.0)
    assert growths(memory[:14]) == [], "too short a life to tell"


def test_while_the_whole_gateway_is_away_nobody_is_answered() -> None:
    gone = Kill(at=100.0, victim=GATEWAY_MASTER, pid=4, hurts=(), well_at=105.0)
    lost = [answer(began, began + 0.1, 0) for began in (99.9, 102.0, 105.2)]
    assert faults(lost, [gone], [], 0.0) == []
    late, early = answer(105.6, 105.7, 0), answer(99.0, 99.9, 0)
    assert len(faults([late, early, answer(102.0, 102.1, 503)], [gone], [], 0.0)) == 3
