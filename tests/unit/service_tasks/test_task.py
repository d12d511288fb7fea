"""States, statuses and their words; and the page in docs/ that shows them."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

import pytest

from service_tasks.domain.task import (
    ENDED_STATES,
    FIRST_STATES,
    LIVE_STATES,
    RETRYABLE_STATES,
    TRANSITIONS,
    AttemptError,
    Lease,
    State,
    Status,
    clamp_percent,
    plain_text,
    public_status,
    states_of,
    status_named,
)
from service_tasks.engine.ports import cancel_announcement, cancelled_lease

PAGE = Path(__file__).parents[3] / "docs" / "task_states.md"


def test_the_diagram_in_the_docs_shows_exactly_the_transitions():
    diagram = PAGE.read_text(encoding="utf-8").partition("```mermaid")[2].partition("```")[0]
    arrows = set(re.findall(r"^\s*(\S+) --> (\w+|\[\*\])", diagram, re.MULTILINE))

    expected = {(source.value, target.value) for source, targets in TRANSITIONS.items() for target in targets}
    expected |= {("[*]", state.value) for state in FIRST_STATES} | {(state.value, "[*]") for state in ENDED_STATES}
    assert arrows == expected


def test_the_table_in_the_docs_shows_the_status_of_every_state():
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)

    assert rows == [(state.value, public_status(state).value) for state in State]


def test_every_state_belongs_to_one_status_and_back():
    assert [state for status in Status for state in states_of(status)] == list(State)
    assert set(TRANSITIONS) == set(State)


def test_live_tasks_can_be_cancelled_and_only_some_ended_ones_go_back():
    assert {state for state in State if State.CANCELLED in TRANSITIONS[state]} == LIVE_STATES
    assert {state for state in ENDED_STATES if TRANSITIONS[state]} == RETRYABLE_STATES


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("New", Status.PENDING),
        ("pending", Status.PENDING),
        ("Pending", Status.PENDING),
        ("In Progress", Status.PROCESSING),
        ("in_progress", Status.PROCESSING),
        ("IN-PROGRESS", Status.PROCESSING),
        ("Running", Status.PROCESSING),
        ("processing", Status.PROCESSING),
        ("Done", Status.COMPLETED),
        ("Completed", Status.COMPLETED),
        ("Failed", Status.FAILED),
        ("cancelled", Status.CANCELLED),
        ("Canceled", Status.CANCELLED),
        ("", None),
        ("ready", None),
        ("inprogress", None),
    ],
)
def test_other_services_words_mean_one_of_our_statuses(word, status):
    assert status_named(word) is status


@pytest.mark.parametrize(
    ("given", "percent"),
    [(0, 0), (42.9, 42), (100, 100), (-3, 0), (1e9, 100), (float("inf"), 100), (float("nan"), 0)],
)
def test_progress_is_a_whole_number_from_0_to_100(given, percent):
    assert clamp_percent(given) == percent


@pytest.mark.parametrize(
    ("text", "limit", "plain"),
    [
        ("Белов", 10, "Белов"),
        ("a\0b", 10, "a\N{REPLACEMENT CHARACTER}b"),
        ("half \ud83d", 10, "half ?"),
        ("abcdef", 4, "abc…"),
        ("abcd", 4, "abcd"),
    ],
)
def test_texts_are_made_fit_for_postgres(text, limit, plain):
    assert plain_text(text, limit) == plain


def test_an_error_without_words_is_told_by_its_type():
    assert AttemptError.of(KeyError()) == AttemptError("KeyError", "KeyError")


def test_a_cancel_announcement_names_its_lease_and_other_words_do_not():
    lease = Lease(UUID("018f3c1e-7b1a-7c3e-9d2b-0a1b2c3d4e5f"), 7)

    assert cancelled_lease(cancel_announcement(lease)) == lease
    for other in ("ready", "", "cancel", "cancel:x:1", f"cancel:{lease.task_id}", f"cancel:{lease.task_id}:x"):
        assert cancelled_lease(other) is None
