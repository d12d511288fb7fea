"""Counts the words of each page, outside code blocks."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.reference.code import CHECKOUT

README_LIMIT, PAGE_LIMIT, ALL_LIMIT = 1300, 1500, 22_000
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def pages() -> dict[str, int]:
    """The words of README, docs and scripts/README; decisions and the reference are not counted."""
    docs = CHECKOUT / "docs"
    files = [CHECKOUT / "README.md", *sorted(docs.glob("*.md")), CHECKOUT / "scripts" / "README.md"]
    return {str(file.relative_to(CHECKOUT)): count(file) for file in files}


def count(file: Path) -> int:
    """Words have a letter or a digit; fenced blocks are left out."""
    text = _FENCED.sub("", file.read_text(encoding="utf-8"))
    return sum(1 for word in text.split() if any(map(str.isalnum, word)))


def report() -> str:
    """A line for each page, and the sum."""
    counts = pages()
    return "\n".join(f"{number:6,}  {name}" for name, number in {**counts, "all": sum(counts.values())}.items())
