"""`./scripts/docs`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from scripts.reference import endpoints, errors, events, metrics, roles, settings, words
from scripts.reference.code import CHECKOUT
from servicekit.observing.logs import configure

STALE = "written from the code, and out of date: run ./scripts/docs"


def written() -> Mapping[Path, str]:
    """The generated files, with their content."""
    reference = CHECKOUT / "docs" / "reference"
    return {
        reference / "endpoints.md": endpoints.page(),
        reference / "errors.md": errors.page(),
        reference / "events.md": events.page(),
        reference / "metrics.md": metrics.page(),
        reference / "roles.md": roles.page(),
        reference / "settings.md": settings.page(),
        CHECKOUT / ".env.example": settings.example(),
    }


def stale() -> dict[Path, str | None]:
    """The files that are out of date, with their right content; None for one that should not exist."""
    wanted = written()
    old: dict[Path, str | None] = {
        file: text for file, text in wanted.items() if not file.is_file() or file.read_text(encoding="utf-8") != text
    }
    return old | {file: None for file in (CHECKOUT / "docs" / "reference").glob("*") if file not in wanted}


def main() -> int:
    """Write the files, check them, or count the words of the pages."""
    parser = argparse.ArgumentParser(
        prog="./scripts/docs", description="Write docs/reference and .env.example from the code."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if a file is out of date")
    parser.add_argument("--words", action="store_true", help="count the words of each page instead, outside code")
    options = parser.parse_args()
    if options.words:
        print(words.report())
        return 0
    # Building the applications logs lines that do not matter here.
    configure("docs", fmt="console", level="error")
    old = stale()
    for file, text in old.items():
        print(f"{file.relative_to(CHECKOUT)}{f': {STALE}' if options.check else ''}")
        if options.check:
            continue
        if text is None:
            file.unlink()
        else:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return 1 if old and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
