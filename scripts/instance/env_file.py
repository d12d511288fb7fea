"""`.env` in the checkout: whether it can be read, which names it sets twice, and which are probably misspelt."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from dotenv.parser import parse_stream

from scripts.instance.errors import InstanceError
from scripts.instance.layout import CHECKOUT
from scripts.instance.ports import STORES, names
from servicekit.process.check import closest, first_word, known_variables, misspelt_in_file

_FILE = CHECKOUT / ".env"
#: As difflib tells it.
_VERY_SIMILAR = 0.9


def names_in(file: Path = _FILE) -> list[str]:
    """The variables that the file sets, none if there is no file. Raises InstanceError for what cannot be read."""
    return [name for name, _ in _settings_in(file)]


def set_twice(file: Path = _FILE) -> Iterator[str]:
    """Yield a line for each variable that the file sets again. Raises InstanceError for what cannot be read."""
    before: dict[str, int] = {}
    for name, line in _settings_in(file):
        if name in before:
            yield f"{name} is set twice in .env, in lines {before[name]} and {line}; line {line} counts"
        before[name] = line


def _settings_in(file: Path) -> list[tuple[str, int]]:
    """The variables, each with its line."""
    try:
        with file.open(encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as exc:
        line = file.read_bytes()[: exc.start].count(b"\n") + 1
        raise InstanceError(f"{file}: line {line} is not UTF-8; save the file as UTF-8") from exc
    except OSError as exc:
        raise InstanceError(f"{file} cannot be read: {exc.strerror}") from exc
    found = []
    for binding in bindings:
        # A statement may begin with the end of the lines above, and blank lines.
        text = binding.original.string.lstrip()
        line = binding.original.line + binding.original.string.removesuffix(text).count("\n")
        # A name alone sets nothing.
        if binding.error or (binding.key is not None and binding.value is None):
            # Without a sign of equality it may be the rest of a secret.
            name = re.match(r"[A-Za-z_][\w ]{0,60}=", text)
            told = f" ({name[0]}…)" if name else ""
            raise InstanceError(f"{file}: line {line}{told} cannot be read; write it as NAME=value")
        if binding.key is not None:
            found.append((binding.key.upper(), line))
    return found


def misspelt(in_file: Iterable[str], environment: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    """Yield a line for each name that nobody reads and that is close to one of `known`.

    A name in `.env` is meant for us. One in the environment may be anybody's, so it counts only if it begins with the
    name of a program of ours and is very close to a setting of that program.
    """
    yield from misspelt_in_file(in_file, known)
    parts = {first_word(name.upper()) for name in names() if name not in STORES}
    for name in sorted(environment):
        if name in known or first_word(name) not in parts:
            continue
        # Addresses are the instance's own, so a variable that looks like one is not for it.
        likely = [one for one in known if first_word(one) == first_word(name) and not one.endswith(("_URL", "_BIND"))]
        for right in closest(name, likely, _VERY_SIMILAR):
            yield f"{name} in the environment is read by nobody; did you mean {right}?"


def warn_of_misspelt() -> None:
    """Print both kinds of lines on standard error. Raises InstanceError for a `.env` that cannot be read."""
    for line in [*set_twice(), *misspelt(names_in(), os.environ, known_variables(CHECKOUT))]:
        print(f"run: {line}", file=sys.stderr)
