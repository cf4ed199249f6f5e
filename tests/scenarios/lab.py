"""A lab: servers, workers, beat and a web process, each a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.conftest import RunningRedis
from tests.scenarios.app import WIRING_VARIABLE, Wiring
from tests.scenarios.cases import Victim
from tests.servers import environment, web_server
from worker.cli.children import Child, spawn

MAIN = "main"
HANGING = "hanging "  # before the name of a server that is there, and does not answer
LOGS_VARIABLE = "SCENARIO_LOGS"  # a folder for what the processes wrote
SETTINGS = {
    "INGEST_LEASE_SECONDS": "4",
    "INGEST_MAX_DELIVERIES": "3",
}
WEB = {
    "AUTH_TYPE": "callable",
    "AUTH_CALLABLE": "tests.host_application:current_user",
    "SSE_KEEPALIVE_SECONDS": "1",
}
_ROOT = Path(__file__).parents[2]
_OPTIONS = ("--loglevel", "INFO", "--without-gossip", "--without-mingle")
_BOOT_SECONDS = 40.0


@dataclass(frozen=True)
class Plan:
    """What a lab is made of, and for how long messages wait and are hidden, in seconds."""

    name: str
    pool: str
    workers: int = 1
    concurrency: int = 12
    visibility_timeout: float = 7
    queue_timeout: int = 60
    redelivery_grace: int = 30


@dataclass
class Servers:
    """The Redis of facts and streams, that of messages, and that of results."""

    facts: RunningRedis
    broker: RunningRedis
    backend: RunningRedis

    def take(self, name: str) -> None:
        """Has one end as by a crash, or take connections and answer nothing."""
        server = self._named(name)
        if name.startswith(HANGING):
            os.kill(server.pid, signal.SIGSTOP)
        else:
            server.kill()

    def give(self, hands: ThreadPoolExecutor, name: str) -> None:
        """Has it answer again, with what it held; started on a thread that outlives it."""
        server = self._named(name)
        if name.startswith(HANGING):
            os.kill(server.pid, signal.SIGCONT)
        else:
            hands.submit(server.start).result()

    def _named(self, name: str) -> RunningRedis:
        server: RunningRedis = getattr(self, name.removeprefix(HANGING))
        return server


@dataclass
class Lab:
    """A running lab. `hands` makes processes: the thread that does must outlive them."""

    plan: Plan
    servers: Servers
    hands: ThreadPoolExecutor
    folder: Path
    url: str = ""
    children: list[Child] = field(default_factory=list)
    doomed: dict[Victim, Child] = field(default_factory=dict)
    _logs: list[str] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, str]:
        return {
            "REDIS_URL": self.servers.facts.url,
            "INGEST_QUEUE_TIMEOUT_SECONDS": str(self.plan.queue_timeout),
            "INGEST_REDELIVERY_GRACE_SECONDS": str(self.plan.redelivery_grace),
            **SETTINGS,
        }

    def wiring(self, **more: Any) -> Wiring:
        return Wiring(
            self.servers.broker.url,
            self.servers.backend.url,
            visibility_timeout=self.plan.visibility_timeout,
            **more,
        )

    def start(self, victims: Collection[Victim]) -> None:
        """Makes beat, which holds the reaper, and all workers; they are ready later."""
        schedule = str(self.folder / "beat-schedule")
        beat = ["celery", "-A", "tests.scenarios.app", "beat", "--loglevel", "INFO", "-s", schedule]
        self._start("beat", beat, self.wiring(), ready="beat: Starting")
        for number in range(self.plan.workers):
            self._start_worker(f"{MAIN}-{number}", self.plan.concurrency, self.wiring())
        for victim in victims:
            wiring = self.wiring(
                queue=victim.name, soft_shutdown_timeout=victim.soft_shutdown_seconds
            )
            self.doomed[victim] = self._start_worker(victim.name, victim.concurrency, wiring)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _BOOT_SECONDS
        for child in self.children:
            while not child.ready.wait(0.05):
                assert child.running, child.ended()
                assert time.monotonic() < deadline, child.last_lines()

    def stop(self) -> None:
        for child in self.children:
            child.kill()
        if folder := os.environ.get(LOGS_VARIABLE):
            Path(folder, f"{self.plan.name}.log").write_text("\n".join(self._logs))

    def _start_worker(self, name: str, concurrency: int, wiring: Wiring) -> Child:
        pool = ["--pool", self.plan.pool]
        if self.plan.pool != "solo":
            pool += ["--concurrency", str(concurrency)]
        app = ["celery", "-A", "tests.scenarios.app", "worker", "-n", f"{name}@lab"]
        return self._start(name, [*app, *_OPTIONS, *pool], wiring)

    def _start(
        self, name: str, command: Sequence[str], wiring: Wiring, ready: str = " ready."
    ) -> Child:
        env = environment(
            **self.settings, **{WIRING_VARIABLE: wiring.to_json(), "PYTHONPATH": str(_ROOT)}
        )
        make = partial(spawn, name, [sys.executable, "-m", *command], env=env)
        child = self.hands.submit(make, ready_text=ready, sink=self._log).result()
        self.children.append(child)
        return child

    def _log(self, name: str, line: str) -> None:
        self._logs.append(f"{time.monotonic():.2f} {name}: {line}")


@contextmanager
def running_lab(plan: Plan, victims: Collection[Victim], folder: Path) -> Iterator[Lab]:
    """A lab that is ready, with its data in `folder`."""
    with ExitStack() as held:
        servers = Servers(*(_redis(folder, held) for _ in range(3)))
        hands = held.enter_context(ThreadPoolExecutor(1))
        lab = Lab(plan, servers, hands, Path(tempfile.mkdtemp(dir=folder)))
        held.callback(lab.stop)
        lab.start(victims)
        more = {"CELERY_BROKER_URL": servers.broker.url, "PYTHONPATH": str(_ROOT), **WEB}
        web = web_server("asgi", servers.facts.url, **more)
        lab.url = held.enter_context(web).url
        lab.wait_until_ready()
        yield lab


def _redis(folder: Path, held: ExitStack) -> RunningRedis:
    running = RunningRedis(Path(tempfile.mkdtemp(dir=folder)))
    held.callback(running.kill)
    return running
