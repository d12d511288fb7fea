"""What we count ourselves reads as if prometheus_client had counted it."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, values

from servicekit.observing import metrics as metrics_module
from servicekit.observing.metrics import Metrics, Named, Tallies, share_counts

COUNTED = Named("things_total", "Things done.", ["kind", "how"])
TIMED = Named("thing_seconds", "Time for a thing.", ["kind"])
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SEEN = (
    ("a", "well", 0.0),
    ("a", "well", 0.25),
    ("a", "well", 0.251953125),
    ("a", "badly", 30.0),
    ("a", "badly", 31.0),
    ("b", "well", 0.375),
    ("b", "not", None),
)


def lines(registry: CollectorRegistry) -> set[str]:
    """The exposition but for the moments at which the counting began, which we do not tell."""
    text = generate_latest(registry).decode()
    return {line for line in text.splitlines() if "_created" not in line}


@pytest.mark.parametrize("processes", ["one", "several"])
def test_the_exposition_is_prometheus_clients_own(
    processes: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counter = Counter(COUNTED.name, COUNTED.text, COUNTED.labels, registry=theirs)
    histogram = Histogram(TIMED.name, TIMED.text, TIMED.labels, buckets=BUCKETS, registry=theirs)
    for kind, how, seconds in SEEN:
        counter.labels(kind, how).inc()
        if seconds is not None:
            histogram.labels(kind).observe(seconds)
    expected = lines(theirs)
    if processes == "several":
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
        monkeypatch.setattr(values, "ValueClass", values.MultiProcessValue())
    tallies = Tallies(ours, COUNTED, TIMED)
    for kind, how, seconds in SEEN:
        tallies.of(kind, how).add(seconds)
    assert lines(ours) == expected


def test_what_several_threads_add_is_all_there() -> None:
    registry = CollectorRegistry()
    tallies = Tallies(registry, COUNTED, TIMED)

    def add() -> None:
        for _ in range(5000):
            tallies.of("a", "well").add(0.5)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = generate_latest(registry).decode()
    assert 'things_total{how="well",kind="a"} 20000.0' in text
    assert 'thing_seconds_bucket{kind="a",le="0.5"} 20000.0' in text
    assert 'thing_seconds_sum{kind="a"} 10000.0' in text


@pytest.mark.parametrize("method", ["GET", "BREW"])
def test_an_answer_is_counted_by_its_template_and_a_known_method(method: str) -> None:
    metrics = Metrics("pumps")
    metrics.observe(method=method, route="/pumps/{id}", status=404, seconds=0.2)
    found = re.findall(r"^siteworks_http_requests_total\{(.*)\} 1\.0$", metrics.render()[0].decode(), re.M)
    shown = "GET" if method == "GET" else "other"
    assert found == [f'method="{shown}",route="/pumps/{{id}}",service="pumps",status="404"']


def test_log_lines_that_were_dropped_are_counted_once_however_often_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metrics = Metrics("pumps")
    for dropped in (0, 3, 3, 5):
        monkeypatch.setattr(metrics_module, "dropped_lines", lambda dropped=dropped: dropped)
        assert f"siteworks_log_lines_dropped_total {dropped}.0\n" in metrics.render()[0].decode()


def test_a_process_that_has_only_just_made_its_file_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.MultiProcessValue())
    metrics = Metrics("pumps")
    metrics.observe(method="GET", route="/pumps/{id}", status=200, seconds=0.1)
    (tmp_path / "counter_1.db").touch()
    assert metrics.sums("siteworks_http_requests_total", "status") == {"200": 1.0}


def test_a_server_removes_the_files_of_killed_ones_and_none_of_running_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    first, second = (start(monkeypatch) for _ in range(2))
    end(first)
    third = start(monkeypatch)
    assert set(tmp_path.iterdir()) == {second, third}
    end(second)
    end(third)


def start(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    share_counts()
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    (folder / "counter_1.db").touch()
    return folder


def end(folder: Path) -> None:
    """What the kernel does with the lock when the last process ends."""
    for descriptor in Path("/proc/self/fd").iterdir():
        if descriptor.is_symlink() and os.readlink(descriptor) == str(folder):
            os.close(int(descriptor.name))
