"""What is kept of a traceback."""

from __future__ import annotations

import pytest

from service_tasks.domain.task import MAX_TRACE_CHARACTERS, AttemptError
from service_tasks.engine.context import RetryAfter
from service_tasks.engine.traces import MAX_FRAMES, trace_of


def caught(function) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
        function()
    return caught.value


def deep(levels: int) -> None:
    if levels == 0:
        raise ValueError("the bottom")
    deep(levels - 1)


def test_the_end_of_a_deep_trace_is_kept_because_it_tells_the_most():
    trace = trace_of(caught(lambda: deep(500)))

    assert trace.startswith("Traceback (most recent call last):")
    assert trace.endswith("ValueError: the bottom")
    assert trace.count("File ") <= MAX_FRAMES
    assert len(trace) <= MAX_TRACE_CHARACTERS


def test_a_long_message_does_not_make_a_long_trace():
    def shout() -> None:
        raise ValueError("x" * 100_000 + " the end")

    trace = trace_of(caught(shout))

    assert len(trace) == MAX_TRACE_CHARACTERS
    assert trace.startswith("…")
    assert trace.endswith("x the end")


def test_the_cause_is_told_too_and_what_postgres_cannot_hold_is_made_fit():
    def fail() -> None:
        try:
            deep(1)
        except ValueError as exc:
            raise RuntimeError("nul \0 half \ud800") from exc

    trace = trace_of(caught(fail))

    assert "ValueError: the bottom" in trace
    assert "direct cause" in trace
    assert trace.endswith("RuntimeError: nul \N{REPLACEMENT CHARACTER} half ?")


def test_frames_of_the_engine_are_left_out_but_never_all():
    error = caught(lambda: deep(2))

    assert "deep" in trace_of(error)
    last_frame_only = trace_of(error, without=frozenset({__file__}))
    assert last_frame_only.count("File ") == 1


def test_an_error_that_cannot_tell_what_it_is_still_has_a_name():
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    error = caught(lambda: (_ for _ in ()).throw(Mute()))

    assert AttemptError.of(error, trace_of(error)).message == "Mute"


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_wait_that_is_no_number_of_seconds_is_refused(seconds):
    with pytest.raises(ValueError, match="number of seconds"):
        RetryAfter(seconds)


def test_a_wait_tells_its_length_unless_it_has_a_better_reason():
    assert str(RetryAfter(90)) == "asked to be tried again after 90 seconds"
    assert str(RetryAfter(90, "the crane is busy")) == "the crane is busy"
