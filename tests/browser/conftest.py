"""Debian's Chromium, and the two systems that it is shown: one asks for a login, in the other everybody administers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.support.console import Building, Watch
from tests.support.logins import ClosedSystem
from tests.support.system import RunningSystem

_HERE = Path(__file__).parent
#: How long something may take to be on screen, in ms: a busy machine needs more than Playwright's five seconds.
PATIENCE = 20_000


def pytest_configure(config: pytest.Config) -> None:
    """Keep a picture and a trace of what failed."""
    config.option.screenshot = "only-on-failure"
    config.option.tracing = "retain-on-failure"
    expect.set_options(timeout=PATIENCE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the browser to the runs that ask for it."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.big)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """Take the installed browser; it has no sandbox for root."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("NOT TESTED: the console in a browser. Install Debian's chromium.")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return {**browser_type_launch_args, "executable_path": program, "args": arguments}


@pytest.fixture(scope="session")
def base_url() -> None:
    """Each context says it; two plugins have a fixture of this name."""


@pytest.fixture
def output_path(tmp_path: Path) -> str:
    """Where a test that fails leaves what was seen."""
    return str(tmp_path / "seen")


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Everything that a page must not do, of all pages of the test."""
    watching = Watch()
    yield watching
    assert watching.faults == []


@pytest.fixture
def new_context(new_context: Callable[..., BrowserContext], watch: Watch) -> Callable[..., BrowserContext]:
    """Watch each context from its first page on; a `base_url` says whose console it is shown."""

    def watched(*, base_url: str, **options: Any) -> BrowserContext:
        context = new_context(base_url=f"{base_url}/", **options)
        context.set_default_timeout(PATIENCE)
        watch.begin(context, base_url)
        return context

    return watched


def _started(folder: Path, *options: str) -> Iterator[RunningSystem]:
    running = RunningSystem(folder / "data")
    try:
        running.start("--workers", "1", *options)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def open_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """Nobody logs in here."""
    yield from _started(tmp_path_factory.mktemp("open"))


@pytest.fixture(scope="session")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClosedSystem]:
    """Everybody logs in here."""
    for running in _started(tmp_path_factory.mktemp("closed"), "--auth"):
        yield ClosedSystem(running)


@pytest.fixture(scope="module")
def building(closed: ClosedSystem) -> Building:
    """A site with somebody of each role."""
    return Building(closed)


@pytest.fixture
def open_page(open_system: RunningSystem, new_context: Callable[..., BrowserContext]) -> Page:
    """A page where nobody logs in."""
    return new_context(base_url=open_system.url).new_page()
