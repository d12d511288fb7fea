"""How runs become rows, and what a peer says that cannot, or did not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks import broker
from benchmarks.installing import Missing
from benchmarks.report import OURS, ReportRow
from benchmarks.tasks import bench, peer_works
from benchmarks.tasks.bench import WORKS, Record, chosen
from benchmarks.tasks.configurations import PEERS
from benchmarks.tasks.peer import Command, PeerFailed, PeerQueue

NOOP, START = WORKS["noop-1"], WORKS["start"]


def _record():
    return Record([NOOP.title, START.title])


def _peer(**also):
    fields = {"name": "peer 1.0", "programs": Path("bin"), "module": "m", "on_rabbitmq": False, "quick_fill": 1}
    return PeerQueue(**fields, fill=1, worker=Command(("w",)), holder=lambda count: Command(("h",)), **also)


def test_rows_stand_by_work_then_metric_then_subject():
    record = _record()
    for subject in (OURS, "peer"):
        record.add(START, subject, "median", "ms", 1.0)
        record.add(NOOP, subject, "tasks", "1/s", 2.0)
        record.add(NOOP, subject, "CPU", "µs", 3.0)
    assert [(row.work, row.metric, row.subject) for row in record.rows()] == [
        (NOOP.title, "tasks", OURS),
        (NOOP.title, "tasks", "peer"),
        (NOOP.title, "CPU", OURS),
        (NOOP.title, "CPU", "peer"),
        (START.title, "median", OURS),
        (START.title, "median", "peer"),
    ]


def test_the_runs_of_several_rounds_are_one_row():
    record = _record()
    for value in (1.0, 3.0, 2.0):
        record.add(NOOP, OURS, "tasks", "1/s", value)
    (row,) = record.rows()
    assert row.runs == (1.0, 3.0, 2.0)
    assert row.value == 2.0


def test_a_note_is_a_row_without_runs():
    record = _record()
    record.note(NOOP, "peer", "has none")
    assert record.rows() == [ReportRow(NOOP.title, "peer", "tasks", "1/s", (), "has none")]


def test_a_run_that_failed_does_not_hide_those_that_did_not():
    record = _record()
    record.add(NOOP, "peer", "tasks", "1/s", 5.0)
    record.note(NOOP, "peer", "failed: it fell over")
    assert record.rows() == [ReportRow(NOOP.title, "peer", "tasks", "1/s", (5.0,))]


def test_a_peer_that_cannot_do_a_work_is_not_asked_to():
    record = _record()
    bench._run_peer(_peer(lacks={"noop-1": "has none"}), None, Path("nowhere"), record, "noop-1", True)
    assert [row.note for row in record.rows()] == ["has none"]


@pytest.mark.parametrize("error", [PeerFailed("it fell over\nand lay"), OSError("it fell over"), ValueError()])
def test_what_goes_wrong_with_a_peer_is_its_figure_and_ends_nothing(monkeypatch, error):
    def fail(*_):
        raise error
        yield

    record = _record()
    monkeypatch.setitem(peer_works.WORKS, "noop-1", fail)
    bench._run_peer(_peer(), None, Path("nowhere"), record, "noop-1", True)
    (row,) = record.rows()
    assert row.note == ("failed: it fell over" if str(error) else "failed: ValueError")


def test_every_work_can_be_done_by_a_peer_or_has_a_reason_why_not():
    # Creation over HTTP is nobody's but ours.
    assert {*WORKS} - {*peer_works.WORKS} == {"create-http"}


def test_a_list_with_commas_chooses_and_no_list_takes_all():
    assert chosen("subject", "awa,celery", PEERS) == ["awa", "celery"]
    assert chosen("subject", None, PEERS) == list(PEERS)


def test_a_name_that_there_is_not_ends_the_program_with_those_that_there_are():
    with pytest.raises(SystemExit, match="there is no subject rq; there are celery, dramatiq"):
        chosen("subject", "rq", PEERS)


class _NoBroker:
    postgres = None

    def broker(self):
        raise Missing("needs an installed rabbitmq-server")


def test_a_peer_that_cannot_be_had_is_named_with_the_reason_and_the_others_run(monkeypatch):
    def not_there():
        raise Missing("cannot be installed: no such package")

    monkeypatch.setitem(PEERS, "awa", not_there)
    monkeypatch.setitem(PEERS, "celery", lambda: dataclasses.replace(_peer(), name="Celery 1.0", on_rabbitmq=True))
    monkeypatch.setitem(PEERS, "pgqueuer", lambda: dataclasses.replace(_peer(), name="PgQueuer 1.0"))
    record = _record()
    runners = bench._runners([OURS, "celery", "pgqueuer", "awa"], _NoBroker(), Path("nowhere"), record, ["noop-1"])
    assert list(runners) == [OURS, "PgQueuer 1.0"]
    assert {row.subject: row.note for row in record.rows()} == {
        "celery": "missing: needs an installed rabbitmq-server",
        "awa": "missing: cannot be installed: no such package",
    }


def test_without_an_installed_rabbitmq_there_is_no_broker(monkeypatch, tmp_path):
    monkeypatch.setattr(broker, "installed", lambda: None)
    with pytest.raises(Missing, match="rabbitmq-server"):
        broker.start_broker(tmp_path)
