"""What the event-loop server adds to every answer."""

from __future__ import annotations

import time

import pytest

from servicekit.http_server import connection


def test_the_date_follows_a_clock_that_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for now, shown in ((1e9, b"01:46:40"), (1e9 + 0.9, b"01:46:40"), (1e9 - 3600, b"00:46:40"), (1e9 + 1, b"01:46:41")):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert connection.date_line() == b"Date: Sun, 09 Sep 2001 %b GMT\r\n" % shown
