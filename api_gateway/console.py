"""The console's files, held in memory: a page, and what it loads under a name that changes with any of them."""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from api_gateway.forward import Reply
from servicekit.http_server.request import Fields, RequestFields

FOLDER = Path(__file__).resolve().parent.parent / "console"
#: The path of the page; its files are below.
PAGE = "/console"

_MEDIA_TYPES = {".js": b"text/javascript; charset=utf-8", ".css": b"text/css; charset=utf-8", ".svg": b"image/svg+xml"}
#: What the page needs from the start; the rest is loaded with the first page that imports it.
_STATIC_IMPORT = re.compile(r'^(?:import|export)\b[^;"]*"(\.{1,2}/[^"]+)";$', re.MULTILINE)
_REFUSED = re.compile(r"\s*q=0(\.0{0,3})?\s*")
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_GUARDS: Fields = [
    (b"content-security-policy", _POLICY),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"vary", b"accept-encoding"),
]


@dataclass(frozen=True, slots=True)
class _File:
    fields: Fields
    body: bytes
    zipped: bytes


class ConsoleFiles:
    """Every file of the console. Its addresses are relative, so it works below any prefix."""

    def __init__(self, folder: Path = FOLDER, *, read_only: bool = False) -> None:
        """`read_only`: the page offers no deeds."""
        texts = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.suffix in _MEDIA_TYPES
        }
        digest = hashlib.sha256()
        for name, text in texts.items():
            digest.update(name.encode() + b"\0" + hashlib.sha256(text).digest())
        page = (folder / "index.html").read_bytes().replace(b"{mode}", b"read-only" if read_only else b"")
        digest.update(page)
        #: The name of this state of the files.
        self.build = digest.hexdigest()[:16]
        base = f"console/{self.build}"
        preloads = "\n".join(f'<link rel="modulepreload" href="{base}/{name}">' for name in imported(texts, "app.js"))
        page = page.replace(b"{base}", base.encode()).replace(b"{preloads}", preloads.encode())
        kept = (b"cache-control", b"public, max-age=31536000, immutable")
        self._files = {
            f"{PAGE}/{self.build}/{name}": _file(text, _MEDIA_TYPES[Path(name).suffix], kept)
            for name, text in texts.items()
        }
        # Weak: the same page in two codings (RFC 9110, section 8.8.3.3).
        self._etag = b'W/"%s"' % self.build.encode()
        self._files[PAGE] = _file(
            page, b"text/html; charset=utf-8", (b"cache-control", b"no-cache"), (b"etag", self._etag)
        )

    def answer(self, path: str, fields: RequestFields) -> Reply | None:
        """The file at a path, or None."""
        file = self._files.get(path)
        if path == f"{PAGE}/":
            return Reply(308, [(b"location", b"../console"), *_GUARDS])
        if file is None:
            return None
        if path == PAGE and fields.get(b"if-none-match") == self._etag.decode():
            return Reply(304, [*file.fields])
        if _takes_gzip(fields.get(b"accept-encoding") or ""):
            return Reply(200, [*file.fields, (b"content-encoding", b"gzip")], file.zipped)
        return Reply(200, [*file.fields], file.body)


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding field allows it (RFC 9110, section 12.5.3)."""
    weights = {name.strip(): weight for name, _, weight in (one.partition(";") for one in accepted.lower().split(","))}
    weight = weights.get("gzip", weights.get("*"))
    return weight is not None and not _REFUSED.fullmatch(weight)


def _file(body: bytes, media_type: bytes, *fields: tuple[bytes, bytes]) -> _File:
    return _File([(b"content-type", media_type), *fields, *_GUARDS], body, gzip.compress(body, 9, mtime=0))


def imported(texts: Mapping[str, bytes], name: str) -> list[str]:
    """The modules that one imports at once, and they in turn, itself first."""
    found, waiting = [], [name]
    while waiting:
        module = waiting.pop(0)
        if module in found:
            continue
        found.append(module)
        folder = posixpath.dirname(module)
        targets = _STATIC_IMPORT.findall(texts[module].decode())
        waiting += [posixpath.normpath(posixpath.join(folder, target)) for target in targets]
    return found
