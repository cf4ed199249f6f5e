"""A lab: servers, workers, a web process and a reaper, and scenarios that run side by side."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from shared.settings import get_settings
from tests.conftest import RunningRedis
from tests.scenarios.app import WIRING_VARIABLE, Wiring, make_app
from tests.scenarios.bench import Bench
from tests.scenarios.cases import Case, Seen, Victim
from tests.scenarios.client import Client, has_ended
from tests.scenarios.meetings import Meetings
from tests.servers import environment, web_server
from worker.cli.children import Child, spawn

ROOT = Path(__file__).parents[2]
MAIN = "main"
SETTINGS = {
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    "INGEST_LEASE_SECONDS": "3",
    "INGEST_REDELIVERY_GRACE_SECONDS": "9",
    "INGEST_MAX_DELIVERIES": "3",
    "REAP_EVERY_SECONDS": "0.5",
}
_OPTIONS = ("--loglevel", "INFO", "--without-gossip", "--without-mingle")
_BOOT_SECONDS = 40.0
_END_SECONDS = 30.0  # from the last thing that a scenario does to the end of its run
_GONE_SECONDS = 20.0
_IDLE_SECONDS = 12.0
_QUIET_SECONDS = 1.5  # in which nothing may follow: three looks of the reaper
_POLL_SECONDS = 0.02
_TURNS = (
    "",
    "connections",
    "backend",
    "facts",
    "broker",
)  # what scenarios are without, one after another


@dataclass(frozen=True)
class Plan:
    """What a lab is made of."""

    name: str
    pool: str
    workers: int = 1
    concurrency: int = 8
    visibility_timeout: float = 7
    queue_timeout_seconds: int = 8


@dataclass
class Servers:
    """The Redis of facts and streams, that of messages, and that of results."""

    facts: RunningRedis
    broker: RunningRedis
    backend: RunningRedis

    def take(self, name: str) -> None:
        """Has one end as by a crash."""
        getattr(self, name).kill()

    def give(self, hands: ThreadPoolExecutor, name: str) -> None:
        """Starts it again, with what it held; on a thread that outlives it."""
        hands.submit(getattr(self, name).start).result()


@dataclass
class Lab:
    """A running lab. `hands` makes processes: the thread that does must outlive them."""

    plan: Plan
    servers: Servers
    url: str
    hands: ThreadPoolExecutor
    workers: list[Child] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)

    def wiring(self, **more: Any) -> Wiring:
        return Wiring(
            self.servers.broker.url,
            self.servers.backend.url,
            visibility_timeout=self.plan.visibility_timeout,
            **more,
        )

    def settings(self) -> dict[str, str]:
        return {
            "REDIS_URL": self.servers.facts.url,
            "INGEST_QUEUE_TIMEOUT_SECONDS": str(self.plan.queue_timeout_seconds),
            **SETTINGS,
        }

    def start(self, name: str, command: Sequence[str], ready: str, wiring: Wiring) -> Child:
        """Makes a process of the application's; it is ready later."""
        env = environment(
            **self.settings(), **{WIRING_VARIABLE: wiring.to_json(), "PYTHONPATH": str(ROOT)}
        )
        make = partial(spawn, name, [sys.executable, "-m", *command], env=env, ready_text=ready)
        child = self.hands.submit(make, sink=self._log).result()
        self.workers.append(child)
        return child

    def start_worker(self, name: str, concurrency: int, wiring: Wiring) -> Child:
        pool = ["--pool", self.plan.pool]
        if self.plan.pool != "solo":
            pool += ["--concurrency", str(concurrency)]
        app = ("celery", "-A", "tests.scenarios.app", "worker", "-n", f"{name}@lab")
        return self.start(name, [*app, *_OPTIONS, *pool], " ready.", wiring)

    def start_reaper(self) -> Child:
        return self.start("reaper", ["tests.scenarios.reaper"], "ready", self.wiring())

    def _log(self, name: str, line: str) -> None:
        self.logs.append(f"{time.monotonic():.2f} {name}: {line}")


def run(plan: Plan, cases: Sequence[Case], folder: Path) -> list[Seen]:
    """Has all scenarios of a plan happen, side by side; returns what each one's client saw."""
    victims = {case.victim for case in cases if case.victim is not None}
    with _lab(plan, folder) as lab:
        main = [
            lab.start_worker(f"{MAIN}-{number}", plan.concurrency, lab.wiring())
            for number in range(plan.workers)
        ]
        doomed = {victim: _start_victim(lab, victim) for victim in victims}
        for child in [lab.start_reaper(), *main, *doomed.values()]:
            _wait_until_ready(child)
        try:
            with _producing(lab), _app(lab) as app:
                return _run_all(lab, app, cases, doomed)
        finally:
            if dump := os.environ.get("SCENARIO_LOGS"):
                Path(dump, f"{plan.name}.log").write_text("\n".join(lab.logs))


@contextmanager
def _lab(plan: Plan, folder: Path) -> Iterator[Lab]:
    with ExitStack() as held:
        servers = Servers(*(_redis(folder, held) for _ in range(3)))
        hands = held.enter_context(ThreadPoolExecutor(1))
        web = held.enter_context(
            web_server(
                "asgi",
                servers.facts.url,
                AUTH_TYPE="callable",
                AUTH_CALLABLE="tests.host_application:current_user",
                SSE_KEEPALIVE_SECONDS="1",
                PYTHONPATH=str(ROOT),
            )
        )
        lab = Lab(plan, servers, web.url, hands)
        try:
            yield lab
        finally:
            for child in lab.workers:
                child.kill()


def _redis(folder: Path, held: ExitStack) -> RunningRedis:
    running = RunningRedis(Path(tempfile.mkdtemp(dir=folder)))
    held.callback(running.kill)
    return running


def _start_victim(lab: Lab, victim: Victim) -> Child:
    wiring = lab.wiring(queue=victim.name, soft_shutdown_timeout=victim.soft_shutdown_seconds)
    return lab.start_worker(victim.name, victim.concurrency, wiring)


def _wait_until_ready(child: Child) -> None:
    deadline = time.monotonic() + _BOOT_SECONDS
    while not child.ready.wait(0.05):
        assert child.running, child.ended()
        assert time.monotonic() < deadline, child.last_lines()


@contextmanager
def _app(lab: Lab) -> Iterator[Celery]:
    """The application of a producer."""
    app = make_app(lab.wiring())
    app.loader.import_default_modules()
    app.finalize()
    backend: Any = app.backend
    try:
        yield app
    finally:
        gc.collect()  # a result that is forgotten tells its backend, while there is one
        backend.result_consumer.stop()
        backend.client.close()
        app.close()


@contextmanager
def _producing(lab: Lab) -> Iterator[None]:
    """Makes this process one that publishes: with the lab's settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lab.settings().items():
            patch.setenv(name, value)
        get_settings.cache_clear()
        yield
    get_settings.cache_clear()


def _run_all(
    lab: Lab, app: Celery, cases: Sequence[Case], doomed: dict[Victim, Child]
) -> list[Seen]:
    benches: list[Bench] = []

    def end(victim: Victim) -> None:
        for bench in benches:
            if bench.case.victim == victim:
                bench.signal()
        _end(app, victim, doomed[victim])

    meetings = Meetings(cases, end, lab.servers.take, partial(lab.servers.give, lab.hands))
    benches += [_bench(lab, app, case, number, meetings) for number, case in enumerate(cases)]
    troubles: dict[Bench, str | None] = {}
    for without in sorted({case.without for case in cases}, key=_TURNS.index):
        turn = [bench for bench in benches if bench.case.without == without]
        with ThreadPoolExecutor(len(turn)) as actors:
            troubles |= zip(turn, actors.map(partial(_act, meetings), turn), strict=True)
    _wait_until_idle(lab, {bench.queue for bench in benches if _is_consumed(bench.case)})
    time.sleep(_QUIET_SECONDS)
    for bench in benches:
        bench.client.leave()
    for bench in benches:
        bench.client.join()
    seen = [bench.seen(troubles[bench]) for bench in benches]
    for bench in benches:
        bench.close()
    return seen


def _bench(lab: Lab, app: Celery, case: Case, number: int, meetings: Meetings) -> Bench:
    return Bench(
        case,
        Client(lab.url, f"user-{number}"),
        app,
        case.victim.name if case.victim else MAIN,
        redis.Redis.from_url(lab.servers.facts.url),
        redis.Redis.from_url(lab.servers.broker.url),
        meetings,
    )


def _act(meetings: Meetings, bench: Bench) -> str | None:
    """Returns what went wrong, or None; a run that does not end is seen by what was seen."""
    try:
        bench.case.act(bench)
    except Exception as error:  # of any kind: it is told with what was seen, by the case's test
        meetings.miss(bench.case)
        return f"{type(error).__name__}: {error}"
    if bench.case.sees:
        bench.client.wait_for(has_ended, _END_SECONDS)
    return None


def _end(app: Celery, victim: Victim, child: Child) -> None:
    """Ends a worker, or waits until its tasks did; then another takes its queue over."""
    if victim.signal is not None:
        os.kill(child.pid, victim.signal)
    _wait_for(lambda: not child.running, _GONE_SECONDS, f"the end of {victim.name}")
    if victim.heir:
        app.control.add_consumer(victim.name, destination=[f"{MAIN}-0@lab"])


def _is_consumed(case: Case) -> bool:
    return case.victim is None or case.victim.heir


def _wait_until_idle(lab: Lab, queues: set[str]) -> None:
    """Returns when no message is left, or after a while: then what was seen tells it."""
    broker = redis.Redis.from_url(lab.servers.broker.url)
    deadline = time.monotonic() + _IDLE_SECONDS
    idle = 0
    while idle < 8 and time.monotonic() < deadline:
        busy = broker.hlen("unacked") or any(broker.llen(queue) for queue in queues)
        idle = 0 if busy else idle + 1
        time.sleep(_POLL_SECONDS)


def _wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(_POLL_SECONDS)
