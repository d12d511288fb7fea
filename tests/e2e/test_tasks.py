"""Tasks through the gateway: created, run, watched, cancelled, retried."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.support.event_stream import EventStream
from tests.support.waiting import eventually


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_task_is_pending_then_processing_with_progress(system):
    # Longer than anybody here waits for a look at it.
    created = system.post("/tasks", {"task_type": "io", "payload": {"seconds": 30}})
    assert created.status == 201
    assert created.data["status"] == "pending"
    task_id = created.data["id"]

    def progressing():
        task = system.get(f"/tasks/{task_id}").data
        return task if task["status"] == "processing" and (task["progress"] or {}).get("percent") else None

    assert 0 < eventually(progressing, what="progress")["progress"]["percent"] <= 100
    assert system.delete(f"/tasks/{task_id}").status == 200


def test_a_completed_task_has_all_of_its_progress_and_its_result(system):
    task_id = system.post("/tasks", {"task_type": "io", "payload": {"seconds": 2}}).data["id"]

    task = system.wait_for_task(task_id, "completed")
    assert task["attempts"] == 1
    assert task["progress"] == {"percent": 100, "message": "2 of 2 seconds"}
    assert task["result"] == {"waited_seconds": 2.0, "attempt": 1}
    assert task["error"] is None
    assert task["duration"] >= 2
    status = system.get(f"/tasks/{task_id}/status").data
    assert (status["status"], status["created_at"], status["duration"]) == (
        "completed",
        task["created_at"],
        task["duration"],
    )
    assert system.get(f"/tasks/{task_id}/result").data["result"] == task["result"]


def test_an_empty_body_makes_a_task(system):
    created = system.request("POST", "/tasks")

    assert created.status == 201
    assert created.data["task_type"] == "noop"
    assert system.wait_for_task(created.data["id"], "completed")


def test_a_task_runs_at_its_time_and_not_before(system):
    execute_at = _in(3)
    created = system.post("/api/v1/tasks", {"task_type": "noop", "execute_at": execute_at})
    assert created.status == 201

    task = system.wait_for_task(created.data["id"], "completed")

    assert _time(task["started_at"]) >= _time(execute_at)


def test_a_pending_task_is_cancelled_once(system):
    task = system.post("/tasks", {"execute_at": _in(3600)}).data

    cancelled = system.delete(f"/tasks/{task['id']}")
    assert cancelled.status == 200
    assert cancelled.data["status"] == "cancelled"

    again = system.delete(f"/tasks/{task['id']}")
    assert again.status == 404
    assert again.error["code"] == "task_not_found"


def test_a_running_task_is_cancelled_and_stays_so(system):
    task = system.post("/tasks", {"task_type": "io", "payload": {"seconds": 600}}).data
    system.wait_for_task(task["id"], "processing")

    assert system.delete(f"/tasks/{task['id']}").data["status"] == "cancelled"
    assert system.get(f"/tasks/{task['id']}").data["status"] == "cancelled"
    assert system.delete(f"/tasks/{task['id']}").status == 404


def test_the_list_is_filtered_and_counted(system, user):
    for task_type in ("io", "io", "io", "noop"):
        system.post("/tasks", {"task_type": task_type, "user_id": user["id"], "execute_at": _in(3600)})

    page = system.get(f"/tasks?user_id={user['id']}&status=pending&task_type=io&limit=2").data

    assert page["total"] == 3
    assert len(page["tasks"]) == 2
    assert {task["task_type"] for task in page["tasks"]} == {"io"}
    assert system.get(f"/tasks?user_id={user['id']}&status=New&task_type=io").data["total"] == 3


def test_a_task_that_fails_twice_and_then_works(system):
    task = system.post("/tasks", {"task_type": "io", "payload": {"seconds": 0, "failures": 2}}).data

    done = system.wait_for_task(task["id"], "completed")

    assert done["attempts"] == 3
    assert [error["attempt"] for error in done["errors"]] == [1, 2]


def test_a_task_that_fails_for_good_keeps_every_error_and_can_be_retried(system):
    body = {"task_type": "io", "payload": {"seconds": 0, "failures": 2}, "max_attempts": 2}
    task = system.post("/tasks", body).data

    failed = system.wait_for_task(task["id"], "failed")
    assert failed["attempts"] == 2
    assert [error["attempt"] for error in failed["errors"]] == [1, 2]
    assert failed["error"]

    assert system.post(f"/tasks/{task['id']}/retry").status == 200
    assert system.wait_for_task(task["id"], "completed", "failed")


def test_the_tasks_of_a_user_are_listed(system, user):
    task = system.post("/tasks", {"user_id": user["id"], "execute_at": _in(3600)}).data

    page = system.get(f"/users/{user['id']}/tasks").data

    assert [found["id"] for found in page["tasks"]] == [task["id"]]
    assert page["total"] == 1


def test_a_task_is_watched_from_its_start_to_its_end_across_a_restart_of_the_streams(system):
    task_id = system.post("/tasks", {"task_type": "io", "payload": {"seconds": 6}}).data["id"]
    seen = []
    with EventStream(system.port, task_id) as stream:
        for event in stream:
            seen.append(event)
            if event.name == "progress" and event.data["percent"] > 0:
                break
        system.cli("restart", "events")
        # Ended in good order; what came meanwhile counts.
        seen += list(stream)
        last_id = stream.reader.last_id

    def come_back() -> EventStream | None:
        again = EventStream(system.port, task_id, last_event_id=last_id)
        if again.status == 200:
            return again
        assert again.status == 503
        again.close()
        return None

    again = eventually(come_back, what="the streams to be served again")
    with again:
        seen += list(again)
    assert seen[0].data["status"] in {"pending", "processing"}
    percents = [event.data["percent"] for event in seen if event.name == "progress"]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert (seen[-1].name, seen[-1].data["status"]) == ("end", "completed")
    assert seen[-1].data["result"] == system.get(f"/tasks/{task_id}/result").data["result"]
