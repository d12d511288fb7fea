"""PostgreSQL through SQLAlchemy: a bounded pool, time limits, and driver errors translated once."""

from __future__ import annotations

import math
import select
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import psycopg2
from psycopg2.errors import FeatureNotSupported, InvalidSqlStatementName, LockNotAvailable, QueryCanceled
from psycopg2.extras import NamedTupleCursor
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine, ExceptionContext, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from servicekit.database.places import FairPlaces
from servicekit.database.statement import Statement
from servicekit.database.watchdog import Watchdog
from servicekit.wire import deadline
from servicekit.wire.envelope import dump
from servicekit.wire.errors import AppError, DatabaseLocked, DatabaseUnavailable, DeadlineExceeded
from servicekit.wire.json_reader import read_stored

POOL_WAIT_SECONDS = 2.0
#: for whatever serves requests
LOCK_TIMEOUT_MS = 500
CONNECT_TIMEOUT_SECONDS = 3
RECYCLE_SECONDS = 1800
#: A connection idle for longer is checked before use; `once` keeps one for so long before the pool sees it again.
UNUSED_SECONDS = 30.0
TCP_USER_TIMEOUT_MS = 10_000
#: SQLSTATEs, or their prefixes, by which a server says that it is shutting down, out of resources, or takes no writes:
#: connection exceptions, read-only transactions, insufficient resources, shutdown (PostgreSQL's appendix A).
_OF_THE_SERVER = ("08", "25006", "53", "57P")
_LEAVE_SECONDS = 1.0
#: One for the process: few of its databases fall silent at a time.
_WATCHDOG = Watchdog()


def is_unavailable(exc: BaseException | None) -> bool:
    """Whether a psycopg2 error is about the server or the way to it, rather than a statement.

    That includes statements refused by a read-only server. One kind looks like neither: a connection reset while a
    message of the server lies unread (the warning that another of its processes crashed, a notification) fails with a
    plain `DatabaseError`, and psycopg2 does not mark it closed. Every refusal of a statement has an SQLSTATE; this has
    none.
    """
    if isinstance(exc, psycopg2.OperationalError | psycopg2.InterfaceError) or _is_of_the_server(exc):
        return True
    return type(exc) is psycopg2.DatabaseError and exc.pgcode is None


def _is_of_the_server(exc: BaseException | None) -> bool:
    """Whether the server reports its own state: a new connection may reach another, which took its place."""
    return isinstance(exc, psycopg2.Error) and exc.pgcode is not None and exc.pgcode.startswith(_OF_THE_SERVER)


def without_values(exc: psycopg2.Error) -> None:
    """Remove the statement's values that PostgreSQL quotes in an error's text, which may reach a log.

    It keeps the SQLSTATE, the constraint, and the message unless that is about a value (class 22).
    """
    if exc.pgcode is not None:
        message = "a value was refused" if exc.pgcode.startswith("22") else exc.diag.message_primary
        names = [name for name in (exc.diag.table_name, exc.diag.column_name, exc.diag.constraint_name) if name]
        exc.args = (f"{exc.pgcode}: {message}" + (f" ({', '.join(names)})" if names else ""),)


class DatabaseTooSlow(DeadlineExceeded):
    """The database took too long for this request.

    A statement met its time limit: see the database's slow statements.
    """

    code = "database_too_slow"


class Prepared(NamedTuple):
    """A statement for `Database.once` that each connection plans once. `preparation` and `execution` are SQL."""

    name: str
    preparation: str
    execution: str

    @classmethod
    def of(cls, name: str, statement: str, **types: str) -> Prepared:
        """A statement that is planned for any values; `types` has the type of each parameter."""
        numbers = {one: f"${number}" for number, one in enumerate(types, 1)}
        return cls(
            name,
            "SET plan_cache_mode = force_generic_plan;"
            f" PREPARE {name}({', '.join(types.values())}) AS {statement % numbers}",
            f"EXECUTE {name}({', '.join(f'%({one})s' for one in types)})",
        )


class Database:
    """The database of one service.

    `pool_size` limits the open connections: set it to the number of threads that may want one at once. `constraints`
    maps a constraint's name to the error that a violation raises. It connects on first use, not on creation.

    `lock_timeout_ms` is how long a statement may wait for a lock (0: no limit). Keep it short when serving requests,
    lest a single locked row occupy every thread.

    Within a request's deadline (servicekit.wire.deadline), waiting for a connection and each statement are limited to
    the time left; with none left, nothing is sent and DeadlineExceeded is raised.
    """

    def __init__(
        self,
        url: str,
        *,
        application_name: str,
        pool_size: int,
        constraints: Mapping[str, type[AppError]] | None = None,
        statement_timeout_ms: int = 5_000,
        lock_timeout_ms: int = 0,
        idle_in_transaction_timeout_ms: int = 10_000,
    ) -> None:
        self._constraints = dict(constraints or {})
        self.engine: Engine = create_engine(
            make_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_WAIT_SECONDS,
            pool_recycle=RECYCLE_SECONDS,
            pool_use_lifo=True,
            hide_parameters=True,
            json_serializer=lambda value: dump(value).decode("utf-8"),
            json_deserializer=read_stored,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                "application_name": application_name,
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
                # A server whose host vanished acknowledges nothing; without this the kernel retries for 15 minutes.
                "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
                "options": " ".join(
                    (
                        f"-c statement_timeout={statement_timeout_ms}",
                        f"-c lock_timeout={lock_timeout_ms}",
                        f"-c idle_in_transaction_session_timeout={idle_in_transaction_timeout_ms}",
                        "-c timezone=UTC",
                        # Statements are many and short: compiling one takes far longer than running it.
                        "-c jit=off",
                    )
                ),
            },
        )
        # The pool's own wait ignores the deadline, so the wait is here: a place is a connection of the pool.
        self._places = FairPlaces(pool_size)
        #: Connections between two uses by `once`, in autocommit, with the times when they left the pool and were last
        #: used. To fetch one from the pool takes as much of a processor as to ask the server.
        self._kept: deque[tuple[Any, float, float]] = deque()
        self._wait_seconds = POOL_WAIT_SECONDS
        self._statement_seconds = statement_timeout_ms / 1000 or math.inf
        event.listen(self.engine, "before_cursor_execute", self._before_execute, retval=True)
        event.listen(self.engine, "after_cursor_execute", _after_execute)
        event.listen(self.engine, "commit", self._before_end)
        event.listen(self.engine, "rollback", self._before_end)
        self._left_at = -math.inf
        event.listen(self.engine, "handle_error", self._handle_error)
        event.listen(self.engine, "checkin", _note_use)
        event.listen(self.engine, "invalidate", _note_end)
        event.listen(self.engine, "checkout", self._require_life)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    def _before_execute(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> tuple[str, Any]:
        return self._in_time(cursor.connection, statement), parameters

    def _before_end(self, connection: Any) -> None:
        if not (connection.closed or connection.invalidated):
            _WATCHDOG.expect(connection.connection.dbapi_connection, self._statement_seconds)

    def _in_time(self, connection: Any, statement: str, within: float = math.inf) -> str:
        """Prefix a statement with the time left, or that it may take, if that is less than usual, and expect its answer
        before the time is up.

        Both travel in one message, so it costs no round trip; PostgreSQL times each separately, and drops the setting
        at the end of the transaction.
        """
        left = deadline.remaining(self._statement_seconds)
        _WATCHDOG.expect(connection, left)
        left = min(left, within)
        if left < self._statement_seconds:
            return f"SET LOCAL statement_timeout = {max(int(left * 1000), 1)}; {statement}"
        return statement

    def _require_life(self, connection: Any, record: Any, proxy: Any) -> None:
        """Make the pool replace a connection that has ended, and all its others.

        Checking each time would cost a round trip. A server that ends a connection says so, which the kernel notes, so
        only a connection with unread bytes, or one idle for a while, is checked.
        """
        if connection.autocommit:
            connection.autocommit = False
        used_at = record.info.get("used_at")
        if used_at is None or (time.monotonic() - used_at < UNUSED_SECONDS and _is_quiet(connection)):
            return
        _WATCHDOG.expect(connection, self._statement_seconds)
        try:
            alive = self.engine.dialect.do_ping(connection)
        except psycopg2.Error as exc:
            raise InvalidatePoolError from exc
        finally:
            _WATCHDOG.answered(connection)
        if not alive:
            raise InvalidatePoolError

    def _handle_error(self, context: ExceptionContext) -> None:
        _take_values_out(context)
        if _is_of_the_server(context.original_exception):
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = False
            self._leave_server()

    def _leave_server(self) -> None:
        """Close the pool's connections, but not for each of many failures: connecting costs the server, too."""
        now = time.monotonic()
        if now - self._left_at >= _LEAVE_SECONDS:
            self._left_at = now
            self.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Run the body in one transaction: committed at its end, rolled back if it raises.

        Raises the domain error of a violated constraint, `DatabaseTooSlow` when a statement exceeded its time limit,
        `DatabaseLocked` when waiting for a lock did, `DatabaseUnavailable` when no connection is available, it broke,
        or the server takes no writes, and `DeadlineExceeded` when the request's time ended before it had a connection.
        """
        try:
            with self._place():
                self._return_one()
                with self._sessions.begin() as session:
                    yield session
        except IntegrityError as exc:
            if named := self._named(exc.orig):
                raise named from exc
            raise
        except PoolTimeoutError as exc:
            raise DatabaseUnavailable("Too many requests wait for the database.", retry_after=1) from exc
        except DBAPIError as exc:
            if isinstance(exc.orig, QueryCanceled):
                raise DatabaseTooSlow from exc
            if isinstance(exc.orig, LockNotAvailable):
                raise DatabaseLocked from exc
            if exc.connection_invalidated or is_unavailable(exc.orig):
                raise DatabaseUnavailable(retry_after=1) from exc
            raise

    def rows(
        self,
        statement: Statement,
        values: Mapping[str, Any],
        *,
        prepared: Prepared | None = None,
        within: float = math.inf,
    ) -> list[Any]:
        """Run a compiled statement by itself, as `once` does, and return its rows as named tuples. One that a
        connection has planned no longer is planned again."""
        parameters = statement.parameters(values)
        if prepared is not None:
            try:
                return statement.named(self.once(statement.text, parameters, prepared=prepared))
            except (DatabaseUnavailable, FeatureNotSupported) as exc:
                if not isinstance(exc.__cause__ or exc, InvalidSqlStatementName | FeatureNotSupported):
                    raise
        return statement.named(self.once(statement.text, parameters, within=within))

    def once(
        self,
        statement: str,
        parameters: Mapping[str, Any],
        *,
        with_names: bool = False,
        prepared: Prepared | None = None,
        within: float = math.inf,
    ) -> list[Any]:
        """Run statements in one message, which form a transaction of their own, and return the rows of the last, as
        tuples, or as named tuples.

        With `prepared`, a connection plans it the first time, and from then on runs its execution instead; that may
        raise InvalidSqlStatementName or FeatureNotSupported where a pooler or a migration has changed what it knows.
        This takes one round trip, where `transaction` takes two more for BEGIN and COMMIT, and a fifth of its CPU time.
        Raises as `transaction` does; `DatabaseTooSlow` if a statement takes longer than `within`, in seconds.
        """
        self._take_place()
        try:
            pooled, since = self._take()
            connection = pooled.dbapi_connection
            try:
                if prepared is not None:
                    return self._once_prepared(pooled, statement, parameters, prepared)
                with connection.cursor(cursor_factory=NamedTupleCursor if with_names else None) as cursor:
                    cursor.execute(self._in_time(connection, statement, within), parameters)
                    return cursor.fetchall() if cursor.description is not None else []
            except psycopg2.Error as exc:
                if _is_of_the_server(exc):
                    # First, lest the watchdog shuts whatever has this descriptor next.
                    _WATCHDOG.answered(connection)
                    connection.close()
                    self._leave_server()
                raise
            finally:
                _WATCHDOG.answered(connection)
                if connection.closed or since <= self._left_at:
                    pooled.invalidate()
                    pooled.close()
                else:
                    self._kept.append((pooled, since, time.monotonic()))
        except PoolTimeoutError as exc:
            raise DatabaseUnavailable("Too many requests wait for the database.", retry_after=1) from exc
        except psycopg2.IntegrityError as exc:
            if named := self._named(exc):
                raise named from exc
            without_values(exc)
            raise
        except QueryCanceled as exc:
            raise DatabaseTooSlow from exc
        except LockNotAvailable as exc:
            raise DatabaseLocked from exc
        except psycopg2.Error as exc:
            if is_unavailable(exc):
                raise DatabaseUnavailable(retry_after=1) from exc
            without_values(exc)
            raise
        except DBAPIError as exc:
            # SQLAlchemy asks the first of all connections what server this is.
            if is_unavailable(exc.orig):
                raise DatabaseUnavailable(retry_after=1) from exc
            raise
        finally:
            self._places.give_back()

    def _take(self) -> tuple[Any, float]:
        """A connection in autocommit, and when it left the pool."""
        now = time.monotonic()
        with suppress(IndexError):
            kept = self._kept.pop()
            pooled, since, _ = kept
            if now - since < UNUSED_SECONDS and _is_quiet(pooled.dbapi_connection):
                return pooled, since
            self._return(kept)
            # What happened to one may have happened to all.
            while self._kept:
                self._return(self._kept.pop())
        pooled = self.engine.raw_connection()
        connection: Any = pooled.dbapi_connection
        connection.autocommit = True
        return pooled, now

    def _return(self, kept: tuple[Any, float, float]) -> None:
        pooled, _, used_at = kept
        pooled.info["used_at"] = used_at
        pooled.close()

    def _return_one(self) -> None:
        """Return a kept connection to the pool, so that there is one for a place that was just taken."""
        with suppress(IndexError):
            self._return(self._kept.pop())

    def _once_prepared(
        self, pooled: Any, statement: str, parameters: Mapping[str, Any], prepared: Prepared
    ) -> list[tuple[Any, ...]]:
        known: set[str] = pooled.info.setdefault("prepared", set())
        with pooled.dbapi_connection.cursor() as cursor:
            if prepared.name in known:
                try:
                    cursor.execute(self._in_time(pooled.dbapi_connection, prepared.execution), parameters)
                except InvalidSqlStatementName:
                    known.discard(prepared.name)
                    raise
                except FeatureNotSupported:
                    known.discard(prepared.name)
                    cursor.execute(f"DEALLOCATE {prepared.name}")
                    raise
                rows: list[tuple[Any, ...]] = cursor.fetchall()
                return rows
            cursor.execute(self._in_time(pooled.dbapi_connection, statement), parameters)
            rows = cursor.fetchall()
            # By itself, and after the statement: a locked table must not fail a connection that is asked for another.
            with suppress(psycopg2.Error):
                cursor.execute(prepared.preparation)
                known.add(prepared.name)
            return rows

    def _named(self, exc: BaseException | None) -> AppError | None:
        """The domain error of the violated constraint, if it has one."""
        error = self._constraints.get(getattr(getattr(exc, "diag", None), "constraint_name", None) or "")
        return None if error is None else error()

    @contextmanager
    def _place(self) -> Iterator[None]:
        self._take_place()
        try:
            yield
        finally:
            self._places.give_back()

    def _take_place(self) -> None:
        """Wait for a free connection, no longer than the request has left."""
        wait = deadline.remaining(self._wait_seconds)
        if not self._places.take(wait):
            deadline.remaining(wait)  # raises if it was the request's time that ran out
            raise DatabaseUnavailable("Too many requests wait for the database.", retry_after=1)

    def ping(self, *, writing: bool = False) -> None:
        """Raise `DatabaseUnavailable` when the database does not answer or, with `writing`, takes no writes."""
        with self.transaction() as session:
            if session.scalar(text("SELECT current_setting('transaction_read_only')")) == "on" and writing:
                session.invalidate()
                raise DatabaseUnavailable("The database takes no writes at the moment.", retry_after=1)

    def dispose(self) -> None:
        """Close every idle connection."""
        with suppress(IndexError):
            while True:
                pooled = self._kept.pop()[0]
                pooled.invalidate()
                pooled.close()
        self.engine.dispose()

    def dedicated_connection(self) -> Any:
        """A new connection of psycopg2's that is not the pool's; its user closes it."""
        self._return_one()
        pooled = self.engine.raw_connection()
        connection = pooled.dbapi_connection
        pooled.detach()
        return connection


def _take_values_out(context: ExceptionContext) -> None:
    given, wrapped = context.original_exception, context.sqlalchemy_exception
    if isinstance(given, psycopg2.Error) and wrapped is not None:
        without_values(given)
        wrapped.args = (f"({type(given).__name__}) {given}",)


def _after_execute(connection: Any, cursor: Any, *_: Any) -> None:
    _WATCHDOG.answered(cursor.connection)


def _note_end(connection: Any, *_: Any) -> None:
    _WATCHDOG.answered(connection)


def _note_use(connection: Any, record: Any) -> None:
    _WATCHDOG.answered(connection)
    # One that `once` kept comes with its time.
    if connection is not None and not connection.autocommit:
        record.info["used_at"] = time.monotonic()


def _is_quiet(connection: Any) -> bool:
    """Whether nothing unsolicited has arrived: the end of the connection, or a message of the server."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLPRI | select.POLLRDHUP)
    return not poll.poll(0)
