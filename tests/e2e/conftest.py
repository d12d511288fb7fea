"""One running system for all end-to-end tests that do not break it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.system import RunningSystem
from tests.support.waiting import eventually

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of whole systems more time."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(240))


@pytest.fixture(scope="session")
def _instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """Start a system, with short times where waiting would teach nothing."""
    running = RunningSystem(
        tmp_path_factory.mktemp("instance") / "data",
        environment={
            "WORKER_LEASE_SECONDS": "6",
            "WORKER_GRACE_SECONDS": "3",
        },
    )
    try:
        running.start("--workers", "2")
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def system(_instance: RunningSystem) -> RunningSystem:
    """The system as good as new: the file before may have left a service or its circuit on the way back."""
    for path in ("/users", "/orders", "/tasks", "/sites"):
        eventually(lambda path=path: _answers(_instance, path), timeout=60, what=f"{path} answers")
    return _instance


def _answers(system: RunningSystem, path: str) -> bool:
    try:
        return system.get(path).status == 200
    except OSError:
        return False


@pytest.fixture
def user(system: RunningSystem) -> dict[str, Any]:
    """Create a user with an address of their own."""
    created = system.post("/users", {"email": f"{uuid.uuid4().hex}@example.com", "name": "Белов Ярослав"})
    assert created.status == 201
    data: dict[str, Any] = created.data
    return data


@pytest.fixture
def order(system: RunningSystem, user: dict[str, Any]) -> dict[str, Any]:
    """Create an order of that user."""
    created = system.post(
        "/orders", {"user_id": user["id"], "items": [{"product": "Чокопай", "quantity": 10, "price": 52.00}]}
    )
    assert created.status == 201
    data: dict[str, Any] = created.data
    return data
