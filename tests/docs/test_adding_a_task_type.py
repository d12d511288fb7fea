"""The page about task types shows code that works: its module runs in a real worker, its tests pass."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from service_tasks.engine.registry import load_registry
from service_tasks.persistence.task_store import TaskStore
from service_tasks.settings import BUILT_IN_MODULES
from service_tasks.use_cases.tasks import NewTask, StoredTask
from servicekit.identity.reach import Reach
from servicekit.process.ids import new_id
from tests.support.markdown import CHECKOUT, Document
from tests.support.waiting import eventually

PAGE = Document(CHECKOUT / "docs" / "adding_a_task_type.md")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the page's module and its tests."""
    module, tests = (block.text for block in PAGE.blocks if block.language == "python")
    (tmp_path / "own_tasks").mkdir()
    (tmp_path / "own_tasks" / "concrete.py").write_text(module + "\n", encoding="utf-8")
    (tmp_path / "test_concrete.py").write_text(tests + "\n", encoding="utf-8")
    return tmp_path


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONPATH": f"{folder}{os.pathsep}{CHECKOUT}", "PYTHONDONTWRITEBYTECODE": "1", **more}


def test_the_tests_on_the_page_pass(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b5 passed\b", done.stdout)


def test_the_type_on_the_page_runs_in_a_worker(folder: Path, tasks_database) -> None:
    store = TaskStore(tasks_database.database)
    task = NewTask(
        id=new_id(),
        task_type="order_concrete",
        title=None,
        user_id=None,
        payload='{"cubic_metres": 20, "minutes_to_site": 30}',
        priority=50,
        max_attempts=5,
        timeout_seconds=None,
        execute_at=None,
    )
    store.add(task)
    settings = {
        "TASKS_DATABASE_URL": tasks_database.url,
        "TASK_MODULES": "own_tasks.concrete",
        "CONCRETE_PLANT": "North",
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "service_tasks.cli", "worker"], cwd=folder, env=environment(folder, **settings)
    )

    def ended() -> StoredTask | None:
        stored = store.get(task.id, reach=Reach.all())
        return stored if stored is not None and stored.completed_at is not None else None

    try:
        stored = eventually(ended, timeout=20)
        assert json.loads(stored.result or "") == {"plant": "North", "trucks": 3}
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0


def test_every_built_in_type_is_explained_with_all_of_its_fields() -> None:
    for kind in load_registry(BUILT_IN_MODULES):
        part = PAGE.text.split(f"\n### {kind.name}\n", 1)[1].split("\n### ", 1)[0]
        for schema in (kind.payload_schema(), kind.result_schema() if kind.needs else {}):
            for field in schema.get("properties", {}):
                assert f"`{field}`" in part, f"{kind.name}: {field}"
        for variable in kind.needs:
            assert f"`{variable}`" in part, f"{kind.name}: {variable}"
