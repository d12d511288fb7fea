"""Clients made as docs/clients.md says, from the document of a running system, walk the README's tour."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.markdown import CHECKOUT, Document
from tests.support.system import RunningSystem
from tests.support.waiting import eventually

pytestmark = [pytest.mark.big, pytest.mark.timeout(600)]

PAGE = Document(CHECKOUT / "docs" / "clients.md")
SOURCES = CHECKOUT / "tests" / "support" / "clients"
TOOLS = CHECKOUT / ".venv-clients"
#: In the order of the page: the commands that make a client, the file of its example, and what runs it.
CLIENTS = {"python": ("example.py", "python"), "ts": ("example.ts", "node")}


class Workshop:
    """A folder with the generators, in which the page's commands are given to one system."""

    def __init__(self, folder: Path, system: RunningSystem) -> None:
        self.folder = folder
        self._url = system.url
        self.described: dict[str, Any] = system.get("/openapi.json").body

    def run(self, *command: str) -> str:
        """Run a command; return what it printed, which is asserted to be a success."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "PATH": f"{TOOLS / 'bin'}:{os.environ['PATH']}", "NO_PROXY": "*"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def text(self, block: str) -> str:
        return block.replace("http://localhost:8000", self._url)

    def generate(self, language: str, *, options: str = "") -> str:
        """Give the page's commands for that client, but for those that install what is there."""
        before = [block for block in PAGE.blocks if block.language in {"sh", *CLIENTS}]
        (at,) = [number for number, block in enumerate(before) if block.language == language]
        lines = [line for line in before[at - 1].text.splitlines() if not line.startswith(("pip ", "npm "))]
        return "\n".join(self.run("sh", "-c", self.text(line) + options) for line in lines)

    def operations(self) -> set[tuple[str, str]]:
        """The tag and id of every operation, as a client names them."""
        operations = [one for item in self.described["paths"].values() for one in item.values()]
        return {(one["tags"][0].replace(" ", "_"), one["operationId"]) for one in operations}

    def walk(self, language: str, tour: str) -> None:
        """Run the tour, or a part of it, with that client."""
        self.run(CLIENTS[language][1], f"tour.{CLIENTS[language][0].rpartition('.')[2]}", self._url, tour)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, running: RunningSystem) -> Workshop:
    """Install the generators, once for all runs, and make both clients."""
    install = '. scripts/bootstrap.sh && ensure_venv .venv-clients clients && cp "$1"/package*.json .venv-clients/'
    subprocess.run(["sh", "-c", install, "scripts/test", SOURCES], cwd=CHECKOUT, check=True)
    made = Workshop(TOOLS, running)
    lock = (SOURCES / "package-lock.json").read_bytes()
    installed = TOOLS / "node_modules" / "installed"
    if not installed.exists() or installed.read_bytes() != lock:
        made.run("npm", "ci", "--no-audit", "--no-fund")
        installed.write_bytes(lock)

    folder = tmp_path_factory.mktemp("clients")
    for file in SOURCES.iterdir():
        shutil.copy(file, folder)
    (folder / "node_modules").symlink_to(TOOLS / "node_modules")
    for language, (name, _) in CLIENTS.items():
        (block,) = [block for block in PAGE.blocks if block.language == language]
        (folder / name).write_text(block.text.replace("http://localhost:8000", running.url), encoding="utf-8")
    made.folder = folder
    return made


def test_the_linter_has_nothing_to_say_about_the_document(workshop: Workshop) -> None:
    (workshop.folder / "siteworks.json").write_text(json.dumps(workshop.described), encoding="utf-8")
    said = workshop.run("npx", "redocly", "lint", "--format", "json", "siteworks.json")

    assert json.JSONDecoder().raw_decode(said[said.index("{") :])[0]["problems"] == []


def test_the_python_client_is_generated_without_a_warning_and_left_out_operation(workshop: Workshop) -> None:
    workshop.generate("python", options=" --fail-on-warning")

    made = {(file.parent.name, file.stem) for file in workshop.folder.glob("siteworks/api/*/[a-z]*.py")}
    assert made == workshop.operations()


def test_the_typescript_client_is_generated_without_a_warning_and_left_out_operation(workshop: Workshop) -> None:
    said = workshop.generate("ts")

    assert "⚠" not in said
    types = (workshop.folder / "siteworks.ts").read_text(encoding="utf-8")
    assert {name for _, name in workshop.operations() if f"\n    {name}: {{" not in types} == set()
    strict = "--strict --noEmit --target esnext --module esnext --moduleResolution bundler --lib esnext,dom"
    workshop.run("npx", "tsc", *strict.split(), "example.ts", "tour.ts")


@pytest.mark.parametrize("language", CLIENTS)
def test_a_made_client_walks_the_readmes_tour(workshop: Workshop, running: RunningSystem, language: str) -> None:
    file, program = CLIENTS[language]

    assert workshop.run(program, file).strip() == "520.00"
    workshop.walk(language, "all")
    running.cli("stop", "orders")
    try:
        workshop.walk(language, "no-orders")
    finally:
        running.cli("start", "orders")
        eventually(lambda: running.get("/orders").status == 200, timeout=30, what="orders answers")


def test_the_consoles_types_hold(workshop: Workshop) -> None:
    options = {
        "target": "es2022",
        "module": "esnext",
        "moduleResolution": "bundler",
        "lib": ["es2023", "dom", "dom.iterable"],
    }
    flags = dict.fromkeys(("allowJs", "checkJs", "strict", "noEmit", "skipLibCheck"), True)
    files = {"include": [f"{CHECKOUT}/console/**/*.js"], "exclude": [f"{CHECKOUT}/console/vendor"]}
    (workshop.folder / "console.json").write_text(json.dumps({"compilerOptions": options | flags, **files}))
    workshop.run("npx", "tsc", "-p", "console.json")
