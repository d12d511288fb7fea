"""One instance per data folder: an advisory lock that supervisor holds for as long as the instance runs.

The file also names the holder. Its content counts only while it is locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.instance.errors import InUse
from scripts.instance.layout import Layout
from scripts.instance.listening import Listening


@dataclass(frozen=True)
class Holder:
    """`port` is the instance's base port while it runs, and None for a command that merely works on the folder."""

    command: str
    port: int | None = None
    workers: int = 0


class InstanceLock:
    """The held lock. A child that inherits the descriptor holds it too."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path, holder: Holder, *, patience: float = 0.3) -> InstanceLock:
        """Raises InUse after `patience` seconds; another command may hold it for a moment to read it."""
        limit = time.monotonic() + patience
        while True:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                if time.monotonic() > limit:
                    raise
                # A refused start removes the folder that it has made.
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                continue
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A refused start removes the file that it has locked.
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    break
            os.close(descriptor)
            if time.monotonic() > limit:
                raise InUse(_explain(path, _read(path)))
            time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)
        return cls(descriptor)

    def close(self) -> None:
        """Release this process's hold on the lock. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def holder_of(path: Path) -> Holder | None:
    """The holder of the lock, or None."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path)
    finally:
        os.close(descriptor)
    return None


def running_port(layout: Layout) -> int | None:
    """The port of the instance if it runs. Raises InUse while another command works on its folder."""
    holder = holder_of(layout.lock)
    if holder is not None and holder.port is None:
        raise InUse(_explain(layout.lock, holder))
    return None if holder is None else holder.port


def _read(path: Path) -> Holder:
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return Holder(command="another command")  # it has locked the file and not written to it yet


def _explain(path: Path, holder: Holder) -> str:
    layout = Layout.of(path.parent)
    if holder.port is not None:
        return (
            f"already running on {Listening.of(layout).url(holder.port)} (data folder {layout.data}); "
            f"stop it with ./scripts/run stop{layout.option}"
        )
    return f"{layout.data} is in use by {holder.command}; try again when that has ended"
