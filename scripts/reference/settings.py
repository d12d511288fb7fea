"""The environment variables, with their defaults, ranges and readers."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from scripts.reference.code import CHECKOUT, classes, sentence, table
from service_tasks.engine.registry import load_registry
from service_tasks.settings import BUILT_IN_MODULES
from servicekit.database.migrations import migration_settings
from servicekit.events.relay_settings import relay_settings
from servicekit.process.services import services
from servicekit.process.settings import ServiceSettings, Settings

EVERYBODY, SEVERAL, COMPOSE = "Every process", "Several processes", "docker compose alone"


@dataclass(frozen=True)
class Variable:
    """One variable; its processes do not start without a `required` one."""

    name: str
    field: FieldInfo
    readers: tuple[str, ...]
    required: bool

    @property
    def default(self) -> str:
        """As written in .env; empty if there is none."""
        value = self.field.default
        return "" if value is None or value is PydanticUndefined else str(value)

    @property
    def meaning(self) -> str:
        """Its description and its range."""
        return " ".join(filter(None, (sentence(self.field.description or ""), sentence(self._range()))))

    def _range(self) -> str:
        words = get_args(self.field.annotation) if get_origin(self.field.annotation) is Literal else ()
        if words:
            return f"one of {', '.join(words)}"
        bounds: dict[type, Any] = {type(one): one for one in self.field.metadata}
        if Ge in bounds and Le in bounds:
            return f"{_number(bounds[Ge].ge)} to {_number(bounds[Le].le)}"
        return ""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def by_process() -> dict[str, list[type[Settings]]]:
    """The settings that each process reads."""
    found: dict[str, list[type[Settings]]] = {}
    for one in classes(Settings):
        if one.process:
            found.setdefault(one.process, []).append(one)
        elif issubclass(one, ServiceSettings) and not one.__subclasses__():
            raise SystemExit(f"{one.__module__}.{one.__name__}: say in `process` who reads it")
    # The addresses of services and databases derive from the table.
    found["relay"].append(relay_settings(services()))
    found["migrate"] = [migration_settings(services().values())]
    # A worker reads these as it starts, and skips a type whose required settings are missing.
    found["worker"] += [kind.settings_model for kind in load_registry(BUILT_IN_MODULES) if kind.settings_model]
    return found


@lru_cache
def variables() -> tuple[Variable, ...]:
    """All of them, in the order of declaration."""
    read: dict[str, list[tuple[str, type[Settings], FieldInfo]]] = {}
    for process, settings in by_process().items():
        for one in settings:
            for name, field in one.model_fields.items():
                read.setdefault(name, []).append((process, one, field))
    found = []
    for name, readers in read.items():
        processes = [process for process, _, _ in readers]
        required = all(field.is_required() and issubclass(one, ServiceSettings) for _, one, field in readers)
        found.append(Variable(name.upper(), readers[0][2], tuple(dict.fromkeys(processes)), required))
    return tuple(found)


def compose_variables() -> dict[str, str]:
    """The variables that only docker-compose.yml reads, with their defaults; COMPOSE_… are compose's own."""
    text = (CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8")
    ours = {one.name for one in variables()}
    found = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", text))
    return {name: default for name, default in found.items() if name not in ours and not name.startswith("COMPOSE_")}


def groups() -> Iterator[tuple[str, list[Variable]]]:
    """The variables by reader."""
    everybody = {*by_process()}
    by_group: dict[str, list[Variable]] = {EVERYBODY: [], SEVERAL: [], **{process: [] for process in by_process()}}
    for one in variables():
        group = EVERYBODY if {*one.readers} == everybody else SEVERAL if len(one.readers) > 1 else one.readers[0]
        by_group[group].append(one)
    return ((group, members) for group, members in by_group.items() if members)


def page() -> str:
    """docs/reference/settings.md."""
    parts = [
        "# Settings",
        "From the environment, else from a file `.env` in the folder where the process is started. A wrong value stops "
        "the start with a line that names the variable. `./scripts/run` sets the addresses and the internal token "
        "itself. `./scripts/docs` writes this page and [.env.example](../../.env.example) from the settings classes.",
    ]
    for group, members in groups():
        several = group == SEVERAL
        heads = ("variable", "default", "meaning", *(("read by",) if several else ()))
        rows = [
            (
                f"`{one.name}`",
                "**required**" if one.required else f"`{one.default}`" if one.default else "–",
                one.meaning,
                *((", ".join(one.readers),) if several else ()),
            )
            for one in members
        ]
        parts += [f"## {group[0].upper()}{group[1:]}", table(heads, rows)]
    parts += [
        f"## {COMPOSE}",
        "Ports of this machine, and passwords. These passwords are known to everybody: set others wherever the data "
        "matters.",
        table(
            ("variable", "default"), [(f"`{name}`", f"`{default}`") for name, default in compose_variables().items()]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def example() -> str:
    """.env.example."""
    lines = [
        "# Every setting, with its default and who reads it. Written by ./scripts/docs.",
        "#",
        "# Copy this file to .env and remove the # from a line to change it; the environment wins over .env.",
        "# ./scripts/run sets the addresses (*_BIND, *_URL) and the internal token itself.",
    ]
    for group, members in groups():
        lines += ["", f"# --- {group}"]
        for one in members:
            text = f"{one.meaning}{' Required.' if one.required else ''}"
            value = str((one.field.examples or [""])[0]) if one.required else one.default
            lines += ["", *_comment(text), *_comment(f"Read by: {', '.join(one.readers)}"), f"#{one.name}={value}"]
    lines += ["", f"# --- {COMPOSE}: ports of this machine, and passwords for development that everybody knows", ""]
    lines += [f"#{name}={default}" for name, default in compose_variables().items()]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, 116, break_on_hyphens=False, break_long_words=False)]
