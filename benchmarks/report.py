"""The figures of a benchmark: as rows, as a table for people and as JSON for machines."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
#: The name of what is ours in every benchmark.
OURS = "siteworks"


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One figure of one subject: the median of its runs, or the reason why there is none."""

    work: str
    subject: str
    metric: str
    unit: str
    runs: tuple[float, ...]
    note: str = ""

    @property
    def value(self) -> float | None:
        return round(statistics.median(self.runs), 3) if self.runs else None


def describe_machine() -> str:
    """Processor, cores, memory, system and Python in one line."""
    model = platform.processor() or platform.machine()
    memory = ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
        kib = int(Path("/proc/meminfo").read_text().split(maxsplit=2)[1])
        memory = f", {kib / 1024**2:.1f} GiB"
    except (OSError, ValueError):
        pass  # not Linux
    return (
        f"{model}, {os.cpu_count()} cores{memory}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def revision(checkout: Path = CHECKOUT) -> str:
    """The commit of a checkout, with `+` when files differ from it; `unknown` outside git."""
    git = ["git", "-C", str(checkout)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def print_table(rows: Sequence[ReportRow]) -> None:
    """One block per work and metric: subject, value, ours divided by it, runs."""
    blocks = dict.fromkeys((row.work, row.metric, row.unit) for row in rows)
    width = max((len(row.subject) for row in rows), default=0)
    for work, metric, unit in blocks:
        print(f"{work}: {metric} [{unit}]")
        block = [row for row in rows if (row.work, row.metric) == (work, metric)]
        first = next((row for row in block if not row.subject.startswith(OURS) and row.value is not None), None)
        unit_of_ratio = 0.0 if first is None else first.value or 0.0
        for row in block:
            if row.value is None:
                print(f"  {row.subject:<{width}}  {row.note}")
                continue
            ratio = "" if first is row or unit_of_ratio <= 0 else f"{row.value / unit_of_ratio:.2f} x"
            runs = " ".join(f"{run:,.1f}" for run in row.runs)
            print(f"  {row.subject:<{width}}  {row.value:>12,.1f}  {ratio:>10}  {runs}".rstrip())
        if len(block) > 1 and first is not None and unit_of_ratio > 0:
            print(f"  {'':<{width}}  (x: divided by {first.subject})")
        print()


def write_json(file: Path, benchmark: str, rows: Sequence[ReportRow]) -> None:
    file.write_text(
        json.dumps(
            {
                "benchmark": benchmark,
                "commit": revision(),
                "machine": describe_machine(),
                "rows": [
                    {
                        "work": row.work,
                        "subject": row.subject,
                        "metric": row.metric,
                        "unit": row.unit,
                        "value": row.value,
                        "runs": [round(run, 3) for run in row.runs],
                        **({"note": row.note} if row.note else {}),
                    }
                    for row in rows
                ],
            },
            indent=2,
            ensure_ascii=False,
        )
        + "\n"
    )
