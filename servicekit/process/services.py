"""The table of services: services.toml, beside this package."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).resolve().parents[2] / "services.toml"


@dataclass(frozen=True, slots=True)
class Service:
    """One row. The name is that of its database, its role, its circuit and its program too."""

    name: str
    package: str
    #: where it listens by default, on loopback
    port: int
    #: the types of events that it acts on
    hears: tuple[str, ...]

    def variable(self, what: str) -> str:
        """Name an environment variable of this service: `URL`, `BIND`, `DATABASE_URL` and the like."""
        return f"{self.name.upper()}_{what}"

    @property
    def default_url(self) -> str:
        """Where it is reached unless the variable says something else."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def unavailable_code(self) -> str:
        """The error code of whoever cannot reach it."""
        return f"{self.name}_unavailable"


@lru_cache
def services() -> Mapping[str, Service]:
    """Read the table: rows by name, in the order of the file."""
    rows = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return {name: Service(name, row["package"], row["port"], tuple(row["hears"])) for name, row in rows.items()}
