"""Reads the documentation: its code blocks, tables, links and inline code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\S*)\s*$")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^(#+)\s+(.*?)\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is the number of its first line, from 1."""

    file: Path
    language: str
    text: str
    line: int

    @property
    def place(self) -> str:
        """File and line as editors take them."""
        return f"{self.file.relative_to(CHECKOUT)}:{self.line}"


class Document:
    """One Markdown file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.text = file.read_text(encoding="utf-8")
        self.blocks: list[Block] = []
        #: the lines outside fenced blocks; the others are empty, so that line numbers stay right
        self.prose: list[str] = []
        self._split()

    @property
    def name(self) -> str:
        """The path from the checkout."""
        return str(self.file.relative_to(CHECKOUT))

    def links(self) -> Iterator[tuple[int, str]]:
        """Each link's target with its line."""
        for number, line in enumerate(self.prose, start=1):
            for target in _LINK.findall(line):
                yield number, target

    def code(self) -> Iterator[tuple[int, str]]:
        """The text between backticks, with its line."""
        for number, line in enumerate(self.prose, start=1):
            for text in _CODE.findall(line):
                yield number, text

    def anchors(self) -> set[str]:
        """The names that a link may have after `#`."""
        return {_slug(found[2]) for line in self.prose if (found := _HEADING.match(line))}

    def rows(self, heading: str) -> list[list[str]]:
        """The rows of all tables under a heading, cells stripped, without header and rule."""
        rows: list[list[str]] = []
        level = 0
        for number, line in enumerate(self.prose):
            found = _HEADING.match(line)
            if found:
                if level and len(found[1]) <= level:
                    break
                if found[2] == heading:
                    level = len(found[1])
            elif level and line.startswith("|"):
                following = self.prose[number + 1] if number + 1 < len(self.prose) else ""
                if not following.startswith("|--") and not line.startswith("|--"):
                    rows.append([cell.strip() for cell in line.strip().strip("|").split(" | ")])
        assert level, f"{self.name} has no heading {heading!r}"
        return rows

    def _split(self) -> None:
        language: str | None = None
        lines: list[str] = []
        began = 0
        for number, line in enumerate(self.text.splitlines(), start=1):
            fence = _FENCE.match(line)
            if language is None and fence:
                language, lines, began = fence[1], [], number + 1
            elif language is not None and line.rstrip() == "```":
                self.blocks.append(Block(self.file, language, "\n".join(lines), began))
                language = None
            elif language is not None:
                lines.append(line)
            self.prose.append("" if language is not None or line.startswith("```") else line)
        assert language is None, f"{self.name} has an open code block"


def documents() -> list[Document]:
    """Every Markdown file of the repository."""
    folders = [CHECKOUT / name for name in ("docs", "scripts", "deploy", "tests", "benchmarks")]
    files = [*CHECKOUT.glob("*.md"), *(file for folder in folders for file in folder.rglob("*.md"))]
    # Benchmarks install their packages into a hidden folder.
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(CHECKOUT).parts)]
    return [Document(file) for file in sorted(files)]


def _slug(heading: str) -> str:
    """GitHub's rule: letters, digits, spaces and hyphens stay, in lower case, spaces as hyphens."""
    plain = re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
