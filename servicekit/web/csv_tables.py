"""Tables as CSV (RFC 4180) that a spreadsheet opens by a double click where numbers have a decimal comma.

So columns are separated by semicolons, and a byte order mark says that it is UTF-8. Programs take JSON.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from io import StringIO

CSV = "text/csv"
CSV_CONTENT_TYPE = f"{CSV}; charset=utf-8"
Cell = str | int | float | None
#: What a spreadsheet takes for a formula, unless it is a number (https://owasp.org/www-community/attacks/CSV_Injection).
#: Some pass over the spaces before it.
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?")


def as_csv(rows: Iterable[Sequence[Cell]]) -> bytes:
    """Write a table, its heading first. A text that would be taken for a formula gets an apostrophe before it."""
    written = StringIO()
    written.write("\ufeff")
    csv.writer(written, delimiter=";").writerows([_cell(value) for value in row] for row in rows)
    return written.getvalue().encode("utf-8")


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value
    return "" if value is None else str(value).replace(".", ",")
