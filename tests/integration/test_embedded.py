"""The embedded servers: found, started under a usable account, durable, gone with their owner."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from tests.commands import alive, wait_until
from worker.cli import redis_server
from worker.cli.children import ChildFailed, stop
from worker.cli.embedded import Server, lost_its_port, wait_until_answering
from worker.cli.postgres_account import others_may_enter
from worker.cli.postgres_server import PROGRAMS_VARIABLE, PostgresServer, find_postgres
from worker.cli.redis_server import BINARY_VARIABLE, RedisMissing, RedisServer, find_redis

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="another account is needed only by root")


@pytest.fixture
def folder(server_folder: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that every account may pass through, with a path too long for a Unix socket."""
    path = server_folder / f"{request.node.name[:40]}-{'long' * 30}"
    path.mkdir()
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@contextmanager
def running(server: Server) -> Iterator[None]:
    server.launch()
    try:
        wait_until_answering(server)
        yield
    finally:
        stop([server.child], 5)


def test_the_fixtures_give_an_empty_redis_and_a_migrated_database(
    redis_url: str, database_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM schema_migrations").fetchone() is not None


def test_redis_keeps_what_it_acknowledged_when_it_is_killed(folder: Path) -> None:
    server = RedisServer(folder, "secret")
    with running(server), redis.Redis.from_url(server.url) as client:
        for n in range(1000):
            client.rpush("list", n)
        server.child.kill()
    with running(server), redis.Redis.from_url(server.url) as client:
        assert client.llen("list") == 1000


def test_redis_takes_no_one_without_the_password(folder: Path) -> None:
    server = RedisServer(folder, "secret")
    with (
        running(server),
        redis.Redis.from_url(server.url.replace("secret", "guess")) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
    assert stat.S_IMODE((folder / "redis.conf").stat().st_mode) == 0o600


def test_postgres_keeps_what_was_committed_when_it_is_killed(folder: Path) -> None:
    server = PostgresServer(folder, "secret")
    with running(server):
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        server.child.kill()
    with running(server), psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (1,)


@pytest.mark.parametrize("owner", ["of somebody else", "of nobody"])
def test_a_stale_postmaster_pid_is_no_obstacle(folder: Path, owner: str) -> None:
    """In a container a dead server's process id is soon another process's."""
    server = PostgresServer(folder, "secret")
    with running(server):
        pass
    pid = os.getpid() if owner == "of somebody else" else 2**22 + 1
    (folder / "pg" / "postmaster.pid").write_text(f"{pid}\n{folder / 'pg'}\n")
    with running(server):
        assert server.child.running


def test_a_second_postgres_on_a_live_cluster_is_refused(folder: Path) -> None:
    first = PostgresServer(folder, "secret")
    with running(first):
        with pytest.raises(ChildFailed, match=f"process id {first.child.pid} still runs"):
            PostgresServer(folder, "secret").launch()
        assert first.answers()


def test_data_of_another_version_is_refused(folder: Path) -> None:
    server = PostgresServer(folder, "secret")
    with running(server):
        pass
    (folder / "pg" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(ChildFailed, match=r"was made by PostgreSQL 9\.6"):
        server.launch()


@as_root
def test_root_needs_no_open_home(tmp_path: Path) -> None:
    """Where `nobody` can't reach the data, a user namespace serves, and no mode changes."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    folder = home / "data"
    folder.mkdir()
    assert not others_may_enter(folder)
    server = PostgresServer(folder, "secret", durable=False)
    with running(server):
        assert psutil.Process(server.child.pid).uids().real == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


@as_root
def test_data_moves_from_one_account_to_the_other(server_folder: Path) -> None:
    folder = server_folder / "moving"
    folder.mkdir(mode=0o711)
    folder.chmod(0o711)
    server = PostgresServer(folder, "secret", durable=False)
    with running(server), psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    for mode in (0o700, 0o711):
        folder.chmod(mode)
        with running(server), psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (1,)
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind", [RedisServer, PostgresServer])
def test_a_server_that_loses_its_port_takes_another(
    folder: Path, kind: type[RedisServer | PostgresServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[kind.__module__]
    choose = module.free_port
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1]])
        monkeypatch.setattr(module, "free_port", lambda: next(ports, None) or choose())
        server = kind(folder, "secret", durable=False)
        server.launch()
        lost = server.child
        wait_until_answering(server)
        assert lost_its_port(lost)
        stop([server.child], 5)


def test_a_missing_redis_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BINARY_VARIABLE, raising=False)
    monkeypatch.setattr(redis_server, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RedisMissing, match="apt-get install redis-server"):
        find_redis()


def test_a_named_binary_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(BINARY_VARIABLE, sys.executable)
    assert find_redis() == Path(sys.executable)
    monkeypatch.setenv(BINARY_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(RedisMissing, match=BINARY_VARIABLE):
        find_redis()
    programs = find_postgres()
    monkeypatch.setenv(PROGRAMS_VARIABLE, str(programs))
    assert find_postgres() == programs


OWNER = """
import sys, time
from pathlib import Path
from worker.cli.embedded import wait_until_answering
from worker.cli.postgres_server import PostgresServer
from worker.cli.redis_server import RedisServer
for kind in (RedisServer, PostgresServer):
    server = kind(Path(sys.argv[1]), "secret", durable=False)
    server.launch()
    wait_until_answering(server)
    print(server.child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next start sweeps")
def test_servers_end_with_an_owner_that_is_killed(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        servers = [psutil.Process(int(owner.stdout.readline())) for _ in range(2)]
        everything = [p for s in servers for p in (s, *s.children(recursive=True))]
        assert len(everything) > 2
        owner.send_signal(signal.SIGKILL)
        wait_until(lambda: not alive(everything), "the end of both servers")
