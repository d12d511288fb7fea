"""Tasks made inside a transaction of the caller's own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg2
import psycopg2.extras
import pytest
from pydantic import BaseModel
from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from service_tasks import client
from service_tasks.client import enqueue
from service_tasks.domain.task import State
from service_tasks.errors import PayloadTooLarge, UserDeleted
from service_tasks.persistence.wake_ups import PostgresWakeUps
from service_tasks.task_types.noop import noop
from servicekit.events.inbox import Inbox
from servicekit.identity.reach import Reach
from servicekit.wire.errors import IdempotencyKeyReused, Invalid
from tests.integration.service_tasks.test_callbacks import client as http_client
from tests.support.events import user_deleted
from tests.support.markdown import CHECKOUT, Document
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Settings of the test alone, read anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLBACK_HOSTS", "site.example.com")
    client._rules.cache_clear()
    yield
    client._rules.cache_clear()


@pytest.fixture
def engine(tasks_database):
    engine = create_engine(tasks_database.url)
    yield engine
    engine.dispose()


@pytest.fixture
def plain(tasks_database):
    """A connection of the driver's own, whose cursors give dictionaries."""
    url = tasks_database.url.replace("+psycopg2", "")
    connection = psycopg2.connect(url, cursor_factory=psycopg2.extras.RealDictCursor)
    yield connection
    connection.close()


@pytest.fixture
def kinds(engine, plain):
    """Each kind of connection, with what commits and what rolls back."""
    session, local = Session(engine), scoped_session(sessionmaker(engine))
    connection = engine.connect()
    yield [session, local, connection, plain]
    session.close()
    local.remove()
    connection.close()


def test_the_task_is_there_with_the_commit_and_never_was_without_it(bench, kinds):
    for connection in kinds:
        lost = enqueue(connection, "noop", {"lost": True}, idempotency_key="again", user_id=uuid4())
        connection.rollback()
        kept = enqueue(connection, "noop", {"kept": True}, idempotency_key="again", unique_key="one")
        assert isinstance(kept, UUID)
        assert bench.store.get(kept, reach=Reach.all()) is None
        connection.commit()

        assert bench.store.get(lost, reach=Reach.all()) is None
        task = bench.get(kept)
        assert (task.state, task.payload, task.unique_key) == (State.READY, '{"kept": true}', "one")
        bench.store.purge(kept, reach=Reach.all())
    assert bench.sql("SELECT count(*) FROM tasks") == [(0,)]


def test_every_field_is_kept(bench, engine):
    class Pour(BaseModel):
        metres: int

    user_id, later = uuid4(), datetime.now(UTC) + timedelta(hours=1)
    with Session(engine) as session, session.begin():
        full = enqueue(
            session,
            "pour",
            Pour(metres=7),
            title="Заливка",
            user_id=user_id,
            priority=0,
            max_attempts=7,
            timeout=60,
            execute_at=later,
            unique_key="one",
            callback_url="https://site.example.com/ended",
        )
        empty, null = enqueue(session), enqueue(session, payload=None)

    task = bench.get(full)
    assert (task.task_type, task.payload, task.title, task.user_id) == ("pour", '{"metres": 7}', "Заливка", user_id)
    assert (task.priority, task.max_attempts, task.timeout_seconds, task.execute_at) == (0, 7, 60.0, later)
    assert (task.state, task.unique_key, task.callback_url) == (
        State.SCHEDULED,
        "one",
        "https://site.example.com/ended",
    )
    assert (bench.get(empty).task_type, bench.get(empty).payload, bench.get(empty).max_attempts) == ("noop", "{}", 3)
    assert bench.get(null).payload == "null"


def test_workers_are_told_with_the_commit_unless_nobody_shall_be(bench, engine):
    wake_ups = PostgresWakeUps(bench.database)
    try:
        with Session(engine) as session:
            enqueue(session)
            assert wake_ups.wait(0) == []
            session.commit()
            assert wake_ups.wait(5) == ["ready"]

            enqueue(session, announce=False)
            session.commit()
            enqueue(session, execute_at=datetime.now(UTC) + timedelta(hours=1))
            session.commit()
            assert wake_ups.wait(5) == ["scheduled"]
    finally:
        wake_ups.close()


WAITING = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"""
REFUSED = [
    ({"task_type": ""}, "task_type", "must have at least 1 character"),
    ({"task_type": "callback"}, "task_type", "made by the service alone"),
    ({"task_type": "account_mail", "payload": {"id": str(uuid4())}}, "task_type", "made by the service alone"),
    ({"task_type": "io", "payload": {"seconds": "5"}}, "payload.seconds", "number"),
    ({"payload": {1, 2}}, "payload", "cannot be written as JSON"),
    ({"payload": float("nan")}, "payload", "cannot be written as JSON"),
    ({"payload": "a\0b"}, "payload", "U+0000"),
    ({"priority": 101}, "priority", "must be at most 100"),
    ({"priority": True}, "priority", "must be a whole number"),
    ({"user_id": "nobody"}, "user_id", "must be a UUID"),
    ({"execute_at": datetime(2099, 1, 1)}, "execute_at", "cannot be written as JSON"),
    ({"execute_at": datetime(2020, 1, 1, tzinfo=UTC)}, "execute_at", "must be in the future"),
    ({"callback_url": "https://other.example.com/"}, "callback_url", "CALLBACK_HOSTS does not name"),
    ({"idempotency_key": "two words"}, "idempotency_key", "without spaces"),
]


def test_what_is_wrong_is_named_as_over_http_and_the_transaction_goes_on(bench, engine):
    with Session(engine) as session, session.begin():
        for arguments, field, said in REFUSED:
            with pytest.raises(Invalid) as refused:
                enqueue(session, **arguments)
            assert [detail.field for detail in refused.value.details] == [field], arguments
            assert said in refused.value.details[0].message, arguments
        with pytest.raises(PayloadTooLarge):
            enqueue(session, payload="x" * 262_144)
        kept = enqueue(session)

    assert bench.sql("SELECT id FROM tasks") == [(kept,)]


def test_a_key_means_here_what_it_means_over_http(bench, engine, plain, tasks_database):
    ask = http_client(tasks_database, "")
    over_http = ask("POST", "/tasks", {"title": "one"}, headers={"Idempotency-Key": "k"}, status=201)["id"]

    for connection in (Session(engine), plain):
        assert str(enqueue(connection, title="one", idempotency_key="k")) == over_http
        with pytest.raises(IdempotencyKeyReused):
            enqueue(connection, title="two", idempotency_key="k")
        first = enqueue(connection, unique_key="crane")
        assert enqueue(connection, "io", unique_key="crane") == first
        connection.rollback()
        connection.close()

    assert bench.sql("SELECT count(*) FROM tasks") == [(1,)]


def test_of_two_transactions_with_one_key_the_second_waits_for_the_first(bench, engine):
    found: list[UUID] = []

    def second() -> None:
        with Session(engine) as session, session.begin():
            found.append(enqueue(session, unique_key="crane"))

    with Session(engine) as session:
        first = enqueue(session, unique_key="crane")
        thread = threading.Thread(target=second)
        thread.start()
        eventually(lambda: bench.sql(WAITING)[0][0] == 1, what="the second to wait for the first")
        session.commit()
    thread.join(10)

    assert found == [first]


def test_a_task_for_a_deleted_user_is_refused(bench, engine, plain):
    user_id = uuid4()
    Inbox(bench.database, {"user.deleted": bench.user_deleted}).take([user_deleted(user_id)])

    with Session(engine) as session:
        for connection in (session, plain):
            with pytest.raises(UserDeleted):
                enqueue(connection, user_id=user_id)


def test_the_rights_on_the_page_are_enough(tasks_database):
    role = f"program_{uuid4().hex}"
    tasks_database.administer(
        f"CREATE ROLE {role} LOGIN PASSWORD '{role}'; GRANT USAGE ON SCHEMA public TO {role};"
        f" GRANT SELECT, INSERT ON tasks TO {role}; GRANT SELECT ON tombstones TO {role}"
    )
    engine = create_engine(make_url(tasks_database.url).set(username=role, password=role), poolclass=NullPool)
    try:
        with Session(engine) as session, session.begin():
            later = datetime.now(UTC) + timedelta(hours=1)
            keys = {"unique_key": "one", "idempotency_key": "one"}
            first, second = (enqueue(session, user_id=uuid4(), execute_at=later, unique_key="u") for _ in range(2))
            assert first == second
            assert enqueue(session, **keys) == enqueue(session, **keys)
    finally:
        tasks_database.administer(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_connection_that_will_not_do_is_refused(engine, plain):
    plain.autocommit = True
    with pytest.raises(ValueError, match="autocommit"):
        enqueue(plain)
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(ValueError, match="autocommit"),
    ):
        enqueue(connection)
    with pytest.raises(TypeError, match="psycopg2"):
        enqueue(engine)


def test_the_example_on_the_page_works(bench, start_worker, tasks_database, tmp_path):
    blocks = {block.language: block.text for block in Document(CHECKOUT / "docs" / "enqueueing.md").blocks}
    tasks_database.administer(blocks["sql"])
    own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", blocks["python"]],
        cwd=tmp_path,
        env={**own, "PYTHONPATH": str(CHECKOUT), "TASKS_DATABASE_URL": tasks_database.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    task = bench.get(UUID(done.stdout.strip()))
    assert (task.title, task.unique_key, task.state) == ("Order concrete", "concrete for North", State.READY)
    assert bench.sql("SELECT * FROM pours") == [("North", 7)]


def test_a_worker_runs_what_was_made_here(bench, start_worker, engine):
    start_worker(noop, poll_seconds=20.0)
    with engine.begin() as connection:
        task_id = enqueue(connection)
        connection.execute(text("SELECT 1"))

    bench.wait_for(task_id, State.COMPLETED)
