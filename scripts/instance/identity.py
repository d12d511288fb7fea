"""The user that PostgreSQL runs as. It refuses to run as root.

Under root a user namespace is preferred: the files still belong to root, and signals reach PostgreSQL directly, because
`unshare` without --fork *becomes* the program. Where namespaces are forbidden (many containers), PostgreSQL runs as
`nobody`, and its folder is given to that user.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.instance.errors import ForeignFolder, InstanceError


@dataclass(frozen=True)
class Identity:
    """A command prefix, or a user to become; with neither, the current user."""

    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None
    name: str = "the current user"

    def run(
        self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run to completion. `stdout` of the result holds both output and errors."""
        with self.start(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            output, _ = process.communicate()
            text = output.decode(errors="replace")
            return subprocess.CompletedProcess(process.args, process.returncode, stdout=text)

    def start(
        self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, stdout: int, stderr: int
    ) -> subprocess.Popen[bytes]:
        """Start in a session of its own, so that Ctrl-C at the terminal does not reach it."""
        command = [*self.prefix, *map(str, argv)]
        if self.uid is None:
            return subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
            )
        return subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True,
            user=self.uid, group=self.gid, extra_groups=(), cwd="/",
        )  # fmt: skip

    def own(self, path: Path) -> None:
        """Change the owner of the path, if this identity is another user."""
        if self.uid is not None:
            os.chown(path, self.uid, self.gid if self.gid is not None else -1)

    def require_access(self, path: Path, remedy: str) -> None:
        """Raise ForeignFolder, naming the first folder on the way to `path` that this identity cannot enter."""
        if not self.prefix and self.uid is None:
            return
        if self.run(["test", "-x", path]).returncode == 0:
            return
        barred = next((p for p in [*reversed(path.parents), path] if self.run(["test", "-x", p]).returncode), path)
        raise ForeignFolder(
            f"PostgreSQL refuses to run as root and so runs as {self.name}, who cannot enter {barred}; {remedy}"
        )


AS_WE_ARE = Identity()


def as_nobody() -> Identity:
    """Raises InstanceError if the system has no such user."""
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise InstanceError(
            "PostgreSQL refuses to run as root, and there is neither `unshare --user` nor a user `nobody` here; "
            "run Siteworks as an ordinary user"
        ) from None
    return Identity(uid=nobody.pw_uid, gid=nobody.pw_gid, name="the user nobody")


def in_user_namespace() -> Identity | None:
    """None if the kernel or the container forbids it."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    # initdb looks its user up by uid, so the uid must exist; any but root's will do.
    numbers = [entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0]
    if not numbers:
        return None
    number = max(numbers)
    prefix = (unshare, "--user", f"--map-user={number}", f"--map-group={number}", "--")
    identity = Identity(prefix=prefix, name="an unprivileged user in a user namespace")
    return identity if identity.run(["true"]).returncode == 0 else None


def server_identity(folder: Path) -> Identity:
    """The identity under which PostgreSQL can use this folder."""
    if os.geteuid() != 0:
        return AS_WE_ARE
    with contextlib.suppress(FileNotFoundError):
        owner = folder.stat()
        if owner.st_uid != 0:  # made without a namespace, or by an ordinary user: PostgreSQL must own it
            return Identity(uid=owner.st_uid, gid=owner.st_gid, name=f"the owner of {folder} (user {owner.st_uid})")
    return _root_without_root()


@functools.cache
def _root_without_root() -> Identity:
    return in_user_namespace() or as_nobody()
