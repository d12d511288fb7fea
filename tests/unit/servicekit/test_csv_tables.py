"""Tables for spreadsheets: RFC 4180 as Excel takes it where numbers have a decimal comma."""

from __future__ import annotations

import csv
import io

import pytest

from servicekit.identity.roles import Action
from servicekit.web.app import make_app
from servicekit.web.csv_tables import Cell, as_csv
from servicekit.web.routes import Routes
from servicekit.web.schemas import View


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        (12, "12"),
        (-5, "-5"),
        (0.5, "0,5"),
        (None, ""),
        ("", ""),
        ("Альфа", "Альфа"),
        ("one; two", '"one; two"'),
        ('the "big" one', '"the ""big"" one"'),
        ("two\nlines", '"two\nlines"'),
        ('=HYPERLINK("http://evil","x")', '"\'=HYPERLINK(""http://evil"",""x"")"'),
        ("+7 (495) 123-45-67", "'+7 (495) 123-45-67"),
        ("-5", "-5"),
        ("+1,5", "+1,5"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        (" \u00a0=1", "' \u00a0=1"),
        ("\uff1d1", "'\uff1d1"),
        ("a=b", "a=b"),
    ],
)
def test_a_cell_is_text_or_a_number_and_never_a_formula(cell: Cell, written: str) -> None:
    assert as_csv([["name", cell]]).decode("utf-8") == f"\ufeffname;{written}\r\n"


class Nails(View):
    count: int

    def table(self) -> list[list[Cell]]:
        return [["what", "count"], ["nails", self.count]]


def nail_routes() -> Routes:
    api = Routes("nails")

    @api.get("/stocks/nails", action=Action.PUBLIC, csv=True)
    def show_nails() -> Nails:
        """Show how many there are."""
        return Nails(count=7)

    return api


@pytest.mark.parametrize(
    ("accept", "is_csv"),
    [
        (None, False),
        ("*/*", False),
        ("text/html", False),
        ("application/json, text/csv;q=0.5", False),
        ("text/csv", True),
        ("text/csv, */*;q=0.1", True),
        ("TEXT/CSV; charset=utf-8", True),
    ],
)
def test_whoever_prefers_csv_gets_the_same_table_as_a_file(accept: str | None, is_csv: bool) -> None:
    client = make_app("stocks", routes=[nail_routes()], checks={}).test_client()
    answer = client.get("/stocks/nails", headers={} if accept is None else {"Accept": accept})

    assert answer.status_code == 200
    assert answer.headers["Vary"] == "Accept"
    if not is_csv:
        assert answer.json == {"success": True, "data": {"count": 7}}
        return
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="nails.csv"'
    table = csv.reader(io.StringIO(answer.get_data().decode("utf-8-sig"), newline=""), delimiter=";")
    assert [*table] == [["what", "count"], ["nails", "7"]]
    document = client.get("/openapi.json").json
    assert document is not None
    content = document["paths"]["/stocks/nails"]["get"]["responses"]["200"]["content"]
    assert content.keys() == {"application/json", "text/csv"}
