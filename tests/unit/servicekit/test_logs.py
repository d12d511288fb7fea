"""Log lines: one JSON object each, with service and request id, for our own words and the libraries'."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading

import pytest
import structlog

from servicekit.observing import logs, request_id


@pytest.fixture(autouse=True)
def _the_former_configuration():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_holds_service_level_event_values_and_request_id(capsys):
    logs.configure("pumps")
    with request_id.use("r-1"):
        logs.get_logger("x").info("pump_started", pump="Насос", count=3)
    logs.get_logger("x").info("outside")

    first, second = lines(capsys)
    assert first.pop("time").endswith("Z")
    assert first == {
        "service": "pumps", "level": "info", "event": "pump_started", "pump": "Насос", "count": 3, "request_id": "r-1",
    }  # fmt: skip
    assert "request_id" not in second


def test_the_libraries_lines_have_the_same_form(capsys):
    logs.configure("pumps")
    logging.getLogger("some.library").warning("disk %s is full", "sda")
    (line,) = lines(capsys)
    assert (line["event"], line["service"], line["level"]) == ("disk sda is full", "pumps", "warning")


def test_a_traceback_is_part_of_its_line(capsys):
    logs.configure("pumps")
    try:
        raise ZeroDivisionError("oh\nno")
    except ZeroDivisionError:
        logs.get_logger("x").exception("crashed")
    (line,) = lines(capsys)
    assert line["event"] == "crashed"
    assert "ZeroDivisionError: oh\nno" in line["exception"]


def test_lines_below_the_level_are_not_written(capsys):
    logs.configure("pumps", level="warning")
    logs.get_logger("x").info("unimportant")
    logging.getLogger("some.library").info("unimportant")
    assert lines(capsys) == []


def test_a_text_with_line_breaks_cannot_forge_a_second_line(capsys):
    logs.configure("pumps")
    logs.get_logger("x").info("named", name='x\n{"event": "forged"}')
    assert [line["event"] for line in lines(capsys)] == ["named"]


def test_the_form_for_people_is_one_readable_line(capsys):
    logs.configure("pumps", fmt="console")
    logs.get_logger("x").info("pump_started", count=3)
    (line,) = capsys.readouterr().out.splitlines()
    assert "pump_started" in line
    assert "count=3" in line


#: A terminal's escape, its 8-bit form, DEL, a bidi override, an invisible space, a line break of Unicode, a newline.
HOSTILE = "\x1b[31mred \x9b31m \x7f \u202e \u200b \u2028 \n2026 forged"


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_nothing_that_a_terminal_would_obey_or_hide_reaches_it_in_either_form(capsys, fmt):
    logs.configure("pumps", fmt=fmt)
    logs.get_logger("x").info("named", cause=HOSTILE, nested=[HOSTILE])
    logging.getLogger("some.library").warning(HOSTILE)
    logs.RequestLog("x")("request", {"path": HOSTILE})
    written = capsys.readouterr().out
    assert len(written.splitlines()) == 3
    assert all(line.isprintable() for line in written.split("\n"))
    if fmt == "json":
        named, _, requested = map(json.loads, written.splitlines())
        assert named["cause"] == requested["path"] == HOSTILE
    else:
        assert "\\x1b[31mred" in written


def test_a_traceback_in_the_form_for_people_is_escaped_line_by_line_and_shows_no_variables(capsys):
    logs.configure("pumps", fmt="console")
    try:
        password = "correct horse"
        raise ZeroDivisionError(HOSTILE * bool(password))
    except ZeroDivisionError:
        logs.get_logger("x").exception("crashed")
    written = capsys.readouterr().out
    assert all(line.isprintable() for line in written.split("\n"))
    assert written.count("\n") > 3
    assert "ZeroDivisionError: \\x1b[31mred" in written
    assert written.count("correct horse") <= 1  # its line of source


VALUES = {
    "path": '/users/Насос\n"\x7f', "status": 200, "cause": None, "ms": 1.5,
    "yes": True, "odd": float("inf"), "list": [1, "a"],
}  # fmt: skip


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_a_request_line_is_the_line_that_the_logger_writes(capsys, fmt):
    logs.configure("pumps", fmt=fmt)
    with request_id.use("r-1"):
        logs.get_logger("x").info("request", **VALUES)
        logs.RequestLog("x")("request", VALUES)
    slow, quick = capsys.readouterr().out.splitlines()
    if fmt == "json":
        former, latter = json.loads(slow), json.loads(quick)
        assert list(former) == list(latter)  # in the same order too
        assert len(former.pop("time")) == len(latter.pop("time"))
        assert former == latter
        assert slow[: slow.index('"time"')] == quick[: quick.index('"time"')]
    else:
        assert slow.partition(" ")[2] == quick.partition(" ")[2]


class Later:
    """Calls nothing until it is told to."""

    def __init__(self):
        self.waiting = []

    def __call__(self, function):
        self.waiting.append(function)

    def comes(self):
        while self.waiting:
            self.waiting.pop()()


def test_frequent_lines_that_may_wait_are_written_together(capsys):
    logs.configure("pumps")
    later = Later()
    log_request = logs.RequestLog("x", later)
    for number in range(3):
        log_request("request", {"number": number})
    assert lines(capsys) == []
    assert len(later.waiting) == 1
    later.comes()
    assert [line["number"] for line in lines(capsys)] == [0, 1, 2]
    log_request("request", {"number": 3})
    later.comes()
    assert [line["number"] for line in lines(capsys)] == [3]


def test_no_line_overtakes_one_that_waits(capsys):
    logs.configure("pumps")
    later = Later()
    logs.RequestLog("x", later)("request", VALUES)
    logging.getLogger("some.library").warning("after it")
    assert [line["event"] for line in lines(capsys)] == ["request", "after it"]
    later.comes()
    assert lines(capsys) == []


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise RuntimeError('a fault')"])
def test_lines_that_wait_are_written_when_the_process_ends(ending):
    script = (
        "import sys; from servicekit.observing import logs; logs.configure('pumps');"
        f"logs.RequestLog('x', lambda write: None)('request', {{'number': 7}}); {ending}"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(ended.stdout)["number"] == 7


def test_lines_of_several_threads_are_whole_and_none_is_lost(capsys):
    logs.configure("pumps")

    def write(name):
        log_request = logs.RequestLog("x", lambda write: write())
        for number in range(500):
            log_request("request", {"name": name, "number": number})

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = lines(capsys)
    for name in range(4):
        assert [line["number"] for line in seen if line["name"] == name] == list(range(500))


def test_a_request_line_has_no_request_id_outside_a_request(capsys):
    logs.configure("pumps")
    logs.RequestLog("x")("request", VALUES)
    (line,) = lines(capsys)
    assert "request_id" not in line


def test_a_request_line_below_the_level_is_not_written(capsys):
    logs.configure("pumps", level="warning")
    logs.RequestLog("x")("request", VALUES)
    assert lines(capsys) == []


def test_a_request_line_reaches_handlers_added_later(capsys, caplog):
    logs.configure("pumps")
    logging.getLogger().addHandler(caplog.handler)
    logs.RequestLog("x")("request", VALUES)
    assert len(caplog.records) == 1
    assert len(lines(capsys)) == 1


def test_a_log_that_cannot_be_written_ends_no_request(capsys):
    logs.configure("pumps")
    handler = logging.getLogger().handlers[0]
    handler.stream = open("/dev/full", "w")  # noqa: SIM115 - closed below, where it fails once more
    logs.RequestLog("x")("request", VALUES)
    with pytest.raises(OSError, match="No space"):
        handler.stream.close()
