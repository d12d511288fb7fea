"""Rotates the logs that programs write themselves; supervisor rotates those that it writes."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from supervisor import events

MOST_BYTES = 20 * 1024 * 1024
BACKUPS = 3


class LogFiles:
    """An extension of supervisor: checks `files` (separated by blanks, in the data folder) every five seconds."""

    def __init__(self, supervisord: object, files: str) -> None:
        self._paths = [Path(name) for name in files.split()]
        events.subscribe(events.Tick5Event, self._look)

    def _look(self, event: object) -> None:
        for path in self._paths:
            turn_over(path)


def turn_over(log: Path, most: int = MOST_BYTES) -> None:
    """Once a log has `most` bytes, move its content to LOG.1, LOG.1 to LOG.2 and so on up to `BACKUPS`.

    Its writer keeps the file open, so it is copied and truncated; lines written in between are lost.
    """
    copy = log.with_name(f"{log.name}.0")
    with contextlib.suppress(OSError):  # no log yet, or the disk is full and the log cannot grow
        if log.stat().st_size < most:
            return
        try:
            # Copied before the others are moved: on a full disk this fails every five seconds and must lose no log.
            shutil.copy(log, copy)
        except OSError:
            copy.unlink(missing_ok=True)
            raise
        names = [copy, *(log.with_name(f"{log.name}.{number}") for number in range(1, BACKUPS + 1))]
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            if newer.exists():
                newer.replace(older)
        os.truncate(log, 0)
