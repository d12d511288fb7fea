"""The code that the reference is written from: every module of every package, imported once."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from servicekit.process.services import services

CHECKOUT = Path(__file__).resolve().parents[2]
#: Importing these starts a program, or needs Alembic's command line.
_STARTERS = {"__main__", "asgi", "env", "wsgi"}

T = TypeVar("T")


@lru_cache
def modules() -> tuple[ModuleType, ...]:
    """Every module of the packages that run, in a stable order."""
    packages = ("servicekit", "api_gateway", *(service.package for service in services().values()))
    return tuple(module for package in packages for module in _below(package))


def _below(package: str) -> Iterator[ModuleType]:
    top = importlib.import_module(package)
    yield top
    for found in sorted(pkgutil.walk_packages(top.__path__, f"{package}."), key=lambda one: one.name):
        if not _STARTERS.intersection(found.name.split(".")) and ".versions" not in found.name:
            yield importlib.import_module(found.name)


def classes(base: type[T]) -> list[type[T]]:
    """Every subclass of `base`, in the order of the modules."""
    found: dict[type[T], None] = {}
    for module in modules():
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, base) and value is not base:
                found.setdefault(value)
    return list(found)


def named(name: str) -> list[Any]:
    """The values of this name in all modules, each once."""
    return list({id(vars(module)[name]): vars(module)[name] for module in modules() if name in vars(module)}.values())


def sentence(text: str) -> str:
    """The text with a capital first and a full stop last."""
    text = " ".join(text.split())
    if not text:
        return ""
    first = text[0].upper() if text.split()[0].isalpha() else text[0]
    return f"{first}{text[1:]}{'' if text[-1] in '.?!' else '.'}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in (heads, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(heads)}", *lines[1:]])
