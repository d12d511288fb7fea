"""One running system for what the documents say people can do with it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.markdown import CHECKOUT, Document
from tests.support.system import RunningSystem


@pytest.fixture(scope="session")
def example_module() -> Iterator[str]:
    """Put the README's task type where the README says, under a name that nobody else uses."""
    blocks = [block.text for block in Document(CHECKOUT / "README.md").blocks if block.language == "python"]
    (code,) = [text for text in blocks if "service_tasks" in text]
    name = f"own_tasks.of_the_readme_{os.getpid()}"
    file = CHECKOUT / f"{name.replace('.', '/')}.py"
    file.write_text(code + "\n", encoding="utf-8")
    try:
        yield name
    finally:
        file.unlink()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, example_module: str) -> Iterator[RunningSystem]:
    """Start an instance that knows the README's task type."""
    system = RunningSystem(
        tmp_path_factory.mktemp("readme") / "data",
        # Its module goes when the tests end, and so should what Python compiles of it.
        environment={"TASK_MODULES": example_module, "NO_PROXY": "*", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        system.start("--workers", "1")
        yield system
    finally:
        system.stop()
