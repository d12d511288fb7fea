"""The output and the exit status of run, backup, restore and migrate."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from scripts.instance.errors import InstanceError
from servicekit.process.services import BadServiceTable


def say(text: str) -> None:
    """Print one line. A closed pipe (`| head`) does not stop the work."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_more(text: str) -> None:
    """Replace the last line with a longer one, on a terminal only."""
    if sys.stdout.isatty():
        say(f"\033[A\033[2K{text}")


def exit_status(name: str, action: Callable[[], int]) -> int:
    """Run the action; an error becomes one line on standard error and status 1."""
    try:
        return action()
    # a full disk or a missing permission: the system's message is clear enough
    except (InstanceError, BadServiceTable, OSError) as exc:
        print(f"{name}: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
