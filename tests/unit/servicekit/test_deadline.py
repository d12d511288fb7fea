"""How much time a request has left."""

from __future__ import annotations

import pytest

from servicekit.wire import deadline
from servicekit.wire.errors import DeadlineExceeded


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("1", 0.001),
        ("2500", 2.5),
        ("999999999", 999_999.999),
        (None, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1e3", None),
        (" 1", None),
        ("1000000000", None),  # ten digits
        ("٣", None),
        ("²", None),
    ],
)
def test_whole_milliseconds_are_read_and_anything_else_counts_as_not_sent(value, seconds):
    assert deadline.seconds_from_header(value) == seconds


def test_without_a_deadline_there_is_as_much_time_as_asked_for():
    assert deadline.remaining(3.0) == 3.0
    with deadline.within(None):
        assert deadline.remaining(3.0) == 3.0


def test_a_deadline_shortens_and_never_lengthens():
    with deadline.within(60):
        assert deadline.remaining(3.0) == 3.0
        assert 3.0 < deadline.remaining(100.0) <= 60


def test_time_that_is_gone_is_an_error_and_ends_with_its_block():
    with deadline.within(0), pytest.raises(DeadlineExceeded):
        deadline.remaining(3.0)
    assert deadline.remaining(3.0) == 3.0
