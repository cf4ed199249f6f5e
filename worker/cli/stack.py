"""The development stack: servers, migrations, then web, worker and beat, until asked to stop."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.errors import EventStreamError
from shared.migrate import migrate
from shared.settings import get_settings
from worker.cli import broker
from worker.cli.children import ChildFailed
from worker.cli.crew import Crew, StopRequested, StopSignals
from worker.cli.embedded import Server, lost_its_port, pause, wait_until_answering
from worker.cli.folder import DataFolder
from worker.cli.logs import MergedLog
from worker.cli.postgres_server import PostgresServer
from worker.cli.processes import Beat, Web, Worker, check_port
from worker.cli.redis_server import RedisServer, check_reachable

PROCESSES = ("web", "worker", "beat")
ON_LOOPBACK = {"ALLOW_ANONYMOUS": "true", "OPERATOR_ON_LOOPBACK": "true"}
_READY_SECONDS = 60
_WATCH_SECONDS = 0.2


class AnonymousRefused(EventStreamError):
    """On an address that others can reach, everyone would be the same user without a password.

    Take a loopback address, or say that this is meant: ALLOW_ANONYMOUS=true.
    """


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `port` None: 8000, or any that is free."""

    host: str
    port: int | None
    processes: Sequence[str]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Stack:
    """One run of a plan on a data folder, from start to stop."""

    def __init__(self, plan: Plan, folder: DataFolder, log: MergedLog) -> None:
        self._plan = plan
        self._folder = folder
        self._log = log
        self._crew = Crew(folder, log)
        self._signals = StopSignals()

    def run(self) -> None:
        """Starts everything, says `ready`, and returns once it was asked to stop and has.

        Raises:
            EventStreamError: something can't start, or ended by itself; all is stopped.
        """
        self._check()
        self._folder.claim()
        with self._signals.taken(self._crew.kill):
            try:
                self._start()
                self._watch()
            except StopRequested:
                self._log.say("stopping")
            finally:
                self._crew.stop()
                self._folder.release()

    def _check(self) -> None:
        """Refuses what can't work before anything starts."""
        settings = get_settings()
        if "web" in self._plan.processes:
            if not (is_loopback(self._plan.host) or settings.allow_anonymous):
                raise AnonymousRefused
            if self._plan.port is not None:
                check_port(self._plan.host, self._plan.port)

    def _start(self) -> None:
        redis_url, database_url = self._start_servers()
        for name in migrate(database_url):
            self._log.say(f"applied the migration {name}")
        env = self._environment(redis_url, database_url)
        web, servers = None, list[Server]()
        for name in self._plan.processes:
            if name == "web":
                web = Web(self._plan.host, self._plan.port, env, self._crew.spawn)
                servers.append(web)
            elif name == "worker":
                servers.append(Worker(env, self._crew.spawn))
            else:
                schedule = self._folder.path / "beat-schedule"
                servers.append(Beat(schedule, env, self._crew.spawn))
        for server in servers:
            server.launch()
        for server in servers:
            wait_until_answering(server, _READY_SECONDS, self._pause)
        url = web.url if web else None
        self._folder.announce(url, redis_url, database_url)
        self._log.say(f"ready {url or ','.join(self._plan.processes)}")

    def _start_servers(self) -> tuple[str, str]:
        """Starts what no setting names, both at once; returns the URLs of Redis and PostgreSQL."""
        settings, secrets = get_settings(), self._folder.secrets()
        redis, postgres = None, None
        if settings.redis_url is not None:
            check_reachable(settings.redis_url)
        if settings.redis_url is None:
            redis = RedisServer(self._folder.path, secrets.redis, spawn=self._crew.spawn)
            redis.launch()
        if settings.database_url is None:
            postgres = PostgresServer(self._folder.path, secrets.postgres, spawn=self._crew.spawn)
            postgres.launch()
        for server in (redis, postgres):
            if server is not None:
                wait_until_answering(server, pause=self._pause)
        if redis and not settings.celery_broker_url:
            self._give_back(redis.url)
        return (
            redis.url if redis else settings.require_redis_url(),
            postgres.url if postgres else settings.require_database_url(),
        )

    def _give_back(self, broker_url: str) -> None:
        """What a killed stack's worker held: the Redis is ours, so no other worker uses it."""
        if held := broker.give_back(broker_url):
            self._log.say(f"interrupted tasks given back to the queue: {held}")

    def _environment(self, redis_url: str, database_url: str) -> Mapping[str, str]:
        return {
            **(ON_LOOPBACK if is_loopback(self._plan.host) else {}),
            **os.environ,
            "REDIS_URL": redis_url,
            "DATABASE_URL": database_url,
            "PYTHONUNBUFFERED": "1",
        }

    def _pause(self) -> None:
        """A moment of waiting during the start. A lost port is dealt with where it is awaited."""
        if self._signals.asked:
            raise StopRequested
        child = self._crew.ended()
        if child and not lost_its_port(child):
            raise ChildFailed(child.ended())
        pause()

    def _watch(self) -> None:
        while not self._signals.asked:
            if child := self._crew.ended():
                raise ChildFailed(child.ended())
            time.sleep(_WATCH_SECONDS)
        raise StopRequested
