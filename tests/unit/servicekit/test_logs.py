"""Log lines: one JSON object each, with service and request id, for our own words and the libraries'."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from servicekit import logs, request_id


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
