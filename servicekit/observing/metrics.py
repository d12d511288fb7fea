"""Prometheus metrics of a server. Labels are route templates, never raw paths, so their values stay few.

The processes of one server sum their counts when its master has called `share_counts` before it forks them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest, values
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from servicekit.observing.logs import dropped_lines, get_logger

UNMATCHED = "unmatched"
#: prometheus_client's, where it keeps the files in which processes count.
_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "siteworks-metrics-"
#: What the first of these files takes.
_FIRST_FILE_BYTES = 64 * 1024
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
#: Upper bounds of the buckets, as the exposition format writes them.
_BOUNDS = (*(str(float(bound)) for bound in _SECONDS), "+Inf")

_log = get_logger(__name__)


def share_counts() -> None:
    """Let the processes that this one forks from now on sum their counts, those of ended ones included; later calls do
    nothing.

    Without room for the files, each shows its own.
    """
    if _DIRECTORY in os.environ:
        return
    _remove_left()
    try:
        os.environ[_DIRECTORY] = folder = tempfile.mkdtemp(prefix=_PREFIX)
        # Held until the last of the server's processes ends.
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        room = Path(folder, "room")
        # A full disk must show now.
        room.write_bytes(bytes(_FIRST_FILE_BYTES))
        room.unlink()
    except OSError as error:
        _log.error("metrics_not_shared", error=str(error))
        remove_counts()
        return
    # It looked when it was imported.
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]


def _remove_left() -> None:
    """Remove the files of servers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, or removed by another server that starts
            # One without a file may be about to be locked.
            if any(folder.iterdir()):
                descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
                finally:
                    os.close(descriptor)


def remove_counts() -> None:
    """Remove the files of `share_counts`, if there are any."""
    folder = Path(os.environ.get(_DIRECTORY, ""))
    if folder.name.startswith(_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ[_DIRECTORY]


@dataclass(frozen=True, slots=True)
class Named:
    """A metric's name, its help text and its labels."""

    name: str
    text: str
    labels: Sequence[str]


class Tally:
    """Counts events and their duration, for one set of labels. Thread-safe."""

    __slots__ = ("_lock", "counts", "times", "total")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: All events, timed or not.
        self.times = 0
        #: Of the timed ones: the count per bucket, and the total seconds.
        self.counts = [0] * (len(_SECONDS) + 1)
        self.total = 0.0

    def add(self, seconds: float | None) -> None:
        """Count one; with `seconds` None it is not in the histogram."""
        with self._lock:
            self.times += 1
            if seconds is not None:
                self.counts[bisect_left(_SECONDS, seconds)] += 1
                self.total += seconds


class _TallyInFiles(Tally):
    """A Tally in the files shared by all processes of the server.

    It adds to prometheus_client's values themselves: what counter and histogram do besides takes as long again.
    """

    __slots__ = ("_add_count", "_add_seconds", "_add_time")

    def __init__(self, counter: Counter, histogram: Histogram) -> None:
        self._add_time = counter._value.inc
        self._add_seconds = histogram._sum.inc
        self._add_count = [bucket.inc for bucket in histogram._buckets]

    def add(self, seconds: float | None) -> None:
        self._add_time(1)
        if seconds is not None:
            self._add_seconds(seconds)
            self._add_count[bisect_left(_SECONDS, seconds)](1)


class Tallies(Collector):
    """A counter and a histogram of seconds for the same events; the histogram has only the first labels.

    It counts by itself, because prometheus_client's objects take several times as long per request; between processes
    it uses theirs.
    """

    def __init__(self, registry: CollectorRegistry, counted: Named, timed: Named) -> None:
        self._counted = counted
        self._timed = timed
        self._kept: dict[tuple[str, ...], Tally] = {}
        self._files: tuple[Counter, Histogram] | None = None
        if os.environ.get(_DIRECTORY):
            self._files = (
                Counter(counted.name, counted.text, counted.labels, registry=registry),
                Histogram(timed.name, timed.text, timed.labels, buckets=_SECONDS, registry=registry),
            )
        else:
            registry.register(self)

    def of(self, *labels: str) -> Tally:
        """The tally for these values of the counter's labels."""
        tally = self._kept.get(labels)
        if tally is None:
            if self._files is None:
                tally = Tally()
            else:
                counter, histogram = self._files
                tally = _TallyInFiles(counter.labels(*labels), histogram.labels(*labels[: len(self._timed.labels)]))
            tally = self._kept.setdefault(labels, tally)
        return tally

    def collect(self) -> Iterable[Metric]:
        counter = CounterMetricFamily(self._counted.name, self._counted.text, labels=self._counted.labels)
        histogram = HistogramMetricFamily(self._timed.name, self._timed.text, labels=self._timed.labels)
        timed: dict[tuple[str, ...], list[Tally]] = defaultdict(list)
        for labels, tally in list(self._kept.items()):
            counter.add_metric(labels, tally.times)
            timed[labels[: len(self._timed.labels)]].append(tally)
        for labels, tallies in timed.items():
            reached = 0
            buckets = []
            for bound, *counts in zip(_BOUNDS, *(one.counts for one in tallies), strict=True):
                reached += sum(counts)
                buckets.append((bound, float(reached)))
            histogram.add_metric(labels, buckets, sum(one.total for one in tallies))
        return [counter, histogram]


class Metrics:
    """A registry with the metrics of every web process.

    `same_everywhere` names the gauges that are equal in all processes of the server.
    """

    def __init__(self, service: str, *, same_everywhere: Collection[str] = ()) -> None:
        self.service = service
        self.registry = CollectorRegistry()
        self._shown = self.registry
        directory = os.environ.get(_DIRECTORY)
        if directory:
            self._shown = CollectorRegistry()
            self._shown.register(_AllProcesses(self.registry, directory, same_everywhere))
        else:
            ProcessCollector(registry=self.registry)
        self._requests = Tallies(
            self.registry,
            Named("siteworks_http_requests_total", "Requests answered.", ["service", "method", "route", "status"]),
            Named(
                "siteworks_http_request_duration_seconds",
                "Time from the first byte of a request to its answer, in seconds.",
                ["service", "method", "route"],
            ),
        )
        self._dropped = Counter(
            "siteworks_log_lines_dropped_total",
            "Log lines lost because nobody read them in time.",
            registry=self.registry,
        )
        self._dropped_lock = threading.Lock()
        self._dropped_seen = 0
        #: As bounded as the labels themselves.
        self._tallies: dict[tuple[str, str, int], Tally] = {}

    def observe(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer; `route` is a template such as `/users/{id}`, or `UNMATCHED`."""
        method = method if method in _METHODS else "other"
        key = (method, route, status)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = self._requests.of(self.service, method, route, str(status))
        tally.add(seconds)

    def sums(self, name: str, label: str) -> dict[str, float]:
        """What a counter says, added up by one of its labels."""
        found: dict[str, float] = {}
        for family in self._shown.collect():
            for sample in family.samples:
                if sample.name == name:
                    found[sample.labels[label]] = found.get(sample.labels[label], 0) + sample.value
        return found

    def render(self) -> tuple[bytes, str]:
        """Return the text exposition and its media type."""
        with self._dropped_lock:
            dropped = dropped_lines()
            self._dropped.inc(dropped - self._dropped_seen)
            self._dropped_seen = dropped
        return generate_latest(self._shown), CONTENT_TYPE_LATEST


class _AllProcesses(Collector):
    """The counts of all processes, and this process's gauges, with its id unless they are the same everywhere."""

    def __init__(self, own: CollectorRegistry, directory: str, same_everywhere: Collection[str]) -> None:
        self._own = own
        self._directory = directory
        self._same = frozenset(same_everywhere)

    def collect(self) -> Iterable[Metric]:
        # One that a starting process has only just made is empty, which the library takes for a broken one.
        files = [str(file) for file in Path(self._directory).glob("*.db") if file.stat().st_size]
        yield from MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        process = {"process": str(os.getpid())}
        for family in self._own.collect():
            if family.type != "gauge":
                continue
            if family.name not in self._same:
                family.samples = [one._replace(labels={**one.labels, **process}) for one in family.samples]
            yield family
