"""docs/adding_a_service.md, followed to the letter in a copy of the checkout."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from tests.support.markdown import CHECKOUT, Block, Document
from tests.support.system import RunningSystem
from tests.support.waiting import eventually

PAGE = Document(CHECKOUT / "docs" / "adding_a_service.md")
PACKAGE = "service_toys"
MOST_FILES = 8
HELD_BY = (
    "tests/contract/test_compose.py",
    "tests/unit/scripts/test_ports.py",
    "tests/unit/scripts/test_programs.py",
    "tests/unit/api_gateway/test_route_table.py",
    "tests/docs/test_docs_are_true.py::test_the_ports_are_those_of_an_instance",
)
#: What a row of the table and the folder need besides, as it says of orders.
_NEIGHBOUR = (("toys", "orders"), ("TOYS", "ORDERS"), ("8008", "8002"))


def file_of(block: Block) -> str:
    """The file that the text above a block names last."""
    above = [line for line in PAGE.prose[: block.line - 1] if line.strip()]
    return re.findall(r"(?:`|\*\*)([\w./-]+\.\w+|\w+/Dockerfile)(?:`|\*\*)", above[-1])[-1]


def follow(checkout: Path) -> None:
    """Do what the page says."""
    for block in PAGE.blocks:
        if block.language == "sh":
            continue
        file = checkout / file_of(block)
        if PACKAGE in file.parts:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text + "\n", encoding="utf-8")
        elif block.language == "toml":
            file.write_text(file.read_text(encoding="utf-8") + "\n" + block.text + "\n", encoding="utf-8")
        elif block.text.startswith(f"  {PACKAGE}:"):
            above, orders, below = re.split(r"(^  service_orders:\n(?:    .*\n)+)", file.read_text(), flags=re.M)
            file.write_text(f"{above}{orders}\n{block.text}\n{below}", encoding="utf-8")
        else:
            for line in block.text.splitlines():
                put_below_its_neighbour(file, line)
    tools = checkout / "pyproject.toml"
    lists = tools.read_text(encoding="utf-8").replace('"service_orders"', f'"service_orders", "{PACKAGE}"')
    tools.write_text(lists.replace("service_orders |", f"service_orders | {PACKAGE} |"), encoding="utf-8")


def put_below_its_neighbour(file: Path, line: str) -> None:
    neighbour = line
    for ours, theirs in _NEIGHBOUR:
        neighbour = neighbour.replace(ours, theirs)
    lines = file.read_text(encoding="utf-8").splitlines()
    assert neighbour in lines, f"{file.name} has no line {neighbour!r}"
    file.write_text("".join(f"{one}\n{line}\n" if one == neighbour else f"{one}\n" for one in lines), encoding="utf-8")


def copy_of_the_checkout(folder: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    names = [name for name in listed.split("\0") if name and (CHECKOUT / name).is_file()]
    # With what Python has compiled of them already: a start reads several hundred.
    compiled = [cache_from_source(name) for name in names if name.endswith(".py")]
    for name in (*names, *(name for name in compiled if (CHECKOUT / name).is_file())):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, folder / name)


def give_it_the_packages_that_are_here(checkout: Path) -> None:
    """Let `./scripts/run` find a virtual environment that holds all it wants: that of the tests."""
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    with (checkout / "requirements/local.txt").open() as requirements:
        checksum = subprocess.run(["cksum"], stdin=requirements, capture_output=True, check=True, text=True).stdout
    (checkout / ".venv/installed").write_text(f"{checksum.strip()} {checkout}/.venv\n")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout").resolve()
    copy_of_the_checkout(folder)
    follow(folder)
    give_it_the_packages_that_are_here(folder)
    return folder


@pytest.fixture(scope="module")
def system(checkout: Path) -> Iterator[RunningSystem]:
    running = RunningSystem(checkout / ".data", command=[checkout / "scripts/run"])
    running.start("--workers", "1")
    yield running
    running.stop()


def circuits(system: RunningSystem) -> dict[str, str]:
    return {name: one["state"] for name, one in system.get("/health").data["upstreams"].items()}


def test_the_page_is_one_page_and_changes_few_files_outside_the_folder(checkout: Path) -> None:
    assert sum(len(line.split()) for line in PAGE.prose) < 700
    changed = [
        name.relative_to(checkout).as_posix()
        for name in checkout.rglob("*")
        if name.is_file() and PACKAGE not in name.parts and not name.relative_to(checkout).parts[0].startswith(".")
        if not (CHECKOUT / name.relative_to(checkout)).is_file()
        or name.read_bytes() != (CHECKOUT / name.relative_to(checkout)).read_bytes()
    ]
    changed = [name for name in changed if "__pycache__" not in name]
    assert len(changed) <= MOST_FILES, changed


def test_it_answers_through_the_gateway_behind_a_circuit_of_its_own(system: RunningSystem) -> None:
    made = system.post("/toys", {"user_id": str(uuid.uuid4()), "name": "crane"})
    assert made.status == 201
    assert made.data in system.get("/toys").data["toys"]
    assert system.post("/toys", {"name": "crane"}).fields == ["user_id"]
    assert "toys" in circuits(system)
    assert "/toys" in system.request("GET", "/openapi.json").body["paths"]


def test_it_gets_its_event_once_a_user_is_deleted(system: RunningSystem) -> None:
    user = system.post("/users", {"email": f"{uuid.uuid4().hex}@example.com", "name": "Белов Ярослав"}).data["id"]
    toy = system.post("/toys", {"user_id": user, "name": "digger"}).data
    assert system.delete(f"/users/{user}").status == 200
    eventually(lambda: toy not in system.get("/toys").data["toys"], timeout=30, what="the user's toys are gone")


def test_it_is_stopped_alone_and_comes_back(system: RunningSystem) -> None:
    system.cli("stop", "toys")
    assert system.status()["toys"]["state"] == "stopped"
    refused = system.get("/toys")
    assert (refused.status, refused.error["code"]) == (503, "toys_unavailable")
    assert system.get("/users").status == system.get("/orders").status == system.get("/tasks").status == 200
    eventually(lambda: system.get("/toys").status == 503 and circuits(system)["toys"] == "open", what="an open circuit")
    assert circuits(system)["orders"] == "closed"
    system.cli("start", "toys")
    eventually(lambda: system.get("/toys").status == 200, timeout=30, what="it answers again")


@pytest.mark.parametrize(
    "checked",
    [
        pytest.param(["-m", "pytest", "-q", *HELD_BY], id="containers, ports and routes"),
        pytest.param(["-m", "pytest", "-q", "tests/migrations/test_histories.py", "-k", PACKAGE], id="history"),
        pytest.param([str(Path(sys.executable).with_name("lint-imports"))], id="arrows"),
    ],
)
def test_the_checks_of_the_others_hold_it_too(checkout: Path, checked: list[str]) -> None:
    done = subprocess.run([sys.executable, *checked], cwd=checkout, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
