"""What tests of every tier use: real servers, one pair for each test process, and a clean
environment. The servers end with the test process, also when it is killed."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from shared.connections import close_pools
from shared.event_counts import event_counts
from shared.message_flusher import _flushers
from shared.migrate import migrate
from shared.outbox import outbox
from shared.settings import Settings, get_settings
from tests.commands import eventstream, wait_until
from worker.cli.children import Child, spawn, stop
from worker.cli.embedded import free_port, wait_until_answering
from worker.cli.postgres_server import PROGRAMS_VARIABLE, PostgresServer
from worker.cli.redis_server import BINARY_VARIABLE, RedisServer

_PREFIX = "eventstream-test-"
_TEMPLATE = "migrated"
_STOP_SECONDS = 5
_FLUSH_SECONDS = 0.1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What may take longest begins first, and no process is left with it at the end."""
    items.sort(key=_seconds_allowed, reverse=True)


def _seconds_allowed(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else 0.0


class RunningRedis:
    """The session's Redis. A test that stops it starts it again, on the same port."""

    def __init__(self, folder: Path) -> None:
        self._appendfsync = "no"
        self._server = RedisServer(folder, secrets.token_hex(16), durable=False, spawn=self._spawn)
        self._server.launch()
        wait_until_answering(self._server)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def pid(self) -> int:
        return self._server.child.pid

    @property
    def running(self) -> bool:
        return self._server.child.running

    def start(self) -> None:
        """Starts it, if it isn't running, with what it held."""
        if not self.running:
            self._server.launch(same_port=True)
            wait_until_answering(self._server)

    def stop(self) -> None:
        """Stops it in good order."""
        stop([self._server.child], _STOP_SECONDS)

    def kill(self) -> None:
        """Ends it as a crash would."""
        self._server.child.kill()

    @contextmanager
    def syncing(self) -> Iterator[None]:
        """For the block, every write that it acknowledges is on disk, also after a restart."""
        self._sync("always")
        try:
            yield
        finally:
            self.start()
            self._sync("no")

    def _sync(self, appendfsync: str) -> None:
        self._appendfsync = appendfsync
        with redis.Redis.from_url(self.url) as client:
            client.config_set("appendfsync", appendfsync)

    def _spawn(self, name: str, command: Sequence[str | Path], **more: Any) -> Child:
        return spawn(name, [*command, "--appendfsync", self._appendfsync], **more)


class RunningPostgres:
    """The session's PostgreSQL."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def pid(self) -> int:
        return self._server.child.pid

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stops it for the block; it comes back on the same port."""
        stop([self._server.child], _STOP_SECONDS)
        try:
            yield
        finally:
            self._server.launch(same_port=True)
            wait_until_answering(self._server)

    def url_of(self, database: str) -> str:
        """The URL of one of its databases."""
        return self.url.rpartition("/")[0] + "/" + database


@pytest.fixture
def monkeypatch() -> Iterator[pytest.MonkeyPatch]:
    """pytest's own, whose variables count at once: a thread may have read the settings before."""
    patch = pytest.MonkeyPatch()
    set_variable = patch.setenv

    def setenv(name: str, value: str, prepend: str | None = None) -> None:
        set_variable(name, value, prepend)
        get_settings.cache_clear()

    patch.setenv = setenv  # type: ignore[method-assign]
    yield patch
    patch.undo()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keeps the settings of whoever runs the tests out of them, and the threads of others."""
    binaries = {BINARY_VARIABLE, PROGRAMS_VARIABLE}  # where things are, not how they behave
    settings = {name.upper() for name in Settings.model_fields}
    prefixes = ("EVENTSTREAM_", "CELERY_", "FLASK_", "UVICORN_", "FORCE_COLOR", "NO_COLOR")
    for name in list(os.environ):
        if name.upper() in settings or (name.startswith(prefixes) and name not in binaries):
            monkeypatch.delenv(name)
    get_settings.cache_clear()
    outbox.cache_clear()  # another test's may wait for a Redis that was away
    yield
    event_counts().forget()
    if flusher := _flushers.pop(os.getpid(), None):
        flusher.close(_FLUSH_SECONDS)
    get_settings.cache_clear()


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """Where this test process keeps its servers' data: in memory, where the machine has that."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    with ExitStack() as held:
        with _locked(place):  # one at a time, or a new folder would look abandoned
            _remove_abandoned(place)
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
            held.enter_context(_locked(folder))
        folder.chmod(0o711)  # PostgreSQL may run as another account
        yield folder
        shutil.rmtree(folder)


def _remove_abandoned(place: Path) -> None:
    """Removes what killed test processes left: folders whose lock nobody holds."""
    for folder in place.glob(f"{_PREFIX}*"):
        try:
            with _locked(folder, fcntl.LOCK_NB):
                shutil.rmtree(folder)
        except (BlockingIOError, FileNotFoundError, PermissionError):
            continue


@contextmanager
def _locked(folder: Path, mode: int = 0) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | mode)
        yield
    finally:
        os.close(descriptor)


@pytest.fixture(scope="session")
def redis_server(server_folder: Path) -> Iterator[RunningRedis]:
    """A Redis of this test process's own."""
    running = RunningRedis(server_folder)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def postgres_server(server_folder: Path) -> Iterator[RunningPostgres]:
    """A PostgreSQL of this test process's own, with a migrated database to copy."""
    server = PostgresServer(server_folder, secrets.token_hex(16), durable=False)
    server.launch()
    wait_until_answering(server)
    running = RunningPostgres(server)
    _execute(running.url, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
    migrate(running.url_of(_TEMPLATE))
    yield running
    stop([server.child], _STOP_SECONDS)


@pytest.fixture
def redis_url(redis_server: RunningRedis) -> str:
    """The URL of a real, empty Redis."""
    wait_until(lambda: _is_emptied(redis_server), "an empty Redis")
    return redis_server.url


@pytest.fixture
def client(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """A client of the empty Redis, which this process's settings name."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    with redis.Redis.from_url(redis_url) as client:
        yield client


def _is_emptied(server: RunningRedis) -> bool:
    """Starts and empties it; not yet, where the test before has just had it killed."""
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            return bool(client.flushall())
    except redis.ConnectionError:
        return False


@pytest.fixture
def database_url(postgres_server: RunningPostgres) -> Iterator[str]:
    """The URL of a real database that has every migration and no rows."""
    with _database(postgres_server) as url:
        yield url


@pytest.fixture(scope="module")
def shared_database_url(postgres_server: RunningPostgres) -> Iterator[str]:
    """The URL of a database that a module's tests share, since a server of theirs knows it."""
    with _database(postgres_server) as url:
        yield url


@contextmanager
def _database(postgres_server: RunningPostgres) -> Iterator[str]:
    name = sql.Identifier(f"test_{secrets.token_hex(8)}")
    template = sql.Identifier(_TEMPLATE)
    copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
    _execute(postgres_server.url, copy.format(name, template))
    yield postgres_server.url_of(name.as_string().strip('"'))
    close_pools()
    _execute(postgres_server.url, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@dataclass(frozen=True)
class DevStack:
    """A running `eventstream dev`."""

    url: str


@pytest.fixture(scope="session")
def dev_stack(server_folder: Path) -> Iterator[DevStack]:
    """The whole application as real processes, for tests that use it as a person would."""
    arguments = ("dev", "--data", str(server_folder / "stack"), "--port", str(free_port()))
    with eventstream(*arguments) as command:
        yield DevStack(command.wait_for("ready http://").removeprefix("ready "))


def _execute(url: str, statement: sql.Composed) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)
