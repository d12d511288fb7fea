"""A package as an installer leaves it: its folder, with the metadata beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

SUPPORT = Path(__file__).parent


def install(package: str, site: Path, *, entry_points: dict[str, str]) -> None:
    """Install a package of tests/support into `site`, with entry points in the group siteworks.task_types."""
    shutil.copytree(SUPPORT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    metadata = site / f"{package}-1.0.dist-info"
    metadata.mkdir()
    name = package.replace("_", "-")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    lines = ["[siteworks.task_types]", *(f"{key} = {value}" for key, value in entry_points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
