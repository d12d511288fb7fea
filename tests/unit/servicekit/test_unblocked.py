"""Output to a reader that has stopped, left, or has no room: nobody waits, and what is lost is counted and said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from servicekit.observing.unblocked import MOST_WAITING, TEXT_OVERHEAD, Unblocked, _unread
from tests.support.waiting import eventually

LINE = "x" * 99 + "\n"


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.said: list[int] = []
        self.stream = Unblocked(self.writer, self.said.append)

    def read(self, size: int) -> str:
        read = b""
        while len(read) < size:
            read += os.read(self.reader, size - len(read))
        return read.decode()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.set_blocking(made.reader, False)
    while not made.stream.drain(0.01):
        os.read(made.reader, 1 << 20)
    os.close(made.reader)


def test_text_arrives_whole_and_in_order(pipe: Pipe) -> None:
    texts = [f"{number}\n" for number in range(1000)] + ["long " * 50_000 + "Насос\n", "\udcff\n"]
    for text in texts:
        pipe.stream.write(text)
    expected = "".join(texts).encode("utf-8", "backslashreplace")
    assert pipe.read(len(expected)) == expected.decode()


def test_what_a_reader_has_room_for_is_there_at_once_and_takes_no_thread(pipe: Pipe) -> None:
    for text in (LINE, LINE * 300):
        pipe.stream.write(text)
        assert _unread(pipe.reader) == len(text)
        assert pipe.read(len(text)) == text
    assert f"writer of {pipe.writer}" not in {thread.name for thread in threading.enumerate()}


def test_nobody_waits_for_a_reader_that_has_stopped_and_it_hears_how_many_lines_it_missed(pipe: Pipe) -> None:
    fit = MOST_WAITING // (len(LINE) + TEXT_OVERHEAD)
    for _ in range(2 * fit):
        pipe.stream.write(LINE)
    lost = pipe.stream.dropped
    # Besides, the pipe took some.
    assert fit - 2 * 65536 // len(LINE) <= lost <= fit
    assert pipe.said == []

    pipe.read((2 * fit - lost) * len(LINE))
    eventually(lambda: pipe.said == [lost], what="the number is said")
    pipe.stream.write("after it\n")
    assert pipe.read(9) == "after it\n"
    assert pipe.stream.dropped == lost


def test_a_line_larger_than_everything_is_written_when_nothing_waits(pipe: Pipe) -> None:
    pipe.stream.write("x" * MOST_WAITING + "x\n")
    assert pipe.read(MOST_WAITING + 2).endswith("xx\n")
    assert pipe.stream.dropped == 0


#: `much` is as much as two pipes hold.
PREPARE = """
import os, signal, sys, warnings
from servicekit.observing import logs
logs.configure('pumps')
log = logs.get_logger('x')
much = 'x' * 131_072
"""


def run(script: str, *, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PREPARE + script], stdout=stdout, stderr=stderr)


@pytest.mark.parametrize(
    "write",
    [
        "log.info(much)",
        "print(much)",
        "print(much, file=sys.stderr)",
        "sys.stdout.buffer.write(much.encode() + b'\\xff')",
        "warnings.warn(much)",
        "sys.excepthook(ValueError, ValueError(much), None)",
        "logs.RequestLog('x')(much, {})",
        "signal.signal(signal.SIGALRM, lambda *_: log.info(much)); signal.raise_signal(signal.SIGALRM)",
    ],
    ids=[
        "a log line",
        "a print",
        "a print of an error",
        "bytes",
        "a warning",
        "a traceback",
        "a frequent line",
        "of a signal",
    ],
)
def test_a_process_goes_on_and_ends_although_nobody_reads_what_it_writes(write: str) -> None:
    reader, writer = os.pipe()
    answers, answer = os.pipe()
    script = f"logs.LAST_SECONDS = 0.1\n{write}; os.write({answer}, b'went on'); sys.exit(3)"
    process = subprocess.Popen(
        [sys.executable, "-c", PREPARE + script], stdout=writer, stderr=writer, pass_fds=(answer,)
    )
    os.close(answer)
    try:
        assert os.read(answers, 100) == b"went on"
        # It gives the reader a moment, who never comes.
        assert process.wait(timeout=10) == 3
    finally:
        process.kill()
        process.wait()
        for end in (reader, writer, answers):
            os.close(end)


def test_a_reader_that_moves_again_is_told_by_a_line_at_its_place_how_many_it_missed() -> None:
    reader, writer = os.pipe()
    script = "for number in range(64): log.info(much)\nprint(logs.dropped_lines(), file=sys.stderr, flush=True)"
    process = subprocess.Popen([sys.executable, "-c", PREPARE + script], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    with process, open(reader, "rb") as output:
        assert process.stderr is not None
        dropped = int(process.stderr.readline())
        *whole, last = [json.loads(line) for line in output.read().splitlines()]
    assert process.returncode == 0
    assert len(whole) + dropped == 64
    assert {line["event"] for line in whole} == {"x" * 131_072}
    assert (last["event"], last["level"], last["lines"]) == ("log_lines_dropped", "warning", dropped)


@pytest.mark.parametrize("place", ["a full disk", "a reader that left"])
def test_where_nothing_can_be_written_a_process_goes_on_and_ends(place: str) -> None:
    if place == "a full disk":
        target = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, target = os.pipe()
        os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", PREPARE + "logs.LAST_SECONDS = 0.1; log.info('one'); log.info('two'); sys.exit(3)"],
            stdout=target, stderr=subprocess.PIPE, timeout=30, check=False,
        )  # fmt: skip
    finally:
        os.close(target)
    assert (done.returncode, done.stderr) == (3, b"")


def test_a_fork_writes_its_own_lines_and_none_of_its_parents() -> None:
    # The parent's writer waits for its reader, with lines in hand and in the queue, when it forks.
    script = """
for number in range(1000):
    log.info('parent', padding='x' * 300)
child = os.fork()
if child == 0:
    log.info('child')
    sys.exit(0)
os.waitpid(child, 0)
log.info('parent again')
"""
    reader, writer = os.pipe()
    process = run(script, stdout=writer, stderr=subprocess.DEVNULL)
    os.close(writer)
    with process, open(reader, "rb") as output:
        lines = [json.loads(line)["event"] for line in output.read().splitlines()]
    assert process.wait(timeout=30) == 0
    assert Counter(lines) == {"parent": 1000, "child": 1, "parent again": 1}


def test_processes_that_share_a_pipe_do_not_tear_each_others_lines_when_it_was_full() -> None:
    script = """
os.fork()
for number in range(500):
    log.info('x' * 300)
"""
    reader, writer = os.pipe()
    process = run(script, stdout=writer, stderr=subprocess.DEVNULL)
    os.close(writer)
    with process, open(reader, "rb") as output:
        eventually(lambda: _unread(reader) > 32 * 1024, what="the pipe is nearly full")
        lines = output.read().splitlines()
    assert process.wait(timeout=30) == 0
    assert len([json.loads(line) for line in lines]) == 1000
