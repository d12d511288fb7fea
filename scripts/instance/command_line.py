"""What run, backup, restore and migrate share at the terminal: how they speak, and how they fail."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from scripts.instance.errors import InstanceError
from servicekit.process.services import BadServiceTable


def say(text: str) -> None:
    """One line for the person. Nobody reading any more (`| head`) is no reason to stop what is under way."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_more(text: str) -> None:
    """The line said last, with more in it; only where somebody looks on."""
    if sys.stdout.isatty():
        say(f"\033[A\033[2K{text}")


def exit_status(name: str, action: Callable[[], int]) -> int:
    """Run the action; what went wrong becomes one line on standard error and the status 1."""
    try:
        return action()
    # a full disk, a folder without rights: the system's own words say it best
    except (InstanceError, BadServiceTable, OSError) as exc:
        print(f"{name}: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
