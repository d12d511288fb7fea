"""Paths: the checkout, and inside a data folder."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.instance.errors import ForeignFolder

CHECKOUT = Path(__file__).resolve().parents[2]
DEFAULT_DATA = CHECKOUT / ".data"
_MARK = {"what": "data folder of a Siteworks instance", "format": 1}


@dataclass(frozen=True)
class Layout:
    """The paths of one data folder. `data` is absolute and free of symbolic links: it is the instance's name."""

    data: Path

    @classmethod
    def of(cls, folder: str | os.PathLike[str] | None) -> Layout:
        return cls(Path(os.path.realpath(os.path.expanduser(folder) if folder else DEFAULT_DATA)))

    @property
    def option(self) -> str:
        """The option that selects this instance on a command line; empty for the default one."""
        return "" if self == Layout.of(None) else f" --data {shlex.quote(str(self.data))}"

    @property
    def mark(self) -> Path:
        return self.data / "instance.json"

    @property
    def lock(self) -> Path:
        return self.data / "lock"

    @property
    def secrets(self) -> Path:
        return self.data / "secrets"

    @property
    def identity(self) -> Path:
        """What processes keep of who may call, over restarts."""
        return self.data / "identity"

    @property
    def keys(self) -> Path:
        """The keys by which they verify access tokens."""
        return self.identity / "keys.json"

    @property
    def closed(self) -> Path:
        """The mark of an instance where people log in."""
        return self.identity / "closed"

    @property
    def listening(self) -> Path:
        """Where its gateway listens, if not on loopback alone."""
        return self.identity / "listening.json"

    @property
    def postgres(self) -> Path:
        return self.data / "postgres"

    @property
    def rabbitmq(self) -> Path:
        return self.data / "rabbitmq"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def run(self) -> Path:
        """Rewritten at every start: supervisor's configuration and one file per program."""
        return self.data / "run"

    @property
    def log_sizes(self) -> Path:
        """How long the log of each process was when the process was last told to start."""
        return self.run / "log_sizes.json"

    @property
    def temporary(self) -> Path:
        """The services' TMPDIR, so that an instance writes only to its data folder."""
        return self.data / "tmp"

    @property
    def unpacked(self) -> Path:
        """Where restore unpacks a backup before it touches anything."""
        return self.data / "unpacked"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    @property
    def exists(self) -> bool:
        return self.mark.is_file()

    def require_ours_or_empty(self) -> None:
        """Raise ForeignFolder unless the folder is an instance, or absent, or empty."""
        if self.data.exists() and not self.data.is_dir():
            raise ForeignFolder(f"{self.data} is a file; name a folder with --data")
        may_enter = not self.data.exists() or os.access(self.data, os.R_OK | os.W_OK | os.X_OK)
        if not may_enter and self.data.stat().st_uid == os.geteuid():
            raise ForeignFolder(
                f"{self.data} is yours, but closed to you; open it: chmod u+rwx {shlex.quote(str(self.data))}"
            )
        try:
            inside = [] if not self.data.exists() else [p for p in self.data.iterdir() if p.name != "lock"]
        except PermissionError:
            raise ForeignFolder(f"{self.data} belongs to another user; choose another folder with --data") from None
        if inside and not self._is_marked():
            raise ForeignFolder(
                f"{self.data} is neither empty nor a data folder of Siteworks, so it is left alone; "
                "choose another folder with --data"
            )
        if not may_enter:
            raise ForeignFolder(f"{self.data} belongs to another user; choose another folder with --data")
        if inside and os.geteuid() != 0 and self.data.stat().st_uid != os.geteuid():
            raise ForeignFolder(f"{self.data} was made by another user; choose another folder with --data")

    def require_ours(self) -> None:
        """Raise ForeignFolder unless an instance was made here."""
        self.require_ours_or_empty()
        if not self.exists:
            elsewhere = "" if self.option else ", or name another folder with --data"
            raise ForeignFolder(
                f"no Siteworks instance in {self.data}; start one with ./scripts/run{self.option}{elsewhere}"
            )

    def create_folder(self) -> list[Path]:
        """Make the folder; return what was not there before, innermost first, for `withdraw`."""
        made = [path for path in (self.data, *self.data.parents) if not path.exists()]
        try:
            self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise ForeignFolder(f"cannot make {self.data}: {exc.strerror}; choose another folder with --data") from exc
        return made

    def withdraw(self, made: Sequence[Path]) -> None:
        """Remove the folders that `create_folder` has just made, and what the instance made in them, if nothing was
        started. The caller holds the lock."""
        if made:
            self.remove_contents()
            shutil.rmtree(self.unpacked, ignore_errors=True)
            self.lock.unlink()
            with contextlib.suppress(OSError):  # somebody else's file is in it
                for folder in made:
                    folder.rmdir()

    def create(self) -> None:
        """Make the folders, then the mark that shows whose folder it is. Idempotent."""
        if not self.exists:
            partial = self.mark.with_suffix(".partial")
            partial.write_text(json.dumps(_MARK) + "\n")
            partial.replace(self.mark)
        for folder in (self.secrets, self.logs, self.run, self.temporary, self.identity):
            folder.mkdir(mode=0o700, exist_ok=True)

    def remove_contents(self) -> None:
        """Remove everything the instance made, and only that; the mark goes last."""
        unfinished = self.postgres.with_name(self.postgres.name + ".new")
        made = (
            self.run,
            self.logs,
            self.temporary,
            self.identity,
            self.postgres,
            unfinished,
            self.rabbitmq,
            self.secrets,
        )
        for folder in made:
            if folder.exists():
                shutil.rmtree(folder)
        self.mark.unlink(missing_ok=True)

    def _is_marked(self) -> bool:
        # All that a start or a restore interrupted before the mark was in place can have left.
        early = {self.lock, self.mark.with_suffix(".partial"), self.unpacked}
        if set(self.data.iterdir()) <= early:
            return True
        try:
            return bool(json.loads(self.mark.read_text())["what"] == _MARK["what"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
