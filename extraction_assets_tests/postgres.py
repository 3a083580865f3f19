"""A temporary PostgreSQL server for tests: real, local, with a password, gone afterwards."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

MISSING = (
    "PostgreSQL's server programs (initdb, postgres) are not on this machine: install Debian's or Ubuntu's package "
    "'postgresql', or put another installation's bin folder on the PATH"
)

_START_SECONDS = 60


class Server:
    """A running server. Its superuser is ``tester``; the password is random, so that a leak of it can be searched."""

    def __init__(self, folder: Path, port: int, password: str) -> None:
        self.folder, self.port, self.password = folder, port, password
        self._databases = 0

    def url(self, database: str, password: str | None = None) -> str:
        """A plain ``postgresql://`` URL, as people write it."""
        return f"postgresql://tester:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def by_socket(self, url: str) -> str:
        """The same database for a process in a network of its own, which reaches the server by a file."""
        database = url.rpartition("/")[2]
        return f"postgresql://tester:{self.password}@/{database}?host={self.folder}&port={self.port}"

    def new_database(self) -> str:
        """Makes an empty database; returns its URL."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Ends its connections and removes its 300 files: those of all tests at once would take minutes."""
        self.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Runs a statement of the superuser outside any transaction; returns its rows."""
        with self.connection(database) as connection:
            return rows_of(connection, statement)

    @contextlib.contextmanager
    def connection(self, database: str) -> Iterator[sa.Connection]:
        """A connection of the superuser outside any transaction."""
        engine = sa.create_engine(self.url(database).replace("postgresql:", "postgresql+psycopg2:"))
        try:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                yield connection
        finally:
            engine.dispose()


def rows_of(connection: sa.Connection, statement: str) -> list[tuple[Any, ...]]:
    """Runs a statement; returns its rows."""
    result = connection.execute(sa.text(statement))
    return [tuple(row) for row in result] if result.returns_rows else []


def find_programs() -> Path | None:
    """The folder with ``initdb`` and ``postgres``: on the PATH, where Debian puts it, or where pg_config says."""
    candidates = [Path(found).resolve().parent for name in ("initdb", "postgres") if (found := shutil.which(name))]
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(versions, key=lambda path: [int(n) for n in path.parent.name.split(".")], reverse=True)
    if config := shutil.which("pg_config"):
        done = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        candidates.append(Path(done.stdout.strip()))
    return next((path for path in candidates if (path / "initdb").is_file() and (path / "postgres").is_file()), None)


@contextlib.contextmanager
def running_server(programs: Path) -> Iterator[Server]:
    """A server with data of its own in a temporary folder; both are gone when the block ends."""
    # Not pytest's folder: the server's user cannot look into one of root's.
    folder = Path(tempfile.mkdtemp(prefix="extraction-assets-postgres-"))
    password = secrets.token_hex(16)
    try:
        _initialize(programs, folder, password)
        port = _free_port()
        process = _start(programs, folder, port)
        try:
            server = Server(folder, port, password)
            _wait(server, process)
            yield server
        finally:
            process.terminate()  # its "smart" end would wait for connections that a failed test left open
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2)
            if process.poll() is None:
                process.send_signal(3)  # SIGQUIT: at once
                process.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> dict[str, Any]:
    """initdb and postgres refuse to run as root: then they run as another user."""
    if os.geteuid() != 0:
        return {}
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    name = "postgres" if "postgres" in names else "nobody"
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


def _initialize(programs: Path, folder: Path, password: str) -> None:
    user = _user()
    secret = folder / "password"
    secret.write_text(password)
    if user:
        for path in (folder, secret):
            shutil.chown(path, user["user"])
    command = [programs / "initdb", "-D", folder / "data", "-U", "tester", "--encoding=UTF8", "--locale=C"]
    # Dagster opens a connection for every event, and SCRAM's 4,096 rounds would be most of what that costs.
    command += ["--auth=md5", f"--pwfile={secret}", "--no-sync"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **user)
    assert done.returncode == 0, done.stderr


def _start(programs: Path, folder: Path, port: int) -> "subprocess.Popen[bytes]":
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": str(folder),  # for processes without a network
        # A server that lives for some minutes survives no power cut; everything else is as people run it.
        "fsync": "off",
        "full_page_writes": "off",
        "max_wal_size": "4GB",
        "shared_buffers": "256MB",
        # As people far from Greenwich run it.
        "timezone": "Asia/Tokyo",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        command = [str(programs / "postgres"), "-D", str(folder / "data"), *options]
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **_user())


def _wait(server: Server, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            server.execute("SELECT 1")
            return
        except sa.exc.OperationalError:
            running = process.poll() is None and time.monotonic() < until
            assert running, f"the server did not start: {(server.folder / 'log').read_text()}"
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
