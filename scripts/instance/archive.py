"""The file that backup writes and restore reads: a tar of manifest.json and one pg_dump for each database."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from scripts.instance.errors import InstanceError
from servicekit.process.services import services

_FORMAT = "siteworks-backup-1"


@dataclass(frozen=True)
class Manifest:
    """`created_at` is RFC 3339; `sha256` maps each database to the checksum of its dump; `closed`: people log in."""

    siteworks: str
    postgresql: str
    created_at: str
    sha256: dict[str, str]
    closed: bool = False
    format: str = _FORMAT


def write(file: Path, manifest: Manifest, dumps: dict[str, Path]) -> None:
    """Write a temporary file and rename it, so `file` is complete or absent. Only its owner can read it."""
    partial = file.with_name(file.name + ".partial")
    described = partial.with_name(file.name + ".manifest")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            described.write_text(json.dumps(asdict(manifest), indent=2) + "\n")
            with tarfile.open(fileobj=out, mode="w") as tar:
                tar.add(described, "manifest.json")
                for name, dump in dumps.items():
                    tar.add(dump, f"{name}.dump")
            out.flush()
            os.fsync(out.fileno())
        partial.replace(file)
    finally:
        described.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)


def read(file: Path, folder: Path) -> tuple[Manifest, dict[str, Path]]:
    """Unpack into `folder` and check every checksum. Raise InstanceError for anything but an intact backup."""
    try:
        with tarfile.open(file, mode="r:") as tar:
            with _member(tar, "manifest.json") as described:
                manifest = Manifest(**json.load(described))
            if manifest.format != _FORMAT:
                raise InstanceError(f"{file} is a backup of another kind: {manifest.format}")
            dumps = {}
            if strange := manifest.sha256.keys() - services().keys():
                raise InstanceError(
                    f"{file} holds a database of {', '.join(sorted(strange))}, which services.toml does not name; use "
                    "the version of Siteworks that made it"
                )
            # A service added since the backup has no dump in it.
            for name in manifest.sha256:
                dumps[name] = folder / f"{name}.dump"
                with _member(tar, f"{name}.dump") as packed, dumps[name].open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
    except FileNotFoundError:
        raise InstanceError(f"there is no file {file}") from None
    except (tarfile.TarError, KeyError, ValueError, TypeError, AttributeError) as exc:
        raise InstanceError(f"{file} is not a complete backup made by ./scripts/backup ({exc})") from exc
    for name, dump in dumps.items():
        if checksum(dump) != manifest.sha256[name]:
            raise InstanceError(f"{file} is damaged: the dump of {name} does not have the recorded checksum")
    return manifest, dumps


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    content = tar.extractfile(name)
    if content is None:
        raise KeyError(name)
    return content
