"""What counts as having run out of something here, and how often the log tells of it."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from servicekit.observing import shortage
from servicekit.wire import resolver
from tests.support.shortage import no_more_files

OURS = [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOMEM, errno.ENOBUFS]


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        *((OSError(number, "as the system says"), True) for number in OURS),
        (socket.gaierror(socket.EAI_MEMORY, "no memory"), True),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), False),
        (TimeoutError(), False),
        (OSError(errno.ENETUNREACH, "unreachable"), False),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), False),
        (MemoryError(), False),
    ],
    ids=repr,
)
def test_what_the_system_refuses_this_process_is_told_apart(error: BaseException, ours: bool) -> None:
    assert shortage.is_shortage(error) is ours


def test_a_thousand_reports_are_one_line_and_the_next_one_counts_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr(shortage.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(shortage, "_logged_at", 0.0)
    monkeypatch.setattr(shortage, "_unlogged", 0)
    told: list[dict[str, object]] = []
    monkeypatch.setattr(shortage._log, "error", lambda event, **fields: told.append({"event": event, **fields}))
    for _ in range(1000):
        shortage.report(OSError(errno.EMFILE, "Too many open files"), at="users")
    now[0] += shortage.LOG_SECONDS
    shortage.report(OSError(errno.EMFILE, "Too many open files"), at="accept")
    line = {"event": "out_of_resources", "cause": "[Errno 24] Too many open files"}
    assert told == [{**line, "at": "users", "missed": 0}, {**line, "at": "accept", "missed": 999}]


class Listener:
    """What gunicorn gives a worker to accept from."""

    def __init__(self, number: int) -> None:
        self._number = number

    def accept(self) -> None:
        raise OSError(self._number, "as the system says")


def test_certificates_that_could_not_be_read_without_a_file_are_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "_trust", None)
    with no_more_files():
        assert resolver.system_trust().cert_store_stats()["x509_ca"] == 0
    later = resolver.system_trust()
    assert later.cert_store_stats() == ssl.create_default_context().cert_store_stats()
    if later.cert_store_stats()["x509_ca"]:
        assert resolver.system_trust() is later
