"""./scripts/restore: a new instance from a backup."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.instance import archive
from scripts.instance.command_line import exit_status, say
from scripts.instance.credentials import Credentials
from scripts.instance.errors import InstanceError
from scripts.instance.layout import Layout
from scripts.instance.lock import Holder, InstanceLock
from servicekit.process.services import services

# What needs a package is imported when it is needed: the help does without.


def restore(layout: Layout, file: Path, *, reset: bool = False) -> archive.Manifest:
    """Make an instance in `layout` from the backup, and migrate it to this version.

    The backup is checked before anything is changed. A failed restore leaves an empty data folder, or none where
    none was.
    """
    from scripts.instance.postgres import major_version
    from scripts.instance.reclaim import reclaim

    layout.require_ours_or_empty()
    made = layout.create_folder()
    lock = InstanceLock.acquire(layout.lock, Holder("./scripts/restore"))
    try:
        if layout.exists and not reset:
            raise InstanceError(
                f"{layout.data} already holds an instance; restore beside it with --data NEW_FOLDER, or put the "
                "backup in its place with --reset"
            )
        shutil.rmtree(layout.unpacked, ignore_errors=True)
        layout.unpacked.mkdir(mode=0o700)
        manifest, dumps = archive.read(file, layout.unpacked)
        if int(manifest.postgresql) > int(major_version()):
            raise InstanceError(
                f"the backup was made by PostgreSQL {manifest.postgresql}, newer than the {major_version()} here; "
                "use the version of Siteworks that made it"
            )
        reclaim(layout.data)
        layout.remove_contents()
        try:
            _fill(layout, dumps)
            if manifest.closed:
                layout.closed.touch(mode=0o600)
        except BaseException:  # half an instance would look like a whole one
            layout.remove_contents()
            raise
    except BaseException:
        layout.withdraw(made)
        raise
    finally:
        shutil.rmtree(layout.unpacked, ignore_errors=True)
        lock.close()
    return manifest


def _fill(layout: Layout, dumps: dict[str, Path]) -> None:
    from scripts.instance.databases import migrate, server_alone
    from scripts.instance.programs import database_urls
    from servicekit.events.relay_process import redeliver

    with server_alone(layout) as server:
        credentials = Credentials(layout.secrets)
        for name, dump in dumps.items():
            # As the owner of the database, so that it owns everything in it. Whoever made the dump may have granted
            # rights to roles that are not here.
            owner = services()[name].owner
            done = server.tool(
                "pg_restore", "--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction",
                f"--dbname={name}", dump, role=owner, password=credentials[owner],
            )  # fmt: skip
            if done.returncode != 0:
                raise InstanceError(f"pg_restore of {name} failed: {done.stderr.strip()}")
        migrate(server, credentials, layout.log("migrations"))
        urls = database_urls(server, credentials)
        for url in urls.values():
            # An event delivered between two dumps may be missing from its receiver's dump. A receiver that has it
            # recognises its id.
            redeliver(url, everything=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./scripts/restore",
        description="Make an instance out of a file written by ./scripts/backup, and apply the migrations of this "
        "version. Also the way from one major version of PostgreSQL to the next. The instance is not started.",
    )
    parser.add_argument("file", help="the backup")
    parser.add_argument("--data", metavar="DIR", help="where to; new or empty (.data in the checkout)")
    parser.add_argument("--reset", action="store_true", help="replace the instance that is in the data folder")
    options = parser.parse_args(argv)
    layout = Layout.of(options.data)

    def act() -> int:
        manifest = restore(layout, Path(options.file), reset=options.reset)
        who = "people log in there" if manifest.closed else "open to every user of this machine"
        say(
            f"restored the backup of {manifest.created_at} into {layout.data}, {who}; start it: "
            f"./scripts/run{layout.option}"
        )
        return 0

    return exit_status("restore", act)


if __name__ == "__main__":
    sys.exit(main())
