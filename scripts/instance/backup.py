"""./scripts/backup: the databases of an instance in one file."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from scripts.instance import archive
from scripts.instance.command_line import exit_status, say
from scripts.instance.credentials import Credentials
from scripts.instance.errors import InstanceError
from scripts.instance.layout import CHECKOUT, Layout
from servicekit.process.services import services
from servicekit.process.version import VERSION

# What needs a package is imported when it is needed: the help does without.


def backup(layout: Layout, file: Path) -> archive.Manifest:
    """Dump every database into `file`, which must not exist yet. Each dump is a consistent snapshot.

    In reverse order of services.toml: the user that an order or a task names existed before it, so the later dump of
    users holds that user, or the event of its deletion, which restore delivers again.
    """
    from scripts.instance.databases import database_server
    from scripts.instance.postgres import major_version

    if file.exists():
        raise InstanceError(f"{file} exists; name another file")
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        database_server(layout, "./scripts/backup") as server,
        tempfile.TemporaryDirectory(dir=layout.data, prefix="backup-") as folder,
    ):
        credentials = Credentials(layout.secrets)
        dumps = {name: Path(folder) / f"{name}.dump" for name in reversed(list(services()))}
        for name, dump in dumps.items():
            owner = services()[name].owner
            done = server.tool(
                "pg_dump", "--format=custom", f"--file={dump}", f"--dbname={name}",
                role=owner, password=credentials[owner],
            )  # fmt: skip
            if done.returncode != 0:
                raise InstanceError(f"pg_dump of {name} failed: {done.stderr.strip()}")
        manifest = archive.Manifest(
            siteworks=VERSION,
            postgresql=major_version(),
            created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            sha256={name: archive.checksum(dump) for name, dump in dumps.items()},
            closed=layout.closed.exists(),
        )
        archive.write(file, manifest, dumps)
    return manifest


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./scripts/backup",
        description="Write the databases of an instance into one file, for ./scripts/restore. "
        "The instance may be running; if it is not, its PostgreSQL is started for the time this takes. "
        "Passwords in secrets/ are not part of it: a restored instance makes its own.",
    )
    parser.add_argument("file", nargs="?", help="default: backups/siteworks-DATE-TIME.tar in the checkout")
    parser.add_argument("--data", metavar="DIR", help="the instance's data folder (.data in the checkout)")
    options = parser.parse_args(argv)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    file = Path(options.file) if options.file else CHECKOUT / "backups" / f"siteworks-{stamp}.tar"

    def act() -> int:
        manifest = backup(Layout.of(options.data), file)
        size = file.stat().st_size
        say(f"{file} ({size:,} bytes, Siteworks {manifest.siteworks}, PostgreSQL {manifest.postgresql})")
        return 0

    return exit_status("backup", act)


if __name__ == "__main__":
    sys.exit(main())
