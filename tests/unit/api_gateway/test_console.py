"""The console's files as the gateway serves them."""

from __future__ import annotations

import gzip
import hashlib
import re

import pytest

from api_gateway.console import FOLDER, PAGE, ConsoleFiles, imported
from servicekit.http_server.request import Fields, RequestFields

#: What a browser loads before it shows the largest page, in compressed bytes.
FIRST_LOAD = 60_000


@pytest.fixture(scope="module")
def files() -> ConsoleFiles:
    return ConsoleFiles()


def body(files: ConsoleFiles, path: str, *fields: tuple[bytes, bytes]) -> bytes:
    reply = files.answer(path, RequestFields([*fields]))
    assert reply is not None, path
    assert reply.status == 200
    return reply.body


def values(fields: Fields, name: bytes) -> list[bytes]:
    return [value for field, value in fields if field == name]


def test_the_page_names_all_that_it_needs_relatively_and_loads_it_in_little(files: ConsoleFiles) -> None:
    page = body(files, PAGE).decode()
    named = re.findall(r'(?:href|src)="([^"]+)"', page.partition("<body>")[0])
    assert len(named) > 8
    zipped = [gzip.decompress(body(files, f"/{name}", (b"accept-encoding", b"gzip"))) for name in named]
    assert [body(files, f"/{name}") for name in named] == zipped
    texts = {str(path.relative_to(FOLDER)): path.read_bytes() for path in FOLDER.rglob("*.js")}
    words = [f"lib/words.{max('en', 'ru', key=lambda one: len(texts[f'lib/words.{one}.js']))}.js"]
    first = {name.partition(files.build)[2][1:] for name in named}
    pages = [{*imported(texts, name)} - first for name in texts if re.fullmatch(r"pages/\w+/page\.js", name)]
    loads = [
        sum(
            len(body(files, f"{PAGE}/{files.build}/{name}", (b"accept-encoding", b"gzip")))
            for name in {*first, *words, *page}
        )
        for page in pages
    ]
    assert FIRST_LOAD / 2 < max(loads) < FIRST_LOAD
    # The policy allows nothing that is written into the page itself.
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script[^>]*>[^<]", page)


def test_every_import_leads_to_a_file_and_no_file_names_another_host(files: ConsoleFiles) -> None:
    base = f"{PAGE}/{files.build}"
    for path in FOLDER.rglob("*.js"):
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r'(?:from |import\()"([^"]+)"', text):
            found = (path.parent / target).resolve().relative_to(FOLDER)
            assert files.answer(f"{base}/{found}", RequestFields([])) is not None, (path, target)
        hosts = {*re.findall(r"https?://[^\s\"'`)]+", text)}
        assert hosts <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xhtml",
            "http://www.w3.org/1998/Math/MathML",
        }


def test_a_page_is_checked_anew_and_a_file_is_kept_for_good(files: ConsoleFiles) -> None:
    page = files.answer(PAGE, RequestFields([]))
    assert page is not None
    (tag,) = values(page.fields, b"etag")
    unchanged = files.answer(PAGE, RequestFields([(b"if-none-match", tag)]))
    assert unchanged is not None
    assert (unchanged.status, unchanged.body) == (304, b"")
    script = files.answer(f"{PAGE}/{files.build}/app.js", RequestFields([]))
    assert script is not None
    assert values(script.fields, b"cache-control") == [b"public, max-age=31536000, immutable"]
    for answer in (page, script):
        (policy,) = values(answer.fields, b"content-security-policy")
        assert b"default-src 'none'" in policy
        assert b"require-trusted-types-for 'script'" in policy
        assert b"unsafe" not in policy
    assert files.answer(f"{PAGE}/0123456789abcdef/app.js", RequestFields([])) is None
    moved = files.answer(f"{PAGE}/", RequestFields([]))
    assert moved is not None
    assert (moved.status, values(moved.fields, b"location")) == (308, [b"../console"])


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [
        (b"gzip", True), (b"br, GZIP;q=0.5", True), (b"*", True), (b"gzip;q=1, *;q=0", True),
        (b"gzip;q=0", False), (b"br, gzip; q=0.000", False), (b"*;q=0", False), (b"gzip;q=0, *", False), (b"", False),
        (b"x-gzipped", False),
    ],
)  # fmt: skip
def test_a_page_is_compressed_for_whoever_takes_that_and_its_tag_says_nothing_of_it(
    files: ConsoleFiles, accepted: bytes, zipped: bool
) -> None:
    reply = files.answer(PAGE, RequestFields([(b"accept-encoding", accepted)]))
    assert reply is not None
    assert values(reply.fields, b"content-encoding") == ([b"gzip"] if zipped else [])
    # Two codings are not the same to the byte.
    assert values(reply.fields, b"etag")[0].startswith(b'W/"')


def test_vendored_files_are_as_they_were_made() -> None:
    table = (FOLDER / "vendor" / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| (\S+\.js) \| ([0-9a-f]{64}) \|$", table, re.MULTILINE))
    made = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (FOLDER / "vendor").glob("*.js")}
    assert listed == made
    licences = set(re.findall(r"(\S+\.LICENSE)", table))
    assert licences == {path.name for path in (FOLDER / "vendor").glob("*.LICENSE")}
