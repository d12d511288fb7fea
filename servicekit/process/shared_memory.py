"""Memory that a server's processes share: a file without a name, mapped by the master before it forks.

Every process inherits it, those of a reload too, and it is gone with the last of them. Its locks are `fcntl` record
locks: the kernel takes them from a process that dies, however it dies. Nothing but a holder that is *frozen* (SIGSTOP,
a paused container) keeps one for longer than it means to, which is why nobody here waits without a limit.
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
#: Pauses between two attempts at a lock grow from the first to the second of these, in seconds.
_PAUSES = (0.000_02, 0.001)


class SharedMemory:
    """So many words of 8 bytes, all zero. Make it before the fork; raises OSError when there is no room for it.

    Item access to `words` and `floats` copies one word in one piece, so nobody sees half of one. Locks are taken on
    bytes of the file and have nothing to do with what is there; they keep processes apart, not threads.
    """

    def __init__(self, words: int, *, folder: Path | None = None) -> None:
        size = WORD * words
        # It carries the locks, and stays open as long as the process: closing any descriptor of a file drops all of
        # the process's locks on it.
        self._fd = make_file(size, [folder] if folder else [Path("/dev/shm"), Path(tempfile.gettempdir())])
        weakref.finalize(self, os.close, self._fd).atexit = False
        self._map = mmap.mmap(self._fd, size)
        self.words = memoryview(self._map).cast("Q")
        self.floats = memoryview(self._map).cast("d")
        self.bytes = memoryview(self._map)
        # A file system without locks must show here too.
        if self.try_lock(0):
            self.unlock(0)

    def try_lock(self, at: int) -> bool:
        """Take a lock if nobody else has it."""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def lock(self, at: int, seconds: float) -> bool:
        """Take a lock, waiting up to `seconds` for it; False if it was not to be had."""
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
    """Give the descriptor of a file of zeros without a name, in the first folder that has room for it."""
    for folder in folders:
        try:
            with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
                # Written, not only made longer: a full disk must be an error here and not a signal later.
                if file.write(bytes(size)) != size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return os.dup(file.fileno())
        except OSError:
            if folder == folders[-1]:
                raise
    raise ValueError("no folder given")
