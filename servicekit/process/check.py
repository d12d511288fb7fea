"""Whether all services, and the programs of some modules, could start with the settings in this environment.

For a container that looks before they do, and has all of `.env` in its environment:
python -m servicekit.process.check api_gateway.settings

Programs that read a secret from a file are left out: the file is where they are.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from importlib import import_module
from pathlib import Path

from servicekit.process.services import services
from servicekit.process.settings import ServiceSettings, SettingsError, load

# difflib's ratios: one slip in a name of nine letters is 0.89, in one of twenty 0.95.
_SIMILAR = 0.85
_NEARLY_THE_SAME = 0.92


def wrong_settings(modules: list[str]) -> Iterator[str]:
    """Yield a line for each program whose settings, in those of a service or in one of these modules, are wrong."""
    for module in [*(service.module("settings") for service in services().values()), *map(import_module, modules)]:
        for found in vars(module).values():
            if not (isinstance(found, type) and issubclass(found, ServiceSettings) and found.process):
                continue
            if any(field.endswith("_file") and os.environ.get(field.upper()) for field in found.model_fields):
                continue
            try:
                load(found)
            except SettingsError as exc:
                yield f"{found.process} cannot start: {exc}"


def known_variables(checkout: Path) -> list[str]:
    """All that `.env.example` explains; nothing where there is no such file."""
    example = checkout / ".env.example"
    return re.findall(r"(?m)^#?([A-Z][A-Z0-9_]*)=", example.read_text(encoding="utf-8")) if example.exists() else []


def misspelt_in_file(names: Iterable[str], known: Collection[str]) -> Iterator[str]:
    """Yield a line for each name of `.env` that is none of `known`, and close to one of them."""
    for name in dict.fromkeys(names):
        if name not in known:
            meant = name.upper()
            alike = [one for one in known if first_word(one) == first_word(meant)]
            # SITES_DATABASE_URL is no slip for USERS_DATABASE_URL.
            found = [*closest(meant, alike, _SIMILAR), *closest(meant, known, _NEARLY_THE_SAME)]
            yield from (f"{name} in .env is read by nobody; did you mean {right}?" for right in found[:1])


def first_word(name: str) -> str:
    """In the singular: TASK of TASKS_KEEP_DAYS."""
    return name.partition("_")[0].removesuffix("S")


def closest(name: str, known: Collection[str], similar: float) -> list[str]:
    """The one of `known` that is most like the name, if it is `similar` (0 to 1)."""
    return difflib.get_close_matches(name, known, 1, similar)


if __name__ == "__main__":
    wrong = [*wrong_settings(sys.argv[1:]), *misspelt_in_file(os.environ, known_variables(Path.cwd()))]
    sys.exit("\n".join(wrong) or None)
