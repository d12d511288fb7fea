"""The database layer on a real PostgreSQL: what the driver raises becomes one of our errors, once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from decimal import Decimal

import psycopg2
import pytest
from sqlalchemy import NullPool, bindparam, create_engine, make_url, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from servicekit.database import engine as database_module
from servicekit.database import watchdog
from servicekit.database.engine import Database, DatabaseTooSlow
from servicekit.database.statement import Statement, containing
from servicekit.observing.metrics import Metrics
from servicekit.web.app import make_app
from servicekit.wire import deadline
from servicekit.wire.errors import Conflict, DatabaseUnavailable, DeadlineExceeded
from tests.support.ports import free_port
from tests.support.postgres import TestServer
from tests.support.waiting import eventually
from tests.support.wire import Wire

GENEROUS = 4.0  # seconds within which a database that is away must have been noticed


class NameTaken(Conflict):
    """Another pump already has this name."""

    code = "name_taken"


class Base(DeclarativeBase):
    pass


class Pump(Base):
    __tablename__ = "pumps"

    name: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[dict] = mapped_column(JSONB)


@pytest.fixture
def make_database(empty_database):
    made: list[Database] = []

    def make(url: str = empty_database, **options) -> Database:
        given = {"application_name": "pumps", "pool_size": 2, "constraints": {"pumps_pkey": NameTaken}} | options
        made.append(Database(url, **given))
        return made[-1]

    yield make
    for database in made:
        database.dispose()


@pytest.fixture
def database(make_database):
    database = make_database()
    Base.metadata.create_all(database.engine)
    return database


def names(database: Database) -> list[str]:
    with database.transaction() as session:
        return list(session.scalars(text("SELECT name FROM pumps ORDER BY name")))


def is_connected(database: Database, pid: int) -> bool:
    with database.transaction() as session:
        return bool(session.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid}))


def add(database: Database, name: str, data: dict | None = None) -> None:
    with database.transaction() as session:
        session.add(Pump(name=name, data=data or {}))


def test_what_a_transaction_did_is_kept_when_it_ends_and_undone_when_it_raises(database):
    add(database, "kept")

    def fail_halfway() -> None:
        with database.transaction() as session:
            session.add(Pump(name="undone", data={}))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert names(database) == ["kept"]


def test_a_violated_constraint_is_its_domain_error(database):
    add(database, "one")
    with pytest.raises(NameTaken) as caught:
        add(database, "one")
    assert isinstance(caught.value.__cause__, IntegrityError)
    add(database, "two")
    assert names(database) == ["one", "two"]


def test_a_constraint_nobody_named_stays_a_fault_of_ours(database):
    with pytest.raises(IntegrityError), database.transaction() as session:
        session.execute(text("INSERT INTO pumps (name, data) VALUES ('x', NULL)"))


def test_a_wrong_statement_stays_a_fault_of_ours(database):
    with pytest.raises(ProgrammingError), database.transaction() as session:
        session.execute(text("SELECT * FROM no_such_table"))


def test_json_keeps_its_decimals_and_every_script(database):
    data = {"price": Decimal("52.00"), "name": "Насос 王 😀", "big": 10**30, "none": None}
    add(database, "one", data)
    with database.transaction() as session:
        read = session.get(Pump, "one").data
    assert read == data
    assert str(read["price"]) == "52.00"


def test_a_statement_over_its_time_is_too_slow_and_the_connection_is_used_again(make_database):
    database = make_database(statement_timeout_ms=500, pool_size=1)
    with pytest.raises(DatabaseTooSlow) as caught, database.transaction() as session:
        session.execute(text("SELECT pg_sleep(30)"))
    assert caught.value.code == "database_too_slow"
    database.ping()


def test_a_transaction_that_idles_too_long_is_ended_by_the_server(make_database):
    database = make_database(idle_in_transaction_timeout_ms=500)

    def idle() -> None:
        with database.transaction() as session:
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            eventually(lambda: not is_connected(database, pid), what="the idle backend is gone")
            session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable):
        idle()
    database.ping()


def test_connections_are_named_and_speak_utc(make_database):
    with make_database().transaction() as session:
        assert session.scalar(text("SELECT current_setting('application_name')")) == "pumps"
        assert session.scalar(text("SELECT current_setting('timezone')")) == "UTC"


def test_a_used_up_pool_is_a_503_after_a_short_wait_and_not_a_hanging_request(make_database, monkeypatch):
    monkeypatch.setattr(database_module, "POOL_WAIT_SECONDS", 0.1)
    database = make_database(pool_size=2)
    with database.transaction() as one, database.transaction() as two:
        one.execute(text("SELECT 1"))
        two.execute(text("SELECT 1"))
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="Too many requests wait for the database") as caught:
            database.ping()
        assert time.monotonic() - began < GENEROUS
        assert caught.value.headers == {"Retry-After": "1"}
    database.ping()


def test_a_request_waits_for_a_connection_no_longer_than_it_has_left(make_database, monkeypatch):
    monkeypatch.setattr(database_module, "POOL_WAIT_SECONDS", 60.0)
    database = make_database(pool_size=1)
    with database.transaction() as busy:
        busy.execute(text("SELECT 1"))
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded), deadline.within(0.2):
            database.ping()
        assert time.monotonic() - began < GENEROUS
        with pytest.raises(DeadlineExceeded), deadline.within(0):
            database.ping()
    with deadline.within(10):
        database.ping()


def test_whoever_waits_gets_the_connection_that_is_given_back(make_database):
    database = make_database(pool_size=1)
    done: list[str] = []

    def ask() -> None:
        with deadline.within(10):
            database.ping()
        done.append("asked")

    with database.transaction() as busy:
        busy.execute(text("SELECT 1"))
        waiting = threading.Thread(target=ask)
        waiting.start()
        done.append("gave it back")
    waiting.join(10)
    assert done == ["gave it back", "asked"]


def test_a_transaction_that_fails_gives_its_connection_back(make_database):
    database = make_database(pool_size=1)
    for _ in range(3):
        with pytest.raises(ProgrammingError), database.transaction() as session:
            session.execute(text("SELECT nothing FROM nowhere"))
    database.ping()


def test_a_server_that_refuses_is_noticed_soon(make_database):
    database = make_database(f"postgresql+psycopg2://u:secret@127.0.0.1:{free_port()}/d")
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable) as caught:
        database.ping()
    assert time.monotonic() - began < GENEROUS
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" not in caught.value.message


def test_a_wrong_password_is_not_told_to_the_caller(make_database, empty_database):
    database = make_database(empty_database.replace("postgres:", "nobody:", 1))
    with pytest.raises(DatabaseUnavailable) as caught:
        database.ping()
    assert caught.value.message == "The database is not available at the moment; try again."


EITHER_WAY = pytest.mark.parametrize(
    "ask", [Database.ping, lambda database: database.once("SELECT 1", {})], ids=["ping", "once"]
)


@EITHER_WAY
def test_a_connection_that_the_server_ended_is_replaced_before_it_is_used(database, empty_database, ask):
    ask(database)
    engine = create_engine(empty_database, poolclass=NullPool)
    with engine.connect() as connection:
        ended = connection.execute(
            text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'pumps'")
        ).all()
    assert ended
    ask(database)


def test_a_connection_that_breaks_in_a_transaction_is_unavailable_and_the_next_one_works(database, empty_database):
    engine = create_engine(empty_database, poolclass=NullPool)

    def lose_the_connection() -> None:
        with database.transaction() as session:
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            with engine.connect() as connection:
                connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
            session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable):
        lose_the_connection()
    database.ping()


@EITHER_WAY
def test_a_connection_that_breaks_with_a_word_of_the_server_unread_is_unavailable(
    make_database, empty_database, ask, monkeypatch
):
    url = make_url(empty_database)
    assert url.port
    with Wire(url.port) as wire:
        database = make_database(url.set(port=wire.port).render_as_string(hide_password=False), pool_size=1)
        database.once("LISTEN pumps", {})
        cuts = []
        in_time = database._in_time

        def cut(*arguments: object) -> str:
            # Just before the statement: whether the connection lives has been looked at by now.
            if not cuts:
                wire.cut_after(lambda: make_database().once("NOTIFY pumps", {}))
                cuts.append(True)
            return in_time(*arguments)

        monkeypatch.setattr(database, "_in_time", cut)
        with pytest.raises(DatabaseUnavailable):
            ask(database)
        assert cuts
        ask(database)


#: What a server says of itself, and not of the statement.
OF_THE_SERVER = {
    "08000": "connection exception",
    "08003": "connection does not exist",
    "08006": "connection failure",
    "25006": "read-only transaction",
    "53000": "insufficient resources",
    "53100": "disk full",
    "53200": "out of memory",
    "53300": "too many connections",
    "57P01": "shutdown",
    "57P02": "crash of another process",
    "57P03": "cannot connect now",
    "57P05": "idle too long",
}
SAY = "DO $$ BEGIN RAISE 'the server says so' USING ERRCODE = '{}'; END $$"


def in_a_transaction(database: Database, statement: str) -> None:
    with database.transaction() as session:
        session.execute(text(statement))


def at_the_commit(database: Database, statement: str) -> None:
    with database.transaction() as session:
        body = statement.removeprefix("DO $$").removesuffix("$$")
        session.execute(text(f"CREATE FUNCTION pg_temp.say() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"))
        session.execute(text("CREATE TEMPORARY TABLE said (x int)"))
        session.execute(
            text(
                "CREATE CONSTRAINT TRIGGER say AFTER INSERT ON said DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION pg_temp.say()"
            )
        )
        session.execute(text("INSERT INTO said VALUES (1)"))


def by_itself(database: Database, statement: str) -> None:
    database.once(statement, {})


WAYS = pytest.mark.parametrize("way", [in_a_transaction, at_the_commit, by_itself], ids=lambda way: way.__name__)


@WAYS
def test_what_the_server_says_of_itself_is_unavailable_and_the_next_connection_is_another(database, way):
    for sqlstate, meaning in OF_THE_SERVER.items():
        ((before,),) = database.once("SELECT pg_backend_pid()", {})
        with pytest.raises(DatabaseUnavailable) as raised:
            way(database, SAY.format(sqlstate))
        assert raised.value.headers == {"Retry-After": "1"}, meaning
        ((after,),) = database.once("SELECT pg_backend_pid()", {})
        assert after != before, meaning


@WAYS
def test_what_it_says_of_a_statement_stays_a_fault_of_ours_on_the_same_connection(database, way):
    ((before,),) = database.once("SELECT pg_backend_pid()", {})
    with pytest.raises((DBAPIError, psycopg2.Error)):
        way(database, SAY.format("22012"))
    assert database.once("SELECT pg_backend_pid()", {}) == [(before,)]


def test_connections_that_nobody_uses_leave_a_server_that_takes_no_writes_too(make_database):
    database = make_database(pool_size=3)
    with database.transaction() as one, database.transaction() as two:
        before = {session.scalar(text("SELECT pg_backend_pid()")) for session in (one, two)}
    with pytest.raises(DatabaseUnavailable):
        by_itself(database, SAY.format("25006"))
    with database.transaction() as one, database.transaction() as two:
        after = {session.scalar(text("SELECT pg_backend_pid()")) for session in (one, two)}
    assert not before & after


def test_a_database_that_turned_read_only_is_read_and_says_to_try_writes_again(database, postgres_server):
    add(database, "a")
    with postgres_server.read_only():
        for way in (in_a_transaction, by_itself):
            with pytest.raises(DatabaseUnavailable):
                way(database, "INSERT INTO pumps VALUES ('b', '{}')")
        assert database.once("SELECT name FROM pumps", {}) == [("a",)]
        database.ping()
        with pytest.raises(DatabaseUnavailable):
            database.ping(writing=True)
    database.ping(writing=True)
    add(database, "b")


def test_two_transactions_that_lock_each_other_out_end_with_a_try_again(database):
    add(database, "a")
    add(database, "b")
    both_hold_one = threading.Barrier(2)
    outcomes: list[str] = []

    def change(first: str, second: str) -> None:
        update = text("UPDATE pumps SET data = '{}' WHERE name = :name")
        try:
            with database.transaction() as session:
                session.execute(update, {"name": first})
                both_hold_one.wait(10)
                session.execute(update, {"name": second})
            outcomes.append("done")
        except DatabaseUnavailable:
            outcomes.append("unavailable")

    threads = [threading.Thread(target=change, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(outcomes) == ["done", "unavailable"]


def test_everything_heals_by_itself_when_the_server_was_restarted(tmp_path_factory):
    # A server of its own: no other test may find its database away.
    server = TestServer(tmp_path_factory.mktemp("restarted"))
    server.start()
    database = Database(server.url(server.create()), application_name="pumps", pool_size=2)
    app = make_app("pumps", routes=[], checks={"database": database.ping}, metrics=Metrics("pumps")).test_client()
    try:
        assert app.get("/readyz").status_code == 200

        server.stop()
        for _ in range(2):
            began = time.monotonic()
            answer = app.get("/readyz")
            assert time.monotonic() - began < GENEROUS
            assert answer.status_code == 503
            assert answer.json["error"]["code"] == "not_ready"
            assert [detail["field"] for detail in answer.json["error"]["details"]] == ["database"]
        assert app.get("/livez").status_code == 200

        server.start()
        assert app.get("/readyz").status_code == 200
    finally:
        database.dispose()
        server.stop()


def test_whoever_waits_for_a_silent_server_hears_that_it_is_unavailable(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(watchdog, "GRACE_SECONDS", 0.2)
    server = TestServer(tmp_path_factory.mktemp("silent"))
    server.start()
    database = Database(server.url(server.create()), application_name="pumps", pool_size=4, statement_timeout_ms=300)
    sent, silent = threading.Barrier(4), threading.Event()

    def asks() -> None:
        database.once("SELECT 1", {})
        sent.wait(10)
        assert silent.wait(10)
        database.once("SELECT 1", {})

    def asks_in_a_transaction() -> None:
        with database.transaction() as session:
            session.execute(text("SELECT 1"))
            sent.wait(10)
            assert silent.wait(10)
            session.execute(text("SELECT 1"))

    def commits() -> None:
        with database.transaction() as session:
            session.execute(text("SELECT 1"))
            sent.wait(10)
            assert silent.wait(10)

    outcomes: list[BaseException | None] = []

    def note(work: Callable[[], None]) -> None:
        try:
            work()
            outcomes.append(None)
        except DatabaseUnavailable as exc:
            outcomes.append(exc.__cause__)

    threads = [threading.Thread(target=note, args=[work]) for work in (asks, asks_in_a_transaction, commits)]
    try:
        for thread in threads:
            thread.start()
        sent.wait(10)
        with server.silent():
            silent.set()
            for thread in threads:
                thread.join(GENEROUS)
            assert len(outcomes) == 3, outcomes
        assert None not in outcomes
        # Also a connection that is checked before its use.
        database.once("SELECT 1", {})
        monkeypatch.setattr(database_module, "UNUSED_SECONDS", 0.0)
        with server.silent(), pytest.raises(DatabaseUnavailable):
            database.ping()
        database.once("SELECT 1", {})
    finally:
        database.dispose()
        server.stop()


def statement_timeout(database: Database) -> str:
    with database.transaction() as session:
        return str(session.scalar(text("SELECT current_setting('statement_timeout')")))


def test_a_statement_gets_no_more_time_than_the_request_has_left(database):
    database.ping()
    began = time.monotonic()
    with deadline.within(1), pytest.raises(DatabaseTooSlow), database.transaction() as session:
        session.execute(text("SELECT pg_sleep(20)"))

    assert time.monotonic() - began < GENEROUS
    assert statement_timeout(database) == "5s"


def test_every_statement_of_a_transaction_gets_what_is_left_by_then(database):
    database.ping()
    with deadline.within(5), database.transaction() as session:
        session.execute(text("SELECT pg_sleep(1)"))
        left = session.scalar(text("SELECT CAST(setting AS int) FROM pg_settings WHERE name = 'statement_timeout'"))

    assert 0 < left <= 4000


def test_work_whose_time_is_gone_is_not_sent_and_what_was_done_is_undone(database):
    def work() -> None:
        with database.transaction() as session:
            session.execute(text("INSERT INTO pumps VALUES ('late', '{}')"))
            with deadline.within(0):
                session.execute(text("SELECT 1"))

    with pytest.raises(DeadlineExceeded):
        work()
    assert names(database) == []


def test_more_time_than_usual_is_not_given(database):
    with deadline.within(60):
        assert statement_timeout(database) == "5s"
    with deadline.within(None):
        assert statement_timeout(database) == "5s"


def test_without_a_limit_of_its_own_the_deadline_still_counts(make_database):
    database = make_database(statement_timeout_ms=0)

    assert statement_timeout(database) == "0"
    with deadline.within(2):
        assert statement_timeout(database).endswith("ms")


def test_no_statement_is_compiled_whatever_the_server_does_otherwise(make_database, empty_database):
    engine = create_engine(empty_database, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"ALTER DATABASE {engine.url.database} SET jit = on"))
    with engine.connect() as connection:
        assert connection.scalar(text("SHOW jit")) == "on"

    with make_database().transaction() as session:
        assert session.scalar(text("SHOW jit")) == "off"


def test_everything_works_inside_a_deadline(database):
    with deadline.within(3):
        add(database, "one", {"percent": "100 %", "colon": ":x"})
        with database.transaction() as session:
            session.add_all([Pump(name=f"many {number}", data={}) for number in range(1500)])
        with database.transaction() as session:
            changed = session.execute(text("UPDATE pumps SET data = '{\"a\": 1}' WHERE name LIKE 'many%'"))
            assert changed.rowcount == 1500
        with pytest.raises(NameTaken):
            add(database, "one")
        assert len(names(database)) == 1501


def test_a_statement_by_itself_is_kept_and_gives_its_rows(database):
    assert database.once("INSERT INTO pumps VALUES (%(name)s, '{}') RETURNING name", {"name": "one"}) == [("one",)]
    assert database.once("UPDATE pumps SET name = %(name)s", {"name": "two"}) == []
    assert database.once("SELECT name FROM pumps", {}) == [("two",)]


def test_a_compiled_statement_keeps_its_constants_and_gives_rows_with_names(database):
    add(database, "100%_", {"price": Decimal("52.00")})
    add(database, "100%x")
    wanted = select(Pump.name, Pump.data).where(
        Pump.name.contains("%_", autoescape=True), Pump.name != bindparam("not")
    )
    statement = Statement(wanted)

    (row,) = database.rows(statement, {"not": "x"})
    assert (row.name, row.data) == ("100%_", {"price": Decimal("52.00")})
    assert database.rows(statement, {"not": "100%_"}) == []
    found = database.rows(
        Statement(select(Pump.name).where(Pump.name.like(bindparam("part"), escape="/"))), {"part": containing("%_")}
    )
    assert found == [("100%_",)]


def test_statements_of_one_message_are_one_transaction(database):
    with pytest.raises(NameTaken):
        database.once("INSERT INTO pumps VALUES ('a', '{}'); INSERT INTO pumps VALUES ('a', '{}')", {})

    assert database.once("SELECT count(*) FROM pumps", {}) == [(0,)]


def test_a_transaction_after_a_statement_by_itself_can_be_undone(database):
    database.once("SELECT 1", {})
    with database.transaction() as session:
        session.execute(text("INSERT INTO pumps VALUES ('a', '{}')"))
        session.rollback()

    assert database.once("SELECT count(*) FROM pumps", {}) == [(0,)]


def test_a_statement_by_itself_fails_as_in_a_transaction(make_database):
    database = make_database(statement_timeout_ms=500)
    with pytest.raises(DatabaseTooSlow):
        database.once("SELECT pg_sleep(10)", {})
    with pytest.raises(DatabaseUnavailable):
        database.once("SELECT pg_terminate_backend(pg_backend_pid())", {})
    assert database.once("SELECT 1", {}) == [(1,)]


@pytest.mark.parametrize("ask", [lambda one: one.once("SELECT 1", {}), Database.ping], ids=["once", "transaction"])
def test_a_server_that_dies_while_the_first_connection_asks_what_it_is_is_unavailable(
    make_database, empty_database, monkeypatch, ask
):
    database = make_database()
    dialect = database.engine.dialect
    initialize = dialect.initialize

    def initialize_when_it_has_died(connection):
        monkeypatch.undo()
        pid = connection.connection.dbapi_connection.info.backend_pid
        with create_engine(empty_database, poolclass=NullPool).connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        initialize(connection)

    monkeypatch.setattr(dialect, "initialize", initialize_when_it_has_died)
    with pytest.raises(DatabaseUnavailable):
        ask(database)
    ask(database)


def test_a_statement_by_itself_gets_no_more_time_than_the_request_has_left(database):
    database.ping()
    with deadline.within(1), pytest.raises(DatabaseTooSlow):
        database.once("SELECT pg_sleep(10)", {})
    assert database.once("SHOW statement_timeout", {}) == [("5s",)]


@EITHER_WAY
def test_a_connection_unused_for_long_is_asked_whether_it_works(database, monkeypatch, ask):
    pings = []
    ping = database.engine.dialect.do_ping
    monkeypatch.setattr(database.engine.dialect, "do_ping", lambda connection: pings.append(1) or ping(connection))
    ask(database)
    ask(database)
    assert pings == []

    monkeypatch.setattr(database_module, "UNUSED_SECONDS", 0.0)
    ask(database)
    assert pings == [1]


#: PostgreSQL quotes what was sent in each of these, in its message or below it.
QUOTING = {
    "a key that is there": "INSERT INTO secrets VALUES ('b@example.com', 1)",
    "a check": "INSERT INTO secrets VALUES ('b@example.com', 0)",
    "not a number": "SELECT CAST('b@example.com' AS integer)",
    "too large a number": "SELECT CAST('777888999777888999' AS integer)",
    "not JSON": "SELECT CAST('{\"b@example.com\"' AS jsonb)",
    "no such column": "SELECT b FROM (SELECT 'b@example.com' AS a) AS x",
}


@pytest.mark.parametrize("fault", QUOTING)
def test_a_failed_statement_tells_nothing_of_its_values(database: Database, fault: str) -> None:
    with database.transaction() as session:
        session.execute(text("CREATE TABLE secrets (a text PRIMARY KEY, b integer CHECK (b > 0))"))
        session.execute(text("INSERT INTO secrets VALUES ('b@example.com', 1)"))

    def in_a_transaction() -> None:
        with database.transaction() as session:
            session.connection().exec_driver_sql(QUOTING[fault])

    for run in (in_a_transaction, lambda: database.once(QUOTING[fault], {})):
        with pytest.raises((DBAPIError, psycopg2.Error)) as caught:
            run()
        # With its causes, as a log line of a crash has it; without the lines of this file, which hold the statement.
        chain = [caught.value, caught.value.__cause__, caught.value.__context__]
        told = " ".join(f"{one} {one!r}" for one in chain if one is not None).replace(QUOTING[fault], "")
        assert "b@example.com" not in told
        assert "777888999" not in told
        assert str(getattr(caught.value, "orig", caught.value).pgcode) in told
