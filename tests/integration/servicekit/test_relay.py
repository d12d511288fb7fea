"""The outbox and its relay on a real database: in order, at least once, and whoever is in trouble alone."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from uuid import UUID, uuid4

import psycopg2
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from service_users.accounts.passwords import Passwords
from service_users.errors import EmailTaken
from service_users.schemas import UserCreate, UserUpdate
from service_users.use_cases import Users
from servicekit.circuits import Circuit
from servicekit.database.engine import Database
from servicekit.events import outbox, relay_store
from servicekit.events.cloudevents import Event
from servicekit.events.relay import EventRefused, Relay
from servicekit.events.relay_metrics import RelayMetrics
from servicekit.events.relay_process import DestinationUnavailable, HttpDelivery
from servicekit.events.relay_store import REFUSALS, ActiveLock, Backlog, RelayStore
from servicekit.http_client import ServiceClient
from servicekit.identity.reach import Reach
from servicekit.wire.errors import DatabaseUnavailable, Unavailable
from tests.support.ports import free_port
from tests.support.postgres import ServiceDatabase
from tests.support.upstream import ScriptedUpstream, answer, bad, good
from tests.support.waiting import eventually

ANNA, BORIS, CLARA = uuid4(), uuid4(), uuid4()


class Destination:
    """A destination that keeps what it got, and misbehaves when a test says so."""

    def __init__(self) -> None:
        self.got: list[Event] = []
        self.calls = 0
        self.away = False
        #: what is refused: by the text of an event
        self.refused: dict[str, bool] = {}

    def __call__(self, events: Sequence[Event]) -> None:
        self.calls += 1
        if self.away:
            raise DestinationUnavailable
        for event in events:
            if event.data["text"] in self.refused:
                raise EventRefused("400 invalid_input: text: is not nice", final=self.refused[event.data["text"]])
        self.got += events

    @property
    def texts(self) -> list[str]:
        return [event.data["text"] for event in self.got]


class Outbox:
    """A database with an outbox, and relays over it that are moved by hand."""

    def __init__(self, url: str, database: Database) -> None:
        self.url = url
        self.database = database
        self.store = RelayStore(database)
        self.left, self.right = Destination(), Destination()
        self.died = threading.Event()
        self.relays: list[Relay] = []

    def relay(self, *, without: str = "", threads: bool = False, **options) -> Relay:
        deliveries = {name: to for name, to in (("left", self.left), ("right", self.right)) if name != without}
        given = {"poll_seconds": 0.05, "keep_seconds": 3600.0, "hears": dict.fromkeys(deliveries), **options}
        made = Relay(
            "users",
            store=self.store,
            lock=ActiveLock(self.database),
            deliveries=deliveries,
            metrics=RelayMetrics(CollectorRegistry()),
            on_death=self.died.set,
            **given,
        )
        if not threads:
            for courier in made.couriers:
                courier.start = courier.wake
        self.relays.append(made)
        return made

    def write(self, *texts: tuple[UUID, str]) -> None:
        with self.database.transaction() as session:
            outbox.add_all(session, [event(*one) for one in texts])

    def sql(self, statement: str, **parameters):
        with self.database.transaction() as session:
            result = session.execute(text(statement), parameters)
            return result.all() if result.returns_rows else []

    def waiting(self) -> int:
        return self.sql(
            "SELECT (SELECT count(*) FROM outbox WHERE NOT spread) + (SELECT count(*) FROM outbox_deliveries)"
        )[0][0]

    def time_passes(self) -> None:
        """Let every hold be over."""
        self.sql("UPDATE outbox_deliveries SET due_at = now() - interval '1 second' WHERE due_at IS NOT NULL")


def event(subject: UUID, text: str) -> Event:
    return Event(type="thing.happened", subject=subject, data={"text": text})


def once(relay: Relay, times: int = 8) -> None:
    """Let the relay and each courier do their duty some times."""
    for _ in range(times):
        relay.run_once(relay._clock())
        for courier in relay.couriers:
            courier.run_once(relay._clock())


def once_active(relay: Relay) -> None:
    """Do as `once` when the lock is free: PostgreSQL ends the session of whoever had it a moment later."""

    def active() -> bool:
        relay.run_once(relay._clock())
        return relay.is_active

    eventually(active, what="the relay is active")
    once(relay)


@pytest.fixture
def box(users_database: ServiceDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outbox]:
    # Of itself no hold is over while a test lasts: only once a test lets time pass.
    monkeypatch.setattr(relay_store, "_FIRST_HOLD", 3600.0)
    monkeypatch.setattr(relay_store, "_LONGEST_HOLD", 3600.0)
    made = Outbox(users_database.url, users_database.database)
    yield made
    for relay in made.relays:
        relay.stop()
    assert not made.died.is_set()


def test_events_reach_every_destination_in_order_and_are_forgotten_when_acknowledged(box):
    box.write((ANNA, "a1"), (BORIS, "b1"))
    box.write((ANNA, "a2"))

    once(box.relay())

    assert box.left.texts == box.right.texts == ["a1", "b1", "a2"]
    assert box.left.calls == 1
    assert box.waiting() == 0


def test_a_change_that_is_rolled_back_tells_nothing(box):
    users = Users(box.database, Passwords(places=1))
    users.create(UserCreate(email="anna@example.com", name="Anna"), reach=Reach.all())
    before = box.sql("SELECT count(*) FROM outbox")
    with pytest.raises(EmailTaken):
        users.create(UserCreate(email="ANNA@example.com", name="Anna"), reach=Reach.all())
    with box.database.transaction() as session:
        outbox.add_all(session, [event(ANNA, "never")])
        session.rollback()

    assert box.sql("SELECT count(*) FROM outbox") == before == [(1,)]


def test_a_position_that_becomes_visible_late_is_not_passed_over(box):
    relay = box.relay()
    slow = psycopg2.connect(box.url.replace("+psycopg2", ""))
    try:
        with slow.cursor() as cursor:
            cursor.execute(
                "INSERT INTO outbox (id, type, subject, time, data)"
                """ VALUES (gen_random_uuid(), 't', %s, now(), '{"text": "early"}')""",
                (str(ANNA),),
            )
        box.write((BORIS, "late"))
        once(relay)
        assert box.left.texts == ["late"]
        slow.commit()
    finally:
        slow.close()
    once(relay)

    assert box.left.texts == box.right.texts == ["late", "early"]


def test_the_order_of_each_user_is_that_of_the_changes_whoever_made_them(box):
    users = Users(box.database, Passwords(places=1))
    ids = [users.create(UserCreate(email=f"{n}@example.com", name="0"), reach=Reach.all()).view.id for n in range(3)]
    seen: dict[UUID, list[str]] = defaultdict(list)

    def change(number: int) -> None:
        for step in range(15):
            user_id = ids[(number + step) % 3]
            users.update(user_id, UserUpdate(name=f"{number}.{step}"), reach=Reach.all())

    class Names(Destination):
        def __call__(self, events: Sequence[Event]) -> None:
            for one in events:
                seen[one.subject].append(one.data["name"])

    box.left = Names()
    relay = box.relay(without="right", threads=True)
    relay.start()
    threads = [threading.Thread(target=change, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    eventually(lambda: box.waiting() == 0, what="everything is delivered")

    for user_id in ids:
        names = seen[user_id]
        assert len(names) == len(set(names)) == 21
        assert names[0] == "0"
        assert names[-1] == users.get(user_id, reach=Reach.all()).name
        for number in range(4):
            mine = [int(name.partition(".")[2]) for name in names if name.startswith(f"{number}.")]
            assert mine == sorted(mine)


def test_a_destination_that_is_away_holds_up_nobody_else_and_gets_everything_later(box):
    relay = box.relay()
    box.left.away = True
    box.write((ANNA, "a1"))
    once(relay)
    box.write((ANNA, "a2"))
    once(relay)
    assert box.right.texts == ["a1", "a2"]
    assert box.left.texts == []

    box.left.away = False
    once(relay)

    assert box.left.texts == ["a1", "a2"]
    assert box.waiting() == 0


def test_a_refused_event_holds_its_subject_and_nobody_elses(box):
    relay = box.relay()
    box.left.refused = {"a1": True}
    box.write((BORIS, "b1"), (ANNA, "a1"), (CLARA, "c1"), (ANNA, "a2"), (BORIS, "b2"))
    once(relay, 12)

    assert box.left.texts == ["b1", "c1", "b2"]
    assert box.right.texts == ["b1", "a1", "c1", "a2", "b2"]

    box.left.refused = {}
    box.time_passes()
    once(relay)
    assert box.left.texts == ["b1", "c1", "b2", "a1", "a2"]


def test_an_event_refused_again_and_again_is_kept_with_the_reason_and_frees_its_subject(box):
    relay = box.relay()
    box.left.refused = {"a1": True}
    box.write((ANNA, "a1"), (ANNA, "a2"))
    for _ in range(REFUSALS - 1):
        once(relay)
        box.time_passes()
    assert box.left.texts == []
    once(relay)

    assert box.left.texts == ["a2"]
    assert box.sql("SELECT reason, refusals, refused_at IS NOT NULL FROM outbox_deliveries") == [
        ("400 invalid_input: text: is not nice", REFUSALS, True)
    ]
    assert box.store.backlog()["left"] == Backlog(waiting=0, given_up=1, oldest=0.0)
    assert box.store.prune(0) == 1, "only a2 may go; a1 is kept to be looked at"

    box.left.refused = {}
    assert box.store.redeliver() == 1
    once(relay)
    assert box.left.texts == ["a2", "a1"]
    assert box.waiting() == 0


def test_what_is_kept_can_be_delivered_once_more_in_order_and_what_waits_anyway_is_not_doubled(box):
    relay, a = box.relay(), ANNA
    box.write((a, "a1"), (a, "a2"))
    once(relay)
    box.write((a, "a3"))
    box.store.spread({"left": None})
    box.write((a, "a4"))

    assert box.store.deliver_again({"left": None}) == 2
    once(relay)
    assert box.left.texts == ["a1", "a2", "a1", "a2", "a3", "a4"]
    assert box.right.texts == ["a1", "a2", "a4"]
    assert box.waiting() == 0


def test_an_event_that_makes_a_destination_crash_waits_for_it_to_be_mended(box):
    relay = box.relay()
    box.left.refused = {"a1": False}
    box.write((ANNA, "a1"), (BORIS, "b1"))
    for _ in range(REFUSALS + 3):
        once(relay)
        box.time_passes()
    assert box.left.texts == ["b1"]

    box.left.refused = {}
    once(relay)

    assert box.left.texts == ["b1", "a1"]


def test_an_acknowledgement_that_cannot_be_written_means_a_second_delivery_and_no_loss(box, monkeypatch):
    def away(*_: object) -> None:
        raise DatabaseUnavailable

    relay = box.relay()
    box.write((ANNA, "a1"))
    relay.run_once(relay._clock())
    with monkeypatch.context() as patch:
        patch.setattr(box.store, "acknowledge", away)
        relay.couriers[0].run_once(relay._clock())
    relay.couriers[0].run_once(relay._clock())

    assert box.left.texts == ["a1", "a1"]
    assert len({one.id for one in box.left.got}) == 1


def test_one_relay_is_active_and_another_takes_over_when_its_connection_is_gone(box):
    first, second = box.relay(), box.relay()
    for relay in (first, second):
        relay.run_once(relay._clock())
    assert (first.is_active, second.is_active) == (True, False)
    box.write((ANNA, "a1"))
    once(second)
    assert box.left.texts == []

    box.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_locks"
        " WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    eventually(lambda: (second.run_once(second._clock()), second.is_active)[1], what="the second is active")
    first.run_once(first._clock())
    once(second)

    assert not first.is_active
    assert box.left.texts == ["a1"]


def test_delivered_events_are_removed_after_their_time_and_waiting_ones_never(box):
    box.write((ANNA, "a1"))
    relay = box.relay(keep_seconds=0.0)
    once(relay)
    box.left.away = True
    box.write((ANNA, "a2"))
    once(box.relay(), 1)
    once(relay)

    assert box.store.prune(0) == 1
    assert box.sql("SELECT data ->> 'text' FROM outbox") == [("a2",)]
    assert box.store.prune(0) == 0


def test_ten_thousand_events_arrive_once_and_in_order_while_a_relay_dies_again_and_again(box):
    subjects = [uuid4() for _ in range(50)]
    for start in range(0, 10_000, 1000):
        box.write(*((subjects[n % 50], f"{n:05}") for n in range(start, start + 1000)))
    for _ in range(3):
        relay = box.relay(threads=True)
        relay.start()
        eventually(relay._active.is_set, what="active")
        # Its own: PostgreSQL may be cleaning up there, which only a superuser ends.
        box.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
        )
        relay.stop()
    relay = box.relay(threads=True)
    relay.start()
    eventually(lambda: box.waiting() == 0, timeout=60, what="everything is delivered")

    for destination in (box.left, box.right):
        by_subject: dict[UUID, list[str]] = defaultdict(list)
        for one in {each.id: each for each in destination.got}.values():
            by_subject[one.subject].append(one.data["text"])
        assert sum(len(texts) for texts in by_subject.values()) == 10_000
        assert all(texts == sorted(texts) for texts in by_subject.values())


# Over HTTP


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as server:
        yield server


TAKEN = {"processed": 1, "duplicates": 0, "ignored": 0}


def test_a_batch_is_posted_with_the_token_and_its_media_type(upstream):
    upstream.script(good(TAKEN))

    HttpDelivery("users", "orders", upstream.url, "a token of some length")([event(ANNA, "a1"), event(BORIS, "b1")])

    (seen,) = upstream.seen
    assert seen.line == b"POST /internal/events HTTP/1.1"
    assert seen.value("authorization") == "Bearer a token of some length"
    assert seen.value("content-type") == "application/cloudevents-batch+json"
    assert [one["data"]["text"] for one in json.loads(seen.body)] == ["a1", "b1"]
    assert {one["source"] for one in json.loads(seen.body)} == {"/siteworks/users"}


@pytest.mark.parametrize(("status", "final"), [(400, True), (409, True), (413, True), (415, True), (500, False)])
def test_answers_that_blame_the_event_are_refusals(upstream, status, final):
    upstream.script(bad(status, "some_code"))

    with pytest.raises(EventRefused, match=f"{status} some_code") as refused:
        HttpDelivery("users", "orders", upstream.url, "token")([event(ANNA, "a1")])
    assert refused.value.final is final


@pytest.mark.parametrize("status", [401, 403, 404, 405, 429, 502, 503, 504])
def test_every_other_answer_means_that_the_destination_is_away_and_no_event_is_to_blame(upstream, status):
    upstream.script(bad(status, "some_code"))

    with pytest.raises(Unavailable):
        HttpDelivery("users", "orders", upstream.url, "token")([event(ANNA, "a1")])


def test_nobody_listening_means_away():
    with pytest.raises(DestinationUnavailable):
        HttpDelivery("users", "orders", f"http://127.0.0.1:{free_port()}", "token")([event(ANNA, "a1")])


def test_a_post_on_a_connection_that_was_closed_meanwhile_is_sent_again_on_a_fresh_one(upstream):
    client = ServiceClient(
        upstream.url, circuit=Circuit("orders"), unavailable=DestinationUnavailable, pool_size=1, total_seconds=5.0
    )
    upstream.script(good(TAKEN))
    assert client.post("/internal/events", b"[]", {}).data == TAKEN
    upstream.drop_connections()
    assert client.post("/internal/events", b"[]", {}).data == TAKEN
    client.close()


def test_a_refusal_is_given_with_its_code_and_message(upstream):
    upstream.script(
        answer(400, b'{"success": false, "error": {"code": "invalid_input", "message": "data.id: must be a UUID"}}')
    )
    client = ServiceClient(
        upstream.url, circuit=Circuit("orders"), unavailable=DestinationUnavailable, pool_size=1, total_seconds=5.0
    )
    refused = client.post("/internal/events", b"[]", {})
    client.close()

    assert (refused.status, refused.code, refused.message) == (400, "invalid_input", "data.id: must be a UUID")


def test_deliveries_to_who_is_no_destination_any_more_wait_as_long_as_events_are_kept(box):
    box.right.away = True
    box.write((ANNA, "a1"))
    once(box.relay())
    box.relays[0].stop()

    once_active(box.relay(without="right"))
    box.write((BORIS, "b1"))
    once(box.relays[1])
    assert (box.left.texts, box.waiting()) == (["a1", "b1"], 1), "a1 waits for the right one, b1 does not"
    assert box.store.backlog()["right"][0] == 1

    box.relays[1].stop()
    box.right.away = False
    once_active(box.relay())
    assert (box.right.texts, box.waiting()) == (["a1"], 0)


def test_after_that_time_they_are_dropped_and_their_events_with_them(box, capsys):
    box.right.away = True
    box.write((ANNA, "a1"), (BORIS, "b1"))
    box.sql("UPDATE outbox SET time = now() - interval '8 days' WHERE subject = :id", id=ANNA)
    once(box.relay())
    box.relays[0].stop()
    registry = CollectorRegistry()
    metrics = RelayMetrics(registry)
    metrics.measured("users", box.store.backlog())

    once_active(box.relay(without="right", keep_seconds=7 * 86_400.0))

    assert box.sql("SELECT subject FROM outbox_deliveries") == [(BORIS,)]
    assert box.sql("SELECT subject FROM outbox") == [(BORIS,)]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "deliveries_dropped" in line]
    assert "destination=right" in line.replace("'", "")
    assert box.store.drop_others(["left"], 0.0) == {"right": 1}
    metrics.measured("users", box.store.backlog())
    right = {"service": "users", "destination": "right"}
    assert registry.get_sample_value("siteworks_relay_pending_events", right) == 0


def typed(type: str, text: str) -> Event:
    return Event(type=type, subject=ANNA, data={"text": text})


def add(box: Outbox, *events: Event) -> None:
    with box.database.transaction() as session:
        outbox.add_all(session, events)


def test_an_event_goes_to_who_hears_its_type_and_what_nobody_hears_is_done_at_once(box):
    add(box, typed("a", "a1"), typed("b", "b1"), typed("c", "c1"))

    once(box.relay(hears={"left": ["a", "b"], "right": ["b", "b"]}))

    assert (box.left.texts, box.right.texts) == (["a1", "b1"], ["b1"])
    assert box.waiting() == 0
    assert box.store.prune(0) == 3


def test_a_type_heard_later_is_delivered_from_then_on_and_what_is_kept_when_somebody_says_so(box):
    add(box, typed("a", "a1"), typed("b", "b1"))
    once(box.relay(hears={"left": ["a"]}))
    box.relays[0].stop()

    later = {"left": ["a"], "right": ["b"]}
    once_active(box.relay(hears=later))
    add(box, typed("b", "b2"))
    once(box.relays[1])
    assert (box.left.texts, box.right.texts) == (["a1"], ["b2"])

    assert box.store.deliver_again(later) == 3
    once(box.relays[1])
    assert (box.left.texts, box.right.texts) == (["a1", "a1"], ["b2", "b1", "b2"])
    assert box.waiting() == 0


def test_what_waits_for_who_hears_it_no_more_is_delivered_all_the_same_and_holds_up_nothing(box):
    add(box, typed("a", "a1"))
    box.store.spread({"left": None, "right": None})

    relay = box.relay(hears={}, threads=True)
    relay.start()

    eventually(lambda: box.waiting() == 0, what="both have acknowledged it")
    assert box.left.texts == box.right.texts == ["a1"]
    assert box.store.prune(0) == 1


def test_who_never_gets_an_event_costs_no_thread(box):
    relay = box.relay(hears={"left": ["a"], "right": ["b"]}, threads=True)
    relay.start()
    add(box, typed("a", "a1"))

    eventually(lambda: box.waiting() == 0 and box.left.texts == ["a1"])
    running = {thread.name for thread in threading.enumerate()}
    assert "courier from users to left" in running
    assert "courier from users to right" not in running


def test_a_service_without_an_outbox_has_its_memories_pruned_and_may_get_one_while_the_relay_runs(box, users_database):
    box.sql("INSERT INTO idempotency_keys (key, fingerprint, made, created_at)"
            " VALUES ('old', '', gen_random_uuid(), now() - interval '31 days')")  # fmt: skip
    for table in ("outbox", "outbox_deliveries"):
        users_database.administer(f"ALTER TABLE {table} RENAME TO {table}_away")
    relay = box.relay(threads=True)
    relay.start()
    eventually(lambda: box.sql("SELECT count(*) FROM idempotency_keys") == [(0,)], what="it is pruned")
    assert relay.is_active

    for table in ("outbox_deliveries", "outbox"):
        users_database.administer(f"ALTER TABLE {table}_away RENAME TO {table}")
    box.write((ANNA, "a1"))
    eventually(lambda: box.left.texts == ["a1"], what="it is delivered")
