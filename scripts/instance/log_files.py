"""Turns over the logs that programs of an instance write by themselves, as supervisor does with those it writes."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from supervisor import events

MOST_BYTES = 20 * 1024 * 1024
BACKUPS = 3


class LogFiles:
    """An extension of supervisor: looks every five seconds at `files` of the data folder, a blank between them."""

    def __init__(self, supervisord: object, files: str) -> None:
        self._paths = [Path(name) for name in files.split()]
        events.subscribe(events.Tick5Event, self._look)

    def _look(self, event: object) -> None:
        for path in self._paths:
            turn_over(path)


def turn_over(log: Path, most: int = MOST_BYTES) -> None:
    """Move what a log holds into LOG.1, and so on up to `BACKUPS`, once it has that many bytes.

    Its writer keeps the file open, so it is copied and emptied; what is written between the two is lost.
    """
    copy = log.with_name(f"{log.name}.0")
    with contextlib.suppress(OSError):  # none yet, or the disk is full: then it does not grow either
        if log.stat().st_size < most:
            return
        try:
            # Before the others are moved: on a full disk it fails every five seconds, and none may be lost for that.
            shutil.copy(log, copy)
        except OSError:
            copy.unlink(missing_ok=True)
            raise
        names = [copy, *(log.with_name(f"{log.name}.{number}") for number in range(1, BACKUPS + 1))]
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            if newer.exists():
                newer.replace(older)
        os.truncate(log, 0)
