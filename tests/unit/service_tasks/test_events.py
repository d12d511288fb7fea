"""What watchers of a task are told, and when the database is asked for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from service_tasks.domain.task import State
from service_tasks.domain.watched import Watch, WatchedTask, version_after
from service_tasks.errors import TaskNotFound, TooManyWatchers
from service_tasks.streams.feed import Feed, TaskSnapshot, TaskWatcher
from service_tasks.streams.stream import events_of, last_event_version
from servicekit.identity.reach import Reach
from servicekit.wire.errors import DatabaseUnavailable, DeadlineExceeded, Unavailable

MOMENT = datetime(2026, 11, 21, 1, 37, 57, 123456, tzinfo=UTC)
SECOND = timedelta(seconds=1)
PATIENCE = 10.0


def task(**changes: object) -> WatchedTask:
    fields: dict[str, object] = {
        "id": uuid4(), "state": State.RUNNING, "task_type": "noop", "attempts": 1, "max_attempts": 3,
        "execute_at": MOMENT, "progress_percent": 0, "progress_message": None, "result": None, "error": None,
        "created_at": MOMENT, "updated_at": MOMENT, "started_at": MOMENT, "completed_at": None, "duration": 1.0,
    }  # fmt: skip
    return WatchedTask(**{**fields, **changes})  # type: ignore[arg-type]


class TestTheVersion:
    def test_is_the_time_of_the_last_change_so_that_every_process_knows_it(self) -> None:
        assert version_after(task(), 0) == 1795225077_123456

    def test_grows_even_when_a_transaction_that_waited_carries_the_earlier_time(self) -> None:
        first = version_after(task(), 0)
        assert version_after(task(updated_at=MOMENT - SECOND), first) == first + 1

    @pytest.mark.parametrize(
        ("field", "version"),
        [(None, None), ("", None), ("12", 12), ("-1", None), ("²", None), ("1" * 21, None), ("1" * 20, int("1" * 20))],
    )
    def test_is_read_back_only_if_we_may_have_sent_it(self, field: str | None, version: int | None) -> None:
        assert last_event_version(field) == version


class TestTheEvents:
    def names(self, sight: TaskSnapshot, told: WatchedTask | None) -> list[str]:
        return [name for name, _ in events_of(sight, told)]

    def test_of_a_newcomer_are_the_whole_state(self) -> None:
        assert self.names(TaskSnapshot(task(), 7), None) == ["status", "progress"]
        assert self.names(TaskSnapshot(task(state=State.FAILED), 7), None) == ["status", "progress", "end"]

    @pytest.mark.parametrize(
        ("changes", "names"),
        [
            ({"progress_percent": 5}, ["progress"]),
            ({"progress_message": "here"}, ["progress"]),
            ({"attempts": 2}, ["status"]),
            ({"state": State.READY, "started_at": None}, ["status"]),
            ({"state": State.COMPLETED, "progress_percent": 100, "result": "{}"}, ["status", "progress", "end"]),
            ({"updated_at": MOMENT + SECOND}, []),
        ],
    )
    def test_of_one_who_knows_are_what_differs(self, changes: dict[str, object], names: list[str]) -> None:
        before = task()
        assert self.names(TaskSnapshot(replace(before, **changes), 8), before) == names  # type: ignore[arg-type]

    def test_waiting_for_its_time_and_ready_look_alike(self) -> None:
        before = task(state=State.SCHEDULED)
        assert self.names(TaskSnapshot(replace(before, state=State.READY), 8), before) == []

    def test_of_one_change_carry_the_id_in_the_last_of_them(self) -> None:
        texts = [text for _, text in events_of(TaskSnapshot(task(state=State.CANCELLED), 7), None)]
        assert [b"\nid: 7\n" in text for text in texts] == [False, False, True]

    def test_are_one_line_of_data_whatever_the_text(self) -> None:
        odd = "a\nb\rc\u2028\u2029d\x85"
        (_, text) = events_of(TaskSnapshot(task(progress_message=odd), 7), None)[1]
        lines = text.decode().split("\n")
        assert "\r" not in text.decode()
        assert [line.partition(":")[0] for line in lines] == ["event", "id", "data", "", ""]
        assert json.loads(lines[2].removeprefix("data: "))["message"] == odd

    def test_of_a_purged_task_is_its_end(self) -> None:
        before = task(state=State.RUNNING)
        ((name, text),) = events_of(TaskSnapshot(before, 9, gone=True), before)
        assert name == "end"
        assert b'"status":"purged"' in text


class Table:
    """Stands for the database."""

    def __init__(self) -> None:
        self.rows: dict[UUID, WatchedTask] = {}
        self.away = False
        self.asked: list[dict[Watch, datetime | None]] = []

    def look(self, seen: Mapping[Watch, datetime | None]) -> dict[Watch, WatchedTask | None]:
        self.asked.append(dict(seen))
        if self.away:
            raise DatabaseUnavailable(retry_after=1)
        found: dict[Watch, WatchedTask | None] = {}
        for watch, updated_at in seen.items():
            row = self.rows.get(watch.task_id)
            if row is None or row.updated_at != updated_at:
                found[watch] = row
        return found

    def add(self, **changes: object) -> UUID:
        made = task(**changes)
        self.rows[made.id] = made
        return made.id

    def change(self, task_id: UUID, **changes: object) -> None:
        row = self.rows[task_id]
        self.rows[task_id] = replace(row, updated_at=row.updated_at + SECOND, **changes)  # type: ignore[arg-type]


Scenario = Callable[[Feed, Table], Awaitable[None]]


def play(scenario: Scenario, *, interval: float = 0.02, limit: int = 5000) -> None:
    async def main() -> None:
        table = Table()
        feed = Feed(table.look, interval=interval, limit=limit)
        running = asyncio.create_task(feed.run())
        try:
            async with asyncio.timeout(PATIENCE):
                await scenario(feed, table)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert (feed.watchers, feed.tasks) == (0, 0)

    asyncio.run(main())


class TestTheFeed:
    def test_asks_nothing_while_nobody_watches(self) -> None:
        async def scenario(feed: Feed, table: Table) -> None:
            await asyncio.sleep(0.1)
            feed.look_now()
            await asyncio.sleep(0.1)
            assert table.asked == []

        play(scenario)

    def test_serves_many_newcomers_with_one_statement(self) -> None:
        async def scenario(feed: Feed, table: Table) -> None:
            async def look(task_id: UUID) -> int:
                with TaskWatcher(feed, Watch(task_id, Reach.all())) as watcher:
                    return (await watcher.first(PATIENCE)).version

            ids = [table.add() for _ in range(300)]
            assert len(await asyncio.gather(*(look(task_id) for task_id in ids * 3))) == 900
            assert len(table.asked) == 1

        play(scenario, interval=5)

    def test_gives_a_slow_watcher_the_newest_state_alone(self) -> None:
        async def scenario(feed: Feed, table: Table) -> None:
            task_id = table.add()
            with (
                TaskWatcher(feed, Watch(task_id, Reach.all())) as slow,
                TaskWatcher(feed, Watch(task_id, Reach.all())) as quick,
            ):
                seen = await quick.first(PATIENCE)
                first = await slow.first(PATIENCE)
                for percent in range(1, 6):
                    table.change(task_id, progress_percent=percent)
                    newer = await quick.after(seen.version, PATIENCE)
                    assert newer is not None
                    assert newer.task.progress_percent == percent
                    seen = newer
                assert await slow.after(first.version, PATIENCE) == seen
                assert await slow.after(seen.version, 0.05) is None

        play(scenario)

    def test_tells_a_purge_once_and_asks_no_more_for_what_is_gone(self) -> None:
        async def scenario(feed: Feed, table: Table) -> None:
            task_id = table.add()
            with TaskWatcher(feed, Watch(task_id, Reach.all())) as watcher:
                seen = await watcher.first(PATIENCE)
                del table.rows[task_id]
                gone = await watcher.after(seen.version, PATIENCE)
                assert gone is not None
                assert (gone.gone, gone.task.id, gone.is_last) == (True, task_id, True)
                asked = len(table.asked)
                assert await watcher.after(gone.version, 0.1) is None
                assert len(table.asked) == asked
                with TaskWatcher(feed, Watch(task_id, Reach.all())) as another, pytest.raises(TaskNotFound):
                    await another.first(PATIENCE)

        play(scenario)

    def test_knows_no_task_that_is_not_there(self) -> None:
        async def scenario(feed: Feed, table: Table) -> None:
            with TaskWatcher(feed, Watch(uuid4(), Reach.all())) as watcher, pytest.raises(TaskNotFound):
                await watcher.first(PATIENCE)

        play(scenario)

    def test_without_its_database_refuses_newcomers_keeps_the_others_and_goes_on_afterwards(self) -> None:
        async def scenario(feed: Feed, table: Table) -> None:
            task_id, other = table.add(), table.add()
            with TaskWatcher(feed, Watch(task_id, Reach.all())) as watcher:
                seen = await watcher.first(PATIENCE)
                table.away = True
                for _ in range(3):
                    with TaskWatcher(feed, Watch(other, Reach.all())) as newcomer, pytest.raises(DatabaseUnavailable):
                        await newcomer.first(PATIENCE)
                table.change(task_id, progress_percent=9)
                assert await watcher.after(seen.version, 0.05) is None
                table.away = False
                newer = await watcher.after(seen.version, PATIENCE)
                assert newer is not None
                assert newer.task.progress_percent == 9
                with TaskWatcher(feed, Watch(other, Reach.all())) as newcomer:
                    assert (await newcomer.first(PATIENCE)).task.id == other

        play(scenario)

    def test_looks_at_once_when_something_is_announced(self) -> None:
        async def scenario(feed: Feed, table: Table) -> None:
            task_id = table.add()
            with TaskWatcher(feed, Watch(task_id, Reach.all())) as watcher:
                seen = await watcher.first(PATIENCE)
                table.change(task_id, state=State.CANCELLED)
                feed.look_now()
                newer = await watcher.after(seen.version, PATIENCE)
                assert newer is not None
                assert newer.is_last

        play(scenario, interval=3600)

    def test_refuses_one_watcher_too_many(self) -> None:
        async def scenario(feed: Feed, table: Table) -> None:
            task_id = table.add()
            with TaskWatcher(feed, Watch(task_id, Reach.all())), pytest.raises(TooManyWatchers):
                TaskWatcher(feed, Watch(task_id, Reach.all())).__enter__()
            with TaskWatcher(feed, Watch(task_id, Reach.all())) as watcher:
                await watcher.first(PATIENCE)

        play(scenario, limit=1)

    def test_when_it_closes_lets_everybody_go(self) -> None:
        async def scenario(feed: Feed, table: Table) -> None:
            task_id = table.add()
            with TaskWatcher(feed, Watch(task_id, Reach.all())) as watcher:
                seen = await watcher.first(PATIENCE)
                waiting = asyncio.create_task(watcher.after(seen.version, PATIENCE))
                await asyncio.sleep(0)
                feed.close()
                assert await waiting is None
                assert watcher.closing
            with TaskWatcher(feed, Watch(task_id, Reach.all())) as late, pytest.raises(Unavailable):
                await late.first(PATIENCE)

        play(scenario)

    def test_does_not_let_a_newcomer_wait_longer_than_it_may(self) -> None:
        async def scenario(feed: Feed, table: Table) -> None:
            task_id = table.add()
            with TaskWatcher(feed, Watch(task_id, Reach.all())) as watcher, pytest.raises(DeadlineExceeded):
                await watcher.first(0)

        play(scenario)
