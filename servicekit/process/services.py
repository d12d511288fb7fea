"""The table of services, read from services.toml beside this package."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

FILE = Path(__file__).resolve().parents[2] / "services.toml"
# The name becomes a database, a role, a part of variables and a command's argument.
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_MAX_PORT = 65535


class BadServiceTable(Exception):
    """services.toml cannot be used; the text is one line that names the row and the fault."""


@dataclass(frozen=True, slots=True)
class Service:
    """One row. Its name is also that of its database, the role it runs as, its circuit and its program."""

    name: str
    package: str
    #: default port, on loopback
    port: int
    #: types of events that it handles
    hears: tuple[str, ...]

    def variable(self, what: str) -> str:
        """The name of an environment variable of this service: `URL`, `BIND`, `DATABASE_URL` and the like."""
        return f"{self.name.upper()}_{what}"

    @property
    def owner(self) -> str:
        """The role that owns its database."""
        return f"{self.name}_owner"

    @property
    def default_url(self) -> str:
        """Its address unless the variable sets another."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def unavailable_code(self) -> str:
        """The error code of a caller that cannot reach it."""
        return f"{self.name}_unavailable"

    @property
    def folder(self) -> Path:
        """The folder of its package; raises BadServiceTable if there is none."""
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise BadServiceTable(
                f"services.toml: [{self.name}] there is no package {self.package} here; make it, or take the row out"
            )
        return Path(spec.submodule_search_locations[0])

    def module(self, name: str) -> ModuleType:
        """Import a module of its package."""
        assert self.folder
        return import_module(f"{self.package}.{name}")


@lru_cache
def services() -> Mapping[str, Service]:
    """Read the table: rows by name, in the order of the file. Raises BadServiceTable."""
    try:
        rows = tomllib.loads(FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise BadServiceTable(f"services.toml cannot be read: {exc}") from exc
    found: dict[str, Service] = {}
    for name, row in rows.items():
        if problem := _problem(name, row, found):
            raise BadServiceTable(f"services.toml: [{name}] {problem}")
        found[name] = Service(name, row["package"], row["port"], tuple(row["hears"]))
    return found


def _problem(name: str, row: Any, above: Mapping[str, Service]) -> str | None:
    """Describe what is wrong with a row, if anything."""
    if not _NAME.fullmatch(name):
        return "is not a name: use lower-case letters, digits and _"
    if name.endswith("_owner"):
        return "would be a database's owner; choose another name"
    wanted = {field.name for field in fields(Service)} - {"name"}
    if not isinstance(row, dict) or row.keys() != wanted:
        return f"needs {', '.join(sorted(wanted))}, and nothing else"
    package, port, hears = row["package"], row["port"], row["hears"]
    if not isinstance(package, str) or not package.isidentifier():
        return "package must be the name of a folder of the checkout, such as service_users"
    if type(port) is not int or not 1 <= port <= _MAX_PORT:
        return f"port must be a number from 1 to {_MAX_PORT}"
    if not isinstance(hears, list) or not all(isinstance(kind, str) and kind for kind in hears):
        return 'hears must be a list of types of events, such as ["user.deleted"], or []'
    for other in above.values():
        if other.port == port:
            return f"port {port} is that of [{other.name}]; choose another"
        if other.package == package:
            return f"package {package} is that of [{other.name}]"
    return None
