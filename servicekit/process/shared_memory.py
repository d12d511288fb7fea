"""Memory shared by a server's processes: an unnamed file, mapped by the master before it forks.

Every process inherits it, including those of a reload, and it goes with the last of them. Its locks are `fcntl` record
locks, which the kernel releases when their process dies in any way. Only a *frozen* holder (SIGSTOP, a paused
container) keeps one for longer than intended, which is why every wait here has a limit.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

WORD = 8
#: Pauses between attempts at a lock grow from the first to the second of these, in seconds.
_PAUSES = (0.000_02, 0.001)


class SharedMemory:
    """A number of 8-byte words, all zero. Create it before the fork; raises OSError when there is no room for it.

    Item access to `words` and `floats` copies a word in one piece, so it is never seen half-written. Locks are on bytes
    of the file and unrelated to its content; they exclude processes, not threads.
    """

    def __init__(self, words: int, *, folder: Path | None = None) -> None:
        size = WORD * words
        # It carries the locks and stays open as long as the process: closing any descriptor of a file drops all of the
        # process's locks on it.
        self._fd = make_file(size, [folder] if folder else [Path("/dev/shm"), Path(tempfile.gettempdir())])
        weakref.finalize(self, os.close, self._fd).atexit = False
        self._map = mmap.mmap(self._fd, size)
        self.words = memoryview(self._map).cast("Q")
        self.floats = memoryview(self._map).cast("d")
        self.bytes = memoryview(self._map)
        # A file system without locks must show now.
        if self.try_lock(0):
            self.unlock(0)

    def try_lock(self, at: int) -> bool:
        """Take a lock if it is free."""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def lock(self, at: int, seconds: float) -> bool:
        """Take a lock, waiting up to `seconds` for it; False if that fails."""
        if self.try_lock(at):
            return True
        limit = time.monotonic() + seconds
        pause, longest = _PAUSES
        while time.monotonic() < limit:
            time.sleep(pause)
            if self.try_lock(at):
                return True
            pause = min(2 * pause, longest)
        return False

    def unlock(self, at: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, at)


def make_file(size: int, folders: Sequence[Path]) -> int:
    """The descriptor of an unnamed file of zeros, in the first folder with room for it."""
    for folder in folders:
        try:
            with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
                # Written, not just extended: a full disk must raise an error here, not a signal later.
                if file.write(bytes(size)) != size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return os.dup(file.fileno())
        except OSError:
            if folder == folders[-1]:
                raise
    raise ValueError("no folder given")
