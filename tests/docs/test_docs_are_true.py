"""What the documentation names exists, and what exists is named there."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from collections.abc import Iterator

import pytest
import yaml

from api_gateway import route_table
from scripts.instance import cli, ports
from scripts.reference import endpoints, errors, metrics, settings
from service_tasks.domain.task import Status, status_named
from servicekit.events.cloudevents import PATH
from servicekit.identity.enforcement import KEYS_PATH
from servicekit.process.services import services
from tests.contract.test_role_table import INTERNAL
from tests.support.markdown import CHECKOUT, Block, Document, documents

DOCUMENTS = documents()
OPERATIONS = Document(CHECKOUT / "docs" / "operations.md")
OBSERVING = Document(CHECKOUT / "docs" / "observing.md")
COMPOSE = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8"))

#: What another program reads: the shell scripts, PostgreSQL's tools, OpenSSL.
OTHER_VARIABLES = {"PYTHON", "ADMIN_TOKEN", "SSL_CERT_FILE"}
#: Words in capitals that are no settings of ours, by document.
FOREIGN_WORDS = {"docs/coming_from.md"}

by_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)


# Links, paths and commands


def test_the_table_of_credentials_between_processes_has_every_internal_path_and_token() -> None:
    text = Document(CHECKOUT / "docs" / "security.md").text.partition("## Between processes")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(/internal/\w+)`", text)) == {one.split()[1] for one in INTERNAL}
    tokens = {variable.name for variable in settings.variables() if variable.name.endswith("_TOKEN")}
    assert set(re.findall(r"`([A-Z]+_TOKEN)`", text)) == tokens


@by_document
def test_every_link_leads_somewhere(document: Document) -> None:
    for line, target in document.links():
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (document.file.parent / path).resolve() if path else document.file
        assert file.exists(), f"{document.name}:{line}: {target}"
        if anchor:
            assert anchor in Document(file).anchors(), f"{document.name}:{line}: no heading #{anchor}"


_PATH = re.compile(
    r"(?:api_gateway|service_\w+|servicekit|scripts|tests|docs|deploy|requirements)/[\w./-]*|[\w-]+\.(?:md|toml|yml)"
)


@by_document
def test_every_path_in_code_type_exists(document: Document) -> None:
    if document.name == "docs/coming_from.md":
        return  # half of its paths belong to other programs
    for line, text in document.code():
        if _PATH.fullmatch(text):
            there = (CHECKOUT / text, document.file.parent / text)
            assert any(path.exists() for path in there), f"{document.name}:{line}: {text}"


def commands(document: Document) -> Iterator[tuple[str, list[str]]]:
    """Give every call of a script of ours, with its place, split into words."""
    texts = [(f"{document.name}:{line}", text) for line, text in document.code()]
    texts += [(block.place, line) for block in document.blocks if block.language == "sh" for line in _lines(block)]
    for place, text in texts:
        for found in re.finditer(r"(?:^|[\s(;])\./(scripts/\w+[^;|)]*)", text):
            yield place, shlex.split(found[1], comments=True)


def _lines(block: Block) -> list[str]:
    return block.text.replace("\\\n", " ").splitlines()


@by_document
def test_every_script_exists_and_can_be_run(document: Document) -> None:
    for place, words in commands(document):
        file = CHECKOUT / words[0]
        assert file.is_file(), f"{place}: {words[0]}"
        assert os.access(file, os.X_OK), f"{place}: {words[0]} cannot be executed"


@by_document
def test_every_call_of_run_is_understood(document: Document, capsys: pytest.CaptureFixture[str]) -> None:
    parser: argparse.ArgumentParser = cli.parser()
    for place, words in commands(document):
        if words[0] == "scripts/run":
            arguments = [word.strip(",.") for word in words[1:] if word not in {"…"}]
            try:
                parser.parse_intermixed_args(arguments)
            except SystemExit as exc:
                if exc.code:
                    pytest.fail(f"{place}: {' '.join(words)}: {capsys.readouterr().err}")


def test_every_script_is_listed() -> None:
    scripts = {file.name for file in (CHECKOUT / "scripts").iterdir() if file.is_file() and not file.suffix}
    listed = {row[0].strip("`") for row in Document(CHECKOUT / "scripts" / "README.md").rows("The commands")}

    assert scripts - {"README"} == listed


@by_document
def test_no_document_speaks_of_where_it_was_written(document: Document) -> None:
    for word in ("/tmp/", "issue #", "pull request", "TODO", "FIXME"):
        assert word not in document.text, f"{document.name}: {word}"


def test_every_decision_is_listed_under_its_title() -> None:
    folder = CHECKOUT / "docs" / "decisions"
    listed = re.findall(r"^- \[(\d{4})\]\((\S+)\) (.+)$", (folder / "README.md").read_text(encoding="utf-8"), re.M)
    there = []
    for file in sorted(folder.glob("[0-9]*.md")):
        title = file.read_text(encoding="utf-8").splitlines()[0]
        there.append((file.name[:4], file.name, re.sub(r"^# (\d+\. )?", "", title)))

    assert listed == there
    assert len({number for number, _, _ in there}) == len(there)


# Names


@by_document
def test_every_variable_named_is_read_by_somebody(document: Document) -> None:
    if document.name in FOREIGN_WORDS:
        return
    known = {
        *(variable.name for variable in settings.variables()),
        *OTHER_VARIABLES,
        *re.findall(r"\$\{([A-Z_]+)", (CHECKOUT / "docker-compose.yml").read_text()),
    }
    for line, text in document.code():
        for word in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text):
            in_code = word in {"TRANSITIONS", "BUILT_IN_MODULES"}
            assert word in known or in_code or "SKIP LOCKED" in text or word in {"NEW_FOLDER", "REQUEST_ID"}, (
                f"{document.name}:{line}: {word}"
            )


# The HTTP API


def real_endpoints() -> set[tuple[str, str]]:
    """Give what the gateway answers."""
    rows = (*route_table.ROUTES, *route_table.PAGES)
    return {(method, row.template) for row in rows for method in row.methods} - {
        ("GET", "/swagger/"),
        ("GET", "/swagger/{file}"),
    }


def test_the_gateway_leads_to_everything_the_services_declare() -> None:
    forwarded: dict[str, set[tuple[str, str]]] = {}
    for row in route_table.ROUTES:
        if not row.parts:
            forwarded.setdefault(row.upstream, set()).update((method, row.template) for method in row.methods)

    # A page for verifiers, without an envelope.
    forwarded["users"].remove(("GET", KEYS_PATH))
    assert forwarded == {
        name: {
            (method.upper(), path) for path, operations in json.loads(given)["paths"].items() for method in operations
        }
        for name, given in endpoints.documents().items()
    }


@by_document
def test_every_request_named_has_an_endpoint(document: Document) -> None:
    for line, text in enumerate(document.prose, start=1):
        # In the tables of coming_from the first column belongs to another program.
        of_ours = text.split(" | ", 1)[-1] if document.name in FOREIGN_WORDS and text.startswith("| ") else text
        for method, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^\s`]*)`", of_ours):
            path = re.sub(r"^/api/v1(?=/)", "", path.partition("?")[0])
            is_batch = path == "/tasks/batch" and document.name in FOREIGN_WORDS
            is_internal = path == PATH  # between services only; the gateway does not route it
            assert (method, path) in real_endpoints() or is_batch or is_internal, (
                f"{document.name}:{line}: {method} {path}"
            )


def test_other_services_words_for_statuses_mean_what_coming_from_says() -> None:
    coming_from = Document(CHECKOUT / "docs" / "coming_from.md")
    checked = set()
    for heading in ("WorkMate", "AT API", "Task Manager with RabbitMQ", "Go Task API"):
        for row in coming_from.rows(heading):
            here = re.match(rf"`({'|'.join(Status)})`", row[1])
            there = re.match(r"`?([A-Za-z ]+?)`?(?: \(.*)?$", row[0])
            if here and there:
                assert status_named(there[1]) == here[1], f"{heading}: {row}"
                checked.add(there[1])

    assert checked >= {"New", "In Progress", "Completed", "Failed", "Running", "Pending", "done", "processing"}


def test_every_error_code_named_anywhere_is_a_code() -> None:
    # The last is a word of RFC 9209.
    known = {*(code for code, *_ in errors.errors()), "WorkerLost", "TimedOut", "destination_unavailable"}
    for document in DOCUMENTS:
        for line, text in document.code():
            if re.fullmatch(r"\w+_(?:unavailable|not_found|conflict|taken|too_large|exceeded|saturated)", text):
                assert text in known, f"{document.name}:{line}: {text}"


# Operation


def test_the_ports_are_those_of_an_instance() -> None:
    instance = ports.Ports(8000)
    written = {
        row[2].strip("`"): int(row[0])
        for row in OPERATIONS.rows("An instance on this machine")
        if row[0].isdigit() and row[2]
    }

    assert written == {name: port for name, port in instance.by_name.items() if name in ports.names()}


def test_every_container_named_exists() -> None:
    for document in DOCUMENTS:
        for block in document.blocks:
            for name in re.findall(r"docker compose .*\b((?:service|task|api)_\w+)", block.text):
                assert name in COMPOSE["services"], f"{block.place}: {name}"


def test_every_metric_named_is_made_by_somebody() -> None:
    made = {name for _, registry in metrics.registries() for name in metrics.series(registry)}
    for document in DOCUMENTS:
        for line, text in document.code():
            for name in re.findall(r"\bsiteworks_[a-z_]+\b", text):
                assert any(one.startswith(name) for one in made), f"{document.name}:{line}: {name}"


def test_every_log_event_named_is_written_by_somebody() -> None:
    packages = ("servicekit", "api_gateway", *(service.package for service in services().values()))
    code = "\n".join(f.read_text(encoding="utf-8") for name in packages for f in (CHECKOUT / name).rglob("*.py"))
    for row in OBSERVING.rows("Logs"):
        for event in re.findall(r"`(\w+)`", row[0]):
            assert re.search(rf'\.\w+\(\s*"{event}"', code), event
