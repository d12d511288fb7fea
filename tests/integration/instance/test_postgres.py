"""The embedded PostgreSQL, for real and as the user who runs the tests."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import psutil
import psycopg2
import pytest

from scripts.instance.credentials import Credentials
from scripts.instance.databases import create_databases
from scripts.instance.errors import ForeignFolder, OtherMajorVersion, StartFailed
from scripts.instance.identity import Identity, as_nobody
from scripts.instance.postgres import EmbeddedPostgres
from servicekit.process.services import services
from tests.support.ports import free_port
from tests.support.waiting import eventually

_FAST = {"fsync": "off"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    folder = tmp_path_factory.mktemp("a b 100% %s #1 ;x Объект")
    made = EmbeddedPostgres(folder / "postgres", free_port(), "super secret/@:%", settings=_FAST)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def credentials(server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    made = Credentials(tmp_path_factory.mktemp("secrets"))
    create_databases(server, made)
    return made


def _ask(
    server: EmbeddedPostgres, question: str, database: str = "postgres", role: str = "", password: str = ""
) -> str:
    url = server.url(database, role, password) if role else server.url(database)
    connection = psycopg2.connect(url.replace("+psycopg2", ""))
    try:
        with connection.cursor() as cursor:
            cursor.execute(question)
            return str(cursor.fetchone()[0])
    finally:
        connection.close()


def test_it_listens_on_loopback_alone_with_checksums_and_unicode(server: EmbeddedPostgres) -> None:
    assert server.running
    assert _ask(server, "SHOW listen_addresses") == "127.0.0.1"
    assert _ask(server, "SHOW unix_socket_directories") == ""
    assert _ask(server, "SHOW data_checksums") == "on"
    assert _ask(server, "SELECT lower('ÄБ')") == "äб"


def test_nobody_comes_in_without_the_password(server: EmbeddedPostgres) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(host="127.0.0.1", port=server.port, user="postgres", password="guess", dbname="postgres")


def test_both_roles_of_a_database_may_connect_to_no_other(server: EmbeddedPostgres, credentials: Credentials) -> None:
    for name, row in services().items():
        for role in (name, row.owner):
            assert _ask(server, "SELECT current_database()", name, role, credentials[role]) == name
            for other in {*services(), "postgres", "template1"} - {name}:
                with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
                    _ask(server, "SELECT 1", other, role, credentials[role])


def test_making_the_databases_again_changes_only_the_passwords(
    server: EmbeddedPostgres, credentials: Credentials, tmp_path: Path
) -> None:
    others = Credentials(tmp_path / "secrets")
    create_databases(server, others)
    assert _ask(server, "SELECT 1", "users", "users", others["users"]) == "1"
    create_databases(server, credentials)
    with pytest.raises(psycopg2.OperationalError):
        _ask(server, "SELECT 1", "users", "users", others["users"])


def test_a_missing_password_is_named(server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).resolve().parents[3] / "deploy" / "postgres" / "databases.sql"
    for name in services():
        monkeypatch.delenv(f"{name.upper()}_DATABASE_PASSWORD", raising=False)
    done = server.tool("psql", "-X", "-d", "postgres", "-v", "users_password=x", "-f", script)
    assert done.returncode != 0
    assert "no password for the role users_owner: set USERS_OWNER_DATABASE_PASSWORD" in done.stderr


def test_what_was_committed_survives_a_kill(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", free_port(), "secret")
    server.start()
    try:
        server.tool("psql", "-X", "-d", "postgres", "-c", "CREATE TABLE kept AS SELECT 42 AS answer")
        first = server.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        eventually(lambda: not server.running, what="the killed server is gone")
        server.stop()
        server.start()
        assert server.pid != first
        assert _ask(server, "SELECT answer FROM kept") == "42"
    finally:
        server.stop()
    assert not server.running


def test_a_pid_file_of_a_vanished_server_whose_number_lives_on_does_not_block_the_start(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", free_port(), "secret", settings=_FAST)
    server.initialise()
    # As after the restart of a container: the recorded number belongs to another program of the same user.
    (server.folder / "postmaster.pid").write_text(f"{os.getpid()}\n{server.folder}\n1\n{server.port}\n\n127.0.0.1\n")
    server.identity.own(server.folder / "postmaster.pid")
    server.start()
    assert server.running
    server.stop()


def test_an_interrupted_initdb_is_repeated(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", free_port(), "secret", settings=_FAST)
    (tmp_path / "postgres.new" / "base").mkdir(parents=True)
    server.initialise()
    assert server.initialised
    assert sorted(path.name for path in tmp_path.iterdir()) == ["postgres"]


def test_another_major_version_is_one_line_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(OtherMajorVersion) as refused:
        EmbeddedPostgres(tmp_path / "postgres", 1, "secret").start()
    told = str(refused.value)
    assert "made by PostgreSQL 17" in told
    assert "./scripts/backup in the checkout that made it" in told
    assert "./scripts/restore FILE --data" in told


def test_a_server_that_cannot_start_says_why(server: EmbeddedPostgres, tmp_path: Path) -> None:
    second = EmbeddedPostgres(tmp_path / "postgres", server.port, "secret", settings=_FAST)
    before = set(psutil.Process().children())
    with pytest.raises(StartFailed, match="could not create any TCP/IP sockets"):
        second.start()
    assert set(psutil.Process().children()) <= before


# An ordinary user runs PostgreSQL as it is; only root has to become somebody else for it.
if os.geteuid() == 0:

    class TestAsRoot:
        """Root runs PostgreSQL as somebody else."""

        def test_without_namespaces_it_runs_as_nobody_and_goes_on_as_nobody(self) -> None:
            with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to everybody else
                folder = Path(name)
                folder.chmod(0o711)
                nobody = as_nobody()
                first = EmbeddedPostgres(folder / "postgres", free_port(), "secret", settings=_FAST, identity=nobody)
                first.start()
                assert psutil.Process(first.pid).uids().real == nobody.uid
                first.stop()
                again = EmbeddedPostgres(folder / "postgres", free_port(), "secret", settings=_FAST)
                again.start()
                assert psutil.Process(again.pid).uids().real == nobody.uid
                again.stop()

        def test_a_folder_that_the_other_user_cannot_enter_is_named(self, tmp_path: Path) -> None:
            closed = tmp_path / "closed"
            closed.mkdir(mode=0o700)
            nobody = Identity(uid=as_nobody().uid, gid=as_nobody().gid, name="the user nobody")
            server = EmbeddedPostgres(closed / "postgres", 1, "secret", identity=nobody)
            with pytest.raises(ForeignFolder, match="runs as the user nobody, who cannot enter"):
                server.initialise()


def test_no_value_of_a_statement_reaches_the_log(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres", free_port(), "secret", settings=_FAST)
    server.start()
    try:
        _ask(
            server, "CREATE TABLE t (a text PRIMARY KEY, b int CHECK (b > 0)); INSERT INTO t VALUES ('k', 1); SELECT 1"
        )
        for failing in (
            "INSERT INTO t VALUES ('k', 7770001)",
            "INSERT INTO t VALUES ('7770002', 0)",
            "SELECT CAST('7770003' AS boolean)",
            "SELECT CAST('{7770004' AS jsonb)",
            "SELECT 7770005 7770006",
            "SET statement_timeout = 1; SELECT 7770007, pg_sleep(60)",
        ):
            with pytest.raises(psycopg2.Error):
                _ask(server, failing)
        # One of its processes crashes, and the server says what that was doing.
        crashing = "SELECT 7770008, pg_sleep(60)"
        crash = Thread(target=_kill_who_runs, args=(server, crashing))
        crash.start()
        with pytest.raises(psycopg2.OperationalError):
            _ask(server, crashing)
        crash.join()
        # A stop in the midst of its recovery may take a minute.
        eventually(server.accepts_connections, timeout=30, what="it to have recovered")
    finally:
        server.stop()
    log = server.log.read_text()
    assert "was terminated by signal 9" in log
    assert "777000" not in log


def _kill_who_runs(server: EmbeddedPostgres, statement: str) -> None:
    of_it = f"SELECT max(pid) FROM pg_stat_activity WHERE query = '{statement}'"
    os.kill(
        int(eventually(lambda: _ask(server, of_it).replace("None", ""), what="the statement to run")), signal.SIGKILL
    )
