"""How handlers in other people's processes tell what they did: a small file in shared memory for each process.

Used by the handlers of the peers, in the environments of the peers: nothing but the standard library here.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

#: started, ended; first start, last end, last start by this machine's clock, 0 when there was none
_LAYOUT = struct.Struct("=qqddd")
#: names the folder to the handlers
FOLDER = "BENCH_METER"


@dataclass(frozen=True, slots=True)
class Reading:
    """Of all processes together."""

    started: int = 0
    ended: int = 0
    first_start: float = 0.0
    last_end: float = 0.0
    last_start: float = 0.0

    @property
    def running(self) -> int:
        return self.started - self.ended

    def seconds(self) -> float:
        """From the first start to the last end; 0 when nothing ended."""
        return max(self.last_end - self.first_start, 0.0) if self.ended else 0.0


class Meter:
    """The file of one process. Safe for threads; about a microsecond a call."""

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._values: list[float] = [0, 0, 0.0, 0.0, 0.0]
        file = folder / f"meter-{os.getpid()}"
        file.write_bytes(bytes(_LAYOUT.size))
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), _LAYOUT.size)

    def start(self) -> None:
        with self._lock:
            values = self._values
            values[0] += 1
            values[4] = time.time()
            values[2] = values[2] or values[4]
            _LAYOUT.pack_into(self._memory, 0, *values)

    def end(self) -> None:
        with self._lock:
            values = self._values
            values[1] += 1
            values[3] = time.time()
            _LAYOUT.pack_into(self._memory, 0, *values)

    def pass_by(self) -> None:
        """Start and end at once, for handlers that do nothing."""
        with self._lock:
            values = self._values
            values[0] += 1
            values[1] += 1
            values[3] = values[4] = time.time()
            values[2] = values[2] or values[4]
            _LAYOUT.pack_into(self._memory, 0, *values)


_mine: tuple[int, Meter] | None = None
_making = threading.Lock()


def meter() -> Meter:
    """This process's own; a fork gets another one."""
    global _mine
    mine = _mine
    if mine is None or mine[0] != os.getpid():
        # One at a time: a second one would empty the file under the first.
        with _making:
            if _mine is None or _mine[0] != os.getpid():
                _mine = os.getpid(), Meter(Path(os.environ[FOLDER]))
            mine = _mine
    return mine[1]


def read_meters(folder: Path) -> Reading:
    """What the handlers of all processes have told so far."""
    total = Reading()
    for file in folder.glob("meter-*"):
        content = file.read_bytes()
        if len(content) != _LAYOUT.size:
            continue  # being made
        started, ended, first_start, last_end, last_start = _LAYOUT.unpack(content)
        if started:
            total = Reading(
                total.started + started,
                total.ended + ended,
                min(total.first_start or first_start, first_start),
                max(total.last_end, last_end),
                max(total.last_start, last_start),
            )
    return total
