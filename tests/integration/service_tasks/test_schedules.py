"""Schedules over HTTP and in the hands of schedulers, on a real PostgreSQL."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, tzinfo
from uuid import UUID, uuid4

import psycopg2
import pytest
from sqlalchemy import text

from service_tasks.app import create_app
from service_tasks.domain.schedule import MAX_RUNS_AT_ONCE, Missed, Timing, plan_of, read_timezone
from service_tasks.engine.scheduler import Scheduler
from service_tasks.persistence.queries import load_queries
from service_tasks.persistence.schedule_store import ScheduleStore
from service_tasks.settings import TasksSettings
from service_tasks.task_types.noop import noop
from service_tasks.use_cases.schedules import NewSchedule
from servicekit.events.inbox import Inbox
from servicekit.process.ids import new_id
from servicekit.wire.errors import AppError
from tests.integration.service_tasks.conftest import Bench
from tests.integration.service_tasks.test_http import Client, ask, fields, soon
from tests.support.events import user_deleted
from tests.support.waiting import eventually

__all__ = ["ask"]  # the fixture


DAILY = {"name": "a schedule", "cron": "30 7 * * *"}


def create(ask: Client, **fields):
    return ask("POST", "/schedules", {**DAILY, **fields}, status=201)


def make_due(bench: Bench, schedule_id: str, ago: str = "0 s") -> None:
    bench.sql(
        "UPDATE schedules SET next_run_at = date_trunc('second', now()) - %s::interval WHERE id = %s", ago, schedule_id
    )


@pytest.fixture
def schedules(bench) -> ScheduleStore:
    return ScheduleStore(bench.database)


def scheduler(store: ScheduleStore) -> Scheduler:
    return Scheduler(
        store=store,
        leads=lambda: True,
        poll_seconds=1.0,
        on_made=lambda: None,
        on_death=lambda: pytest.fail("died"),
    )


def tick(store: ScheduleStore) -> None:
    """Let one scheduler look once."""
    scheduler(store).run_once(datetime.now(UTC))


# Over HTTP


def test_a_user_has_a_limited_number_of_schedules_and_so_have_all_together(tasks_database):
    settings = TasksSettings(
        tasks_database_url=tasks_database.url, schedules_limit=5, schedules_limit_per_user=2, _env_file=None
    )
    ask = Client(create_app(settings).test_client())
    somebody, other = str(uuid4()), str(uuid4())
    first, _, theirs = (create(ask, name=str(n), user_id=user) for n, user in enumerate((somebody, somebody, other)))

    refused = ask("POST", "/schedules", {**DAILY, "user_id": somebody}, status=409)
    assert (refused["code"], "SCHEDULES_LIMIT_PER_USER" in refused["message"]) == ("limit_reached", True)
    refused = ask("PUT", f"/schedules/{theirs['id']}", {"user_id": somebody}, status=409)
    assert refused["code"] == "limit_reached"
    ask("PUT", f"/schedules/{first['id']}", {"user_id": somebody, "name": "another name"}, status=200)
    for n in (3, 4):
        create(ask, name=str(n))
    refused = ask("POST", "/schedules", DAILY, status=409)
    assert (refused["code"], "SCHEDULES_LIMIT " in refused["message"]) == ("limit_reached", True)
    ask("DELETE", f"/schedules/{first['id']}", status=200)
    ask("PUT", f"/schedules/{theirs['id']}", {"user_id": somebody}, status=200)
    create(ask)


def test_two_at_the_same_moment_do_not_both_get_the_last_place(tasks_database):
    settings = TasksSettings(
        tasks_database_url=tasks_database.url, schedules_limit=3, schedules_limit_per_user=3, _env_file=None
    )
    app = create_app(settings)

    def post(n: int) -> int:
        return app.test_client().post("/schedules", json={**DAILY, "name": f"schedule {n}"}).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(post, range(8)))
    assert statuses == [201] * 3 + [409] * 5


@pytest.mark.parametrize("timing", [{"cron": "30 7 * * *"}, {"every": 900}, {"at": "2090-01-01T00:00:00Z"}])
def test_a_schedule_as_shown_can_be_sent_back_but_not_with_what_a_list_left_out(ask, timing):
    shown = create(ask, **{"cron": None, **timing})
    path = f"/schedules/{shown['id']}"
    again = ask("PUT", path, shown, status=200)
    assert again == {**shown, "updated_at": again["updated_at"]}
    for name, other in (("id", str(new_id())), ("status", "paused"), ("omitted", ["payload"])):
        error = ask("PUT", path, {**shown, name: other}, status=400)
        assert error["message"] == f"{name}: cannot be changed"


def test_a_schedule_comes_back_as_it_was_said_with_its_next_five_runs(ask):
    body = {
        "name": "Утренний отчёт",
        "task_type": "report",
        "title": "Отчёт",
        "payload": {"of": [1, 2.50]},
        "user_id": str(uuid4()),
        "priority": 7,
        "max_attempts": 2,
        "timeout": 1.5,
        "cron": "30 7 * * MON-FRI",
        "timezone": "Europe/Berlin",
        "starts_at": "2090-01-01T00:00:00Z",
        "ends_at": "2090-01-06T00:00:00Z",
        "missed": "run_all",
    }

    schedule = ask("POST", "/schedules", body, status=201)

    assert ask.headers["Location"] == f"/schedules/{schedule['id']}"
    assert {name: schedule[name] for name in body} == body
    assert schedule["status"] == "active"
    # Monday 2 January 2090 to the end of the fifth.
    assert schedule["next_runs"] == [f"2090-01-0{day}T06:30:00Z" for day in (2, 3, 4, 5)]
    assert (schedule["last_run_at"], schedule["last_task_id"], schedule["problem"]) == (None, None, None)
    assert ask("GET", f"/schedules/{schedule['id']}", status=200) == schedule
    assert ask("GET", "/schedules", status=200)["schedules"] == [schedule]


def test_what_is_left_out_has_its_default(ask):
    schedule = create(ask)

    assert (schedule["task_type"], schedule["payload"], schedule["timezone"]) == ("noop", {}, "UTC")
    assert (schedule["priority"], schedule["max_attempts"], schedule["timeout"]) == (50, 3, None)
    assert schedule["missed"] == "run_once"
    assert len(schedule["next_runs"]) == 5


def test_an_interval_and_a_date_have_no_time_zone(ask):
    interval = ask("POST", "/schedules", {"name": "often", "every": 90}, status=201)
    once = ask("POST", "/schedules", {"name": "once", "at": "2090-05-01T10:00:00+03:00"}, status=201)

    first, second = (datetime.fromisoformat(moment) for moment in interval["next_runs"][:2])
    assert second - first == timedelta(seconds=90)
    assert first - datetime.fromisoformat(interval["created_at"]) == timedelta(seconds=90)
    assert once["next_runs"] == ["2090-05-01T07:00:00Z"]
    assert interval["timezone"] is once["timezone"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "n"}, "cron"),
        ({"name": "n", "cron": None, "every": None}, "cron"),
        ({**DAILY, "every": 60}, "every"),
        ({**DAILY, "at": "2090-01-01T00:00:00Z"}, "at"),
        ({"cron": "@daily"}, "name"),
        ({**DAILY, "name": ""}, "name"),
        ({**DAILY, "name": " "}, "name"),
        ({**DAILY, "name": "x" * 101}, "name"),
        ({**DAILY, "name": "a\x00b"}, "body"),
        ({**DAILY, "cron": "61 * * * *"}, "cron"),
        ({**DAILY, "cron": "0 0 30 2 *"}, "cron"),
        ({**DAILY, "cron": "x" * 201}, "cron"),
        ({**DAILY, "cron": 5}, "cron"),
        ({**DAILY, "timezone": "Europe/Atlantis"}, "timezone"),
        ({"name": "n", "every": 60, "timezone": "UTC"}, "timezone"),
        ({"name": "n", "every": 0}, "every"),
        ({"name": "n", "every": 1.5}, "every"),
        ({"name": "n", "every": 366 * 86400 + 1}, "every"),
        ({"name": "n", "at": "2020-01-01T00:00:00Z"}, "at"),
        ({"name": "n", "at": "2090-01-01T00:00:00"}, "at"),
        ({"name": "n", "at": "2090-01-01T00:00:00Z", "ends_at": "2091-01-01T00:00:00Z"}, "ends_at"),
        ({**DAILY, "ends_at": "2020-01-01T00:00:00Z"}, "ends_at"),
        ({**DAILY, "starts_at": "2090-01-02T00:00:00Z", "ends_at": "2090-01-01T00:00:00Z"}, "ends_at"),
        ({**DAILY, "missed": "sometimes"}, "missed"),
        ({**DAILY, "task_type": "io", "payload": {"seconds": "long"}}, "payload.seconds"),
        ({**DAILY, "priority": 101}, "priority"),
        ({**DAILY, "timeout": 0}, "timeout"),
        ({**DAILY, "max_attempts": 0}, "max_attempts"),
        ({**DAILY, "paused": True}, "paused"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_by_field(ask, body, field):
    error = ask("POST", "/schedules", body, status=400)

    if field != "body":
        assert field in fields(error)
    assert ask("GET", "/schedules", status=200)["total"] == 0


def test_a_name_belongs_to_one_schedule_of_a_user_or_of_nobody(ask):
    somebody = {"user_id": str(uuid4())}
    for owner in ({}, somebody):
        create(ask, **owner)
        other = create(ask, name="another", **owner)

        assert ask("POST", "/schedules", {**DAILY, **owner}, status=409)["code"] == "schedule_name_taken"
        renamed = ask("PUT", f"/schedules/{other['id']}", {"name": DAILY["name"]}, status=409)
        assert renamed["code"] == "schedule_name_taken"
    given = ask("PUT", f"/schedules/{other['id']}", {"user_id": None}, status=409)
    assert given["code"] == "schedule_name_taken"


def test_a_payload_that_is_too_large_is_refused(ask):
    error = ask("POST", "/schedules", {**DAILY, "payload": "x" * 256 * 1024}, status=413)

    assert error["code"] == "payload_too_large"


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", ""),
        ("PUT", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/run"),
    ],
)
def test_a_schedule_that_is_not_there_is_404(ask, method, rest):
    error = ask(method, f"/schedules/{new_id()}{rest}", {} if method in {"PUT", "PATCH"} else None, status=404)

    assert error["code"] == "schedule_not_found"


def test_a_list_is_filtered_and_leaves_large_payloads_out(ask, bench):
    user = str(uuid4())
    large = create(ask, name="large", payload={"text": "x" * 20_000}, user_id=user)
    paused = create(ask, name="paused", task_type="io", payload={"seconds": 1})
    ask("POST", f"/schedules/{paused['id']}/pause", status=200)
    finished = create(ask, name="finished")
    bench.sql("UPDATE schedules SET next_run_at = NULL WHERE id = %s", finished["id"])

    def names(query: str) -> list[str]:
        return [schedule["name"] for schedule in ask("GET", f"/schedules{query}", status=200)["schedules"]]

    assert names("") == ["finished", "paused", "large"]
    assert names("?limit=1&offset=1") == ["paused"]
    first = ask("GET", "/schedules?limit=2", status=200)
    rest = ask("GET", f"/schedules?limit=2&after={first['next']}", status=200)
    assert ([schedule["name"] for schedule in rest["schedules"]], rest["total"], rest["next"]) == (["large"], 3, None)
    assert names("?status=active") == names(f"?user_id={user}") == ["large"]
    assert names("?status=paused") == names("?task_type=io") == ["paused"]
    assert names("?status=finished") == ["finished"]
    assert ask("GET", "/schedules?limit=1", status=200)["total"] == 3
    assert fields(ask("GET", "/schedules?status=asleep", status=400)) == ["status"]
    listed = ask("GET", "/schedules?status=active", status=200)["schedules"][0]
    assert (listed["payload"], listed["omitted"]) == (None, ["payload"])
    assert ask("GET", f"/schedules/{large['id']}", status=200)["payload"] == {"text": "x" * 20_000}


# Changing


def test_a_change_leaves_the_fields_it_does_not_name(ask):
    before = create(ask, task_type="io", payload={"seconds": 1}, title="t", timezone="Europe/Berlin", missed="skip")

    after = ask("PUT", f"/schedules/{before['id']}", {"priority": 9, "title": None}, status=200)

    assert after == {**before, "priority": 9, "title": None, "updated_at": after["updated_at"]}
    assert after["updated_at"] > before["updated_at"]


def test_naming_another_kind_of_time_replaces_the_one_there_was(ask):
    path = f"/schedules/{create(ask, timezone='Europe/Berlin')['id']}"

    interval = ask("PUT", path, {"every": 60}, status=200)
    assert (interval["cron"], interval["timezone"], interval["every"]) == (None, None, 60)
    once = ask("PUT", path, {"at": "2090-01-01T00:00:00Z"}, status=200)
    assert (once["every"], once["next_runs"]) == (None, ["2090-01-01T00:00:00Z"])
    cron = ask("PUT", path, {"cron": "0 5 * * *"}, status=200)
    assert (cron["at"], cron["timezone"], cron["cron"]) == (None, "UTC", "0 5 * * *")
    zoned = ask("PUT", path, {"timezone": "Asia/Kathmandu"}, status=200)
    # 05:00 at +05:45
    assert zoned["next_runs"][0].endswith("T23:15:00Z")


def test_a_whole_schedule_sent_back_changes_nothing(ask):
    before = ask("POST", "/schedules", {"name": "often", "every": 3600}, status=201)
    read_only = {
        "id", "status", "next_runs", "last_run_at", "last_task_id", "problem", "created_at", "updated_at", "omitted",
    }  # fmt: skip

    after = ask(
        "PUT",
        f"/schedules/{before['id']}",
        {name: value for name, value in before.items() if name not in read_only},
        status=200,
    )

    assert after == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cron": None}, "cron"),
        ({"cron": "0 0 31 4 *"}, "cron"),
        ({"cron": "@daily", "every": 5}, "every"),
        ({"timezone": "Moon"}, "timezone"),
        ({"every": 60, "timezone": "UTC"}, "timezone"),
        ({"at": "2020-01-01T00:00:00Z"}, "at"),
        ({"ends_at": "2020-01-01T00:00:00Z"}, "ends_at"),
        ({"payload": {"seconds": "long"}}, "payload.seconds"),
        ({"name": None}, "name"),
        ({"missed": None}, "missed"),
        ({"next_runs": []}, "next_runs"),
    ],
)
def test_a_change_that_makes_no_sense_changes_nothing(ask, change, field):
    before = create(ask, task_type="io", payload={"seconds": 1})

    error = ask("PUT", f"/schedules/{before['id']}", {"title": "new", **change}, status=400)

    assert field in fields(error)
    assert ask("GET", f"/schedules/{before['id']}", status=200) == before


def test_of_ten_clients_who_saw_the_same_schedule_one_changes_it_and_the_others_get_its_tag(ask):
    path = f"/schedules/{create(ask)['id']}"
    tag = ask.headers["ETag"]
    together, answers = threading.Barrier(10), []

    def change(number: int) -> None:
        with ask.app.test_client() as client:
            together.wait(10)
            answers.append(client.put(path, json={"title": str(number)}, headers={"If-Match": tag}))

    threads = [threading.Thread(target=change, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 9
    ask("GET", path, status=200)
    assert {answer.headers["ETag"] for answer in answers} == {ask.headers["ETag"]} != {tag}


def test_a_schedule_keeps_its_tag_while_it_runs_and_is_not_deleted_by_who_saw_another(ask, bench, schedules):
    schedule = create(ask)
    path, tag = f"/schedules/{schedule['id']}", ask.headers["ETag"]
    make_due(bench, schedule["id"])
    tick(schedules)
    assert ask("GET", path, status=200)["last_task_id"]
    assert ask.headers["ETag"] == tag
    ask("POST", f"{path}/pause", status=200)
    paused = ask.headers["ETag"]
    assert ask("DELETE", path, status=412, headers={"If-Match": tag})["code"] == "precondition_failed"
    assert ask.headers["ETag"] == paused != tag
    assert ask("DELETE", path, status=200, headers={"If-Match": f"{tag}, {paused}"})["status"] == "paused"
    ask("DELETE", path, status=404, headers={"If-Match": paused})


def test_a_deleted_schedule_makes_no_more_tasks_and_leaves_those_it_made(ask, bench, schedules):
    schedule = create(ask)
    task = ask("POST", f"/schedules/{schedule['id']}/run", status=201)
    make_due(bench, schedule["id"])

    assert ask("DELETE", f"/schedules/{schedule['id']}", status=200)["name"] == schedule["name"]
    tick(schedules)

    assert [item["id"] for item in ask("GET", "/tasks", status=200)["tasks"]] == [task["id"]]
    ask("GET", f"/schedules/{schedule['id']}", status=404)


def test_a_paused_schedule_plans_nothing_until_it_is_resumed(ask, bench, schedules):
    schedule = create(ask, cron="* * * * *", missed="run_all")
    path = f"/schedules/{schedule['id']}"
    make_due(bench, schedule["id"], "1 hour")

    paused = ask("POST", f"{path}/pause", status=200)
    assert (paused["status"], paused["next_runs"]) == ("paused", [])
    assert ask("POST", f"{path}/pause", status=200) == paused
    # It would have run meanwhile, and runs again in half an hour.
    changed = ask("PUT", path, {"cron": f"{(datetime.now(UTC).minute + 30) % 60} * * * *"}, status=200)
    assert (changed["status"], changed["next_runs"]) == ("paused", [])
    tick(schedules)

    resumed = ask("POST", f"{path}/resume", status=200)
    assert resumed["status"] == "active"
    assert resumed["next_runs"][0] > resumed["updated_at"]
    assert ask("POST", f"{path}/resume", status=200) == resumed
    tick(schedules)
    assert ask("GET", "/tasks", status=200)["total"] == 0


def test_a_date_that_passed_during_a_pause_stays_unrun(ask, bench, schedules):
    once = ask("POST", "/schedules", {"name": "once", "at": "2090-01-01T00:00:00Z"}, status=201)
    ask("POST", f"/schedules/{once['id']}/pause", status=200)
    bench.sql("UPDATE schedules SET run_at = now() - interval '1 s'")

    assert ask("POST", f"/schedules/{once['id']}/resume", status=200)["status"] == "finished"


def test_a_schedule_can_be_run_at_once_even_when_it_is_paused(ask):
    schedule = create(ask, task_type="io", payload={"seconds": 3}, title="by hand", priority=3, timeout=9)
    path = f"/schedules/{schedule['id']}"
    ask("POST", f"{path}/pause", status=200)

    task = ask("POST", f"{path}/run", status=201)

    assert ask.headers["Location"] == f"/tasks/{task['id']}"
    assert (task["task_type"], task["payload"], task["title"]) == ("io", {"seconds": 3}, "by hand")
    assert (task["priority"], task["timeout"], task["status"]) == (3, 9.0, "pending")
    after = ask("GET", path, status=200)
    assert (after["last_task_id"], after["last_run_at"]) == (task["id"], task["created_at"])
    assert (after["status"], after["updated_at"]) == ("paused", ask("GET", path, status=200)["updated_at"])


# Making tasks


def test_a_due_schedule_makes_its_task_and_moves_on(ask, bench, schedules):
    user = str(uuid4())
    schedule = create(ask, task_type="io", payload={"seconds": 0}, user_id=user, title="by itself", max_attempts=7)
    make_due(bench, schedule["id"])

    tick(schedules)
    tick(schedules)

    (task,) = ask("GET", f"/users/{user}/tasks", status=200)["tasks"]
    assert (task["task_type"], task["payload"], task["title"]) == ("io", {"seconds": 0}, "by itself")
    assert (task["max_attempts"], task["status"]) == (7, "pending")
    after = ask("GET", f"/schedules/{schedule['id']}", status=200)
    assert (after["last_task_id"], after["last_run_at"]) == (task["id"], task["created_at"])
    assert after["next_runs"] == schedule["next_runs"]
    assert after["updated_at"] == schedule["updated_at"]


def test_a_date_is_finished_once_it_has_run(ask, bench, schedules):
    once = ask("POST", "/schedules", {"name": "once", "at": soon(3600)}, status=201)
    tick(schedules)
    assert ask("GET", f"/schedules/{once['id']}", status=200)["status"] == "active"
    came = (
        "UPDATE schedules SET run_at = run_at - interval '1 h', next_run_at = run_at - interval '1 h' RETURNING run_at"
    )
    ((at,),) = bench.sql(came)
    tick(schedules)
    after = ask("GET", f"/schedules/{once['id']}", status=200)
    assert after["status"] == "finished"
    assert after["next_runs"] == []
    assert ask("GET", f"/tasks/{after['last_task_id']}", status=200)["status"] == "pending"
    assert bench.sql("SELECT due_at FROM schedule_ticks") == [(at,)]


@pytest.mark.parametrize(("missed", "tasks"), [("skip", 0), ("run_once", 1), ("run_all", 5)])
def test_runs_missed_while_nobody_worked_are_treated_as_the_schedule_says(ask, bench, schedules, missed, tasks):
    schedule = ask("POST", "/schedules", {"name": "n", "every": 3600, "missed": missed}, status=201)
    bench.sql("UPDATE schedules SET anchor_at = now() - interval '5.5 h', next_run_at = now() - interval '4.5 h'")

    tick(schedules)

    assert ask("GET", "/tasks", status=200)["total"] == tasks
    remaining = datetime.fromisoformat(ask("GET", f"/schedules/{schedule['id']}", status=200)["next_runs"][0])
    assert timedelta(minutes=28) < remaining - datetime.now(UTC) < timedelta(minutes=31)


def test_no_more_than_a_hundred_missed_runs_are_made_up_for(ask, bench, schedules):
    create(ask, cron="* * * * *", missed="run_all")
    bench.sql("UPDATE schedules SET next_run_at = date_trunc('minute', now()) - interval '40 days'")

    tick(schedules)

    assert ask("GET", "/tasks", status=200)["total"] == MAX_RUNS_AT_ONCE
    (first, last, number) = bench.sql("SELECT min(due_at), max(due_at), count(DISTINCT due_at) FROM schedule_ticks")[0]
    assert (last - first, number) == (timedelta(minutes=99), 100)


def test_a_schedule_that_cannot_go_on_is_paused_alone_and_says_why(ask, bench, schedules):
    broken = create(ask, name="broken")
    sound = create(ask, name="sound")
    bench.sql("UPDATE schedules SET timezone = 'Europe/Atlantis' WHERE id = %s", broken["id"])
    for schedule in (broken, sound):
        make_due(bench, schedule["id"])

    tick(schedules)

    after = ask("GET", f"/schedules/{broken['id']}", status=200)
    assert (after["status"], after["next_runs"]) == ("paused", [])
    assert after["problem"].startswith("timezone: ")
    assert fields(ask("POST", f"/schedules/{broken['id']}/resume", status=400)) == ["timezone"]
    assert ask("GET", f"/schedules/{sound['id']}", status=200)["last_task_id"] is not None
    mended = ask("PUT", f"/schedules/{broken['id']}", {"timezone": "UTC"}, status=200)
    assert (mended["status"], mended["problem"]) == ("active", None)


def test_a_schedule_whose_times_cannot_be_told_for_a_reason_nobody_thought_of_is_paused_alone(
    ask, bench, schedules, monkeypatch
):
    broken = create(ask, name="broken", timezone="Asia/Tokyo")
    sound = create(ask, name="sound", timezone="Asia/Seoul")
    for schedule in (broken, sound):
        make_due(bench, schedule["id"])
    read = read_timezone

    def unreadable(name: str) -> tzinfo:
        if name == "Asia/Tokyo":
            raise OSError("/usr/share/zoneinfo: no such place")
        return read(name)

    monkeypatch.setattr("service_tasks.domain.schedule.read_timezone", unreadable)

    tick(schedules)

    after = ask("GET", f"/schedules/{broken['id']}", status=200)
    assert (after["status"], after["problem"]) == ("paused", "its times cannot be told: OSError")
    assert ask("GET", f"/schedules/{sound['id']}", status=200)["last_task_id"] is not None


def test_a_cron_that_runs_while_a_clock_is_set_back_by_a_part_of_an_hour_holds_nobody_up(ask, bench, schedules):
    chatham = {"cron": "*/15 3 * * *", "timezone": "Pacific/Chatham", "starts_at": "2090-04-01T13:46:00Z"}

    shown = create(ask, **chatham)

    assert shown["next_runs"][:2] == ["2090-04-01T14:15:00Z", "2090-04-01T14:30:00Z"]
    make_due(bench, shown["id"])
    tick(schedules)
    assert ask("GET", f"/schedules/{shown['id']}", status=200)["last_task_id"] is not None


def test_eight_schedulers_at_once_make_one_task_for_each_tick(ask, bench, schedules):
    for number in range(40):
        create(ask, name=f"schedule {number}", cron="* * * * *", missed="run_all")
    rounds = 5
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait(30)
        # A schedule that another has locked is passed over: look until nothing is due.
        while bench.sql("SELECT 1 FROM schedules WHERE next_run_at <= now() LIMIT 1"):
            tick(schedules)

    for round_ in range(rounds):
        bench.sql(
            "UPDATE schedules SET next_run_at = date_trunc('minute', now()) - %s::interval",
            f"{(round_ + 1) * 5 - 1} min",
        )
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    # The later rounds come over moments that were run for before: those make nothing again.
    (ticks, moments) = bench.sql("SELECT count(*), count(DISTINCT (schedule_id, due_at)) FROM schedule_ticks")[0]
    (tasks,) = bench.sql("SELECT count(*) FROM tasks")[0]
    assert ticks == moments == tasks
    minutes = {row[0] for row in bench.sql("SELECT count(*) FROM schedule_ticks GROUP BY schedule_id")}
    assert len(minutes) <= 2  # a minute may have passed between two schedules
    assert min(minutes) >= rounds * 5


def test_a_scheduler_killed_before_its_commit_leaves_nothing_behind(ask, bench, schedules):
    schedule = create(ask)
    make_due(bench, schedule["id"])

    def die(due):
        bench.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE relation = 'schedules'::regclass AND granted AND usename = current_user"
        )
        return plan_of(due)

    with pytest.raises(Exception, match="database"):
        schedules.fire(10, die)
    assert bench.sql("SELECT count(*) FROM schedule_ticks")[0][0] == 0
    assert ask("GET", "/tasks", status=200)["total"] == 0

    tick(schedules)
    assert ask("GET", "/tasks", status=200)["total"] == 1


def test_a_schedule_that_somebody_changes_is_passed_over_and_not_waited_for(ask, bench, schedules, tasks_database):
    held, free = create(ask, name="held"), create(ask, name="free")
    for schedule in (held, free):
        make_due(bench, schedule["id"])
    connection = psycopg2.connect(tasks_database.url.replace("+psycopg2", "", 1))
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM schedules WHERE id = %s FOR UPDATE", (held["id"],))
            tick(schedules)
    finally:
        connection.close()

    made = {row[0] for row in bench.sql("SELECT schedule_id FROM schedule_ticks")}
    assert made == {UUID(free["id"])}


def test_the_scheduler_finds_what_is_due_by_its_index(bench, schedules, tasks_database):
    def make(now: datetime) -> NewSchedule:
        return NewSchedule(
            new_id(), str(uuid4()), "noop", None, None, "{}", 50, 3, None, None, Missed.SKIP,
            now + timedelta(days=1), Timing(None, None, 60, None, now),
        )  # fmt: skip

    schedules.add(make, lambda *_: None)
    bench.sql(
        """INSERT INTO schedules (id, name, task_type, payload, priority, max_attempts, every_seconds, anchor_at,
                                  missed, next_run_at)
           SELECT gen_random_uuid(), n::text, 'noop', '{}', 50, 3, 60, now(), 'skip', now() + n * interval '1 s'
           FROM generate_series(1, 5000) n"""
    )
    tasks_database.administer("ANALYZE schedules")
    queries = load_queries("schedules.sql")

    for name in ("due", "next_due"):
        with bench.database.transaction() as session:
            rows = session.connection().exec_driver_sql("EXPLAIN " + queries[name], {"limit": 50}).all()
        assert "ix_schedules_due" in "\n".join(row[0] for row in rows), name


def test_a_worker_runs_what_schedules_make(ask, bench, start_worker):
    worker = start_worker(noop, poll_seconds=5.0)
    eventually(lambda: bench.sql("SELECT 1 FROM leaders"), timeout=10, what="a leader")

    schedule = ask("POST", "/schedules", {"name": "every second", "every": 1}, status=201)

    def completed():
        return ask("GET", "/tasks?status=completed", status=200)["total"] >= 3

    eventually(completed, timeout=20, what="three runs")
    ask("DELETE", f"/schedules/{schedule['id']}", status=200)
    assert worker.stop() == 0
    (ticks, tasks) = bench.sql("SELECT (SELECT count(*) FROM schedule_ticks), (SELECT count(*) FROM tasks)")[0]
    assert ticks == tasks


# Of a deleted user


def delete_user(bench: Bench, user_id: UUID) -> None:
    Inbox(bench.database, {"user.deleted": bench.user_deleted}).take([user_deleted(user_id)])


def test_the_schedules_of_a_disabled_user_are_paused_with_the_reason_until_they_are_resumed(ask, bench, schedules):
    anna = uuid4()
    hers, hand_paused, others = (
        create(ask, name=name, user_id=str(user))["id"] for name, user in (("a", anna), ("b", anna), ("c", uuid4()))
    )
    ask("POST", f"/schedules/{hand_paused}/pause", status=200)
    inbox = Inbox(bench.database, {"user.disabled": bench.user_disabled})
    event = user_deleted(anna, type="user.disabled")
    # One that is just run or changed: the event waits for it, and is sent again if that takes long.
    with bench.database.transaction() as busy:
        busy.execute(text("SELECT FROM schedules WHERE id = :id FOR UPDATE"), {"id": hers})
        with pytest.raises(AppError, match="keeps locked"):
            inbox.take([event])
    assert inbox.take([event]).processed == 1

    for schedule_id in (hers, hand_paused):
        shown = ask("GET", f"/schedules/{schedule_id}", status=200)
        assert (shown["status"], shown["problem"]) == ("paused", "the user was disabled")
    assert ask("GET", f"/schedules/{others}", status=200)["status"] == "active"
    # Other times alone do not let it go on.
    assert ask("PUT", f"/schedules/{hers}", {"every": 60}, status=200)["status"] == "paused"
    resumed = ask("POST", f"/schedules/{hers}/resume", status=200)
    assert (resumed["status"], resumed["problem"]) == ("active", None)


def test_the_schedules_of_a_deleted_user_are_paused_with_the_reason_and_make_no_tasks(ask, bench, schedules):
    anna = uuid4()
    hers, hand_paused, others, nobodys = (
        create(ask, name=name, user_id=user_id)["id"]
        for name, user_id in (("a", str(anna)), ("b", str(anna)), ("c", str(uuid4())), ("d", None))
    )
    ask("POST", f"/schedules/{hand_paused}/pause", status=200)
    for schedule_id in (hers, others, nobodys):
        make_due(bench, schedule_id)

    delete_user(bench, anna)
    tick(schedules)

    for schedule_id in (hers, hand_paused):
        shown = ask("GET", f"/schedules/{schedule_id}", status=200)
        assert (shown["status"], shown["problem"], shown["last_task_id"]) == ("paused", "the user was deleted", None)
    for schedule_id in (others, nobodys):
        shown = ask("GET", f"/schedules/{schedule_id}", status=200)
        assert (shown["status"], shown["problem"]) == ("active", None)
        assert shown["last_task_id"] is not None
    assert bench.sql("SELECT count(*) FROM tasks WHERE user_id = %s", str(anna)) == [(0,)]


def test_no_schedule_is_made_resumed_or_run_for_a_deleted_user_but_it_may_become_anothers(ask, bench, schedules):
    anna = uuid4()
    hers = create(ask, user_id=str(anna))["id"]
    other = create(ask, name="another")["id"]
    delete_user(bench, anna)

    for method, path, body in (
        ("POST", "/schedules", {**DAILY, "name": "new", "user_id": str(anna)}),
        ("POST", f"/schedules/{hers}/resume", None),
        ("POST", f"/schedules/{hers}/run", None),
        ("PUT", f"/schedules/{other}", {"user_id": str(anna)}),
    ):
        error = ask(method, path, body, status=400)
        assert error["code"] == "user_not_found"
        assert fields(error) == ["user_id"]
    assert ask("PUT", f"/schedules/{hers}", {"name": "still hers"}, status=200)["problem"] == "the user was deleted"

    ask("PUT", f"/schedules/{hers}", {"user_id": None}, status=200)
    resumed = ask("POST", f"/schedules/{hers}/resume", status=200)

    assert (resumed["status"], resumed["problem"]) == ("active", None)


def test_a_schedule_that_the_deletion_passed_over_is_paused_when_it_is_due(ask, bench, schedules):
    anna = uuid4()
    schedule_id = create(ask, user_id=str(anna))["id"]
    make_due(bench, schedule_id)
    with bench.database.transaction() as session:
        session.connection().exec_driver_sql("SELECT 1 FROM schedules WHERE id = %s FOR UPDATE", (schedule_id,))
        delete_user(bench, anna)
    assert ask("GET", f"/schedules/{schedule_id}", status=200)["status"] == "active"

    tick(schedules)

    shown = ask("GET", f"/schedules/{schedule_id}", status=200)
    assert (shown["status"], shown["problem"], shown["last_task_id"]) == ("paused", "the user was deleted", None)
