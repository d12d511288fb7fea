"""What a benchmark prints and writes."""

from __future__ import annotations

import json

from benchmarks.report import ReportRow, print_table, write_json

ROWS = [
    ReportRow("GET", "siteworks", "good answers", "1/s", (30.0, 10.0, 20.0)),
    ReportRow("GET", "peer 1.0", "good answers", "1/s", (5.0, 4.0, 6.0)),
    ReportRow("GET", "peer 2.0", "good answers", "1/s", (10.0, 10.0, 11.0)),
]


def test_the_value_is_the_median_of_the_runs():
    assert [row.value for row in ROWS] == [20.0, 5.0, 10.0]


def test_the_table_divides_by_the_first_peer_not_by_us(capsys):
    print_table(ROWS)
    ours, first, second = (line.split() for line in capsys.readouterr().out.splitlines()[1:4])
    assert ours[:4] == ["siteworks", "20.0", "4.00", "x"]
    assert first == ["peer", "1.0", "5.0", "5.0", "4.0", "6.0"]
    assert second[2:5] == ["10.0", "2.00", "x"]


def test_nothing_is_divided_by_a_peer_that_shows_nothing(capsys):
    print_table([ROWS[0], ReportRow("GET", "peer", "good answers", "1/s", (0.0, 0.0, 0.0))])
    assert " x" not in capsys.readouterr().out


def test_the_file_holds_what_other_programs_read(tmp_path):
    file = tmp_path / "figures.json"
    write_json(file, "gateway", ROWS[:1])
    written = json.loads(file.read_text())
    assert written.keys() == {"benchmark", "commit", "machine", "rows"}
    assert written["benchmark"] == "gateway"
    assert written["rows"] == [
        {
            "work": "GET",
            "subject": "siteworks",
            "metric": "good answers",
            "unit": "1/s",
            "value": 20.0,
            "runs": [30.0, 10.0, 20.0],
        }
    ]


def test_a_subject_without_a_figure_says_why_in_its_place(capsys):
    print_table([ROWS[0], ReportRow("GET", "first", "good answers", "1/s", (), "has none"), *ROWS[1:]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split(maxsplit=1) == ["first", "has none"]
    # Ratios refer to the first that has a figure.
    assert lines[1].split()[2:4] == ["4.00", "x"]


def test_the_file_tells_a_missing_figure_from_zero(tmp_path):
    file = tmp_path / "figures.json"
    write_json(file, "tasks", [ReportRow("GET", "peer", "good answers", "1/s", (), "has none")])
    (row,) = json.loads(file.read_text())["rows"]
    assert row["value"] is None
    assert row["runs"] == []
    assert row["note"] == "has none"
