"""Settings of the task service and its workers."""

from __future__ import annotations

import pytest

from service_tasks.settings import EventsSettings, TasksSettings, WorkerSettings
from servicekit.process.settings import SettingsError, load


@pytest.fixture(autouse=True)
def database_url(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASKS_DATABASE_URL", "postgresql://tasks:secret@127.0.0.1/tasks")


def test_the_defaults_are_those_of_the_docs():
    tasks, worker, events = load(TasksSettings), load(WorkerSettings), load(EventsSettings)

    assert (tasks.tasks_bind, tasks.service_threads) == ("127.0.0.1:8003", 8)
    assert (worker.worker_concurrency, worker.worker_threads) == (5000, 16)
    assert (worker.worker_lease_seconds, worker.worker_grace_seconds) == (30, 30)
    assert (events.events_bind, events.events_watchers) == ("127.0.0.1:8004", 5000)


def test_modules_of_ones_own_come_after_the_built_in_ones(monkeypatch):
    monkeypatch.setenv("TASK_MODULES", "site_tasks, crane.tasks ,")

    assert load(TasksSettings).modules[-2:] == ("site_tasks", "crane.tasks")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TASK_MODULES", "site tasks"),
        ("TASK_MODULES", "../site_tasks"),
        ("SERVICE_THREADS", "0"),
        ("TASK_EVENTS", "completed,paused"),
        ("INTERNAL_TOKEN", "too short"),
        ("INTERNAL_TOKEN_FILE", "/there/is/no/such/file"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=variable):
        load(TasksSettings)


def test_both_who_end_tasks_know_which_ends_to_tell(monkeypatch):
    assert load(TasksSettings).event_states == load(WorkerSettings).event_states == ()
    monkeypatch.setenv("TASK_EVENTS", "failed, cancelled")

    assert load(TasksSettings).event_states == load(WorkerSettings).event_states == ("failed", "cancelled")
