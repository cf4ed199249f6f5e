"""All scenarios of a plan, side by side in one lab."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from shared.settings import get_settings
from tests.scenarios.app import make_app
from tests.scenarios.bench import Bench
from tests.scenarios.cases import Case, Seen, Victim
from tests.scenarios.client import Client, has_ended
from tests.scenarios.lab import HANGING, MAIN, Lab, Plan, running_lab
from tests.scenarios.meetings import Meetings

_END_SECONDS = 45.0  # from the last thing that a scenario does to the end of its run
_GONE_SECONDS = 20.0
_IDLE_SECONDS = 12.0
_QUIET_SECONDS = 1.5  # in which nothing may follow: three looks of the reaper
_POLL_SECONDS = 0.02
# What scenarios are without, one after another.
_TURNS = ("", "connections", "backend", "facts", HANGING + "facts", "broker")


def run(plan: Plan, cases: Sequence[Case], folder: Path) -> list[Seen]:
    """Has the scenarios happen; returns what each one's client saw."""
    victims = {case.victim for case in cases if case.victim is not None}
    with running_lab(plan, victims, folder) as lab, _producing(lab), _app(lab) as app:
        benches: list[Bench] = []
        meetings = Meetings(
            cases,
            end=lambda victim: _end(lab, app, victim, benches),
            take=lab.servers.take,
            give=partial(lab.servers.give, lab.hands),
        )
        benches += [_bench(lab, app, case, number, meetings) for number, case in enumerate(cases)]
        troubles = _act_all(benches, meetings)
        _wait_until_idle(benches)
        time.sleep(_QUIET_SECONDS)
        for bench in benches:
            bench.client.leave()
        seen = [bench.seen(troubles[bench]) for bench in benches]
        for bench in benches:
            bench.close()
        return seen


@contextmanager
def _producing(lab: Lab) -> Iterator[None]:
    """Makes this process one that publishes: with the lab's settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in lab.settings.items():
            patch.setenv(name, value)
        get_settings.cache_clear()
        yield
    get_settings.cache_clear()


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


def _act_all(benches: Sequence[Bench], meetings: Meetings) -> dict[Bench, str | None]:
    """What went wrong in each scenario, or None."""
    troubles: dict[Bench, str | None] = {}
    for without in _TURNS:
        turn = [bench for bench in benches if bench.case.without == without]
        with ThreadPoolExecutor(len(turn) or 1) as actors:
            troubles |= zip(turn, actors.map(partial(_act, meetings), turn), strict=True)
    return troubles


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


def _end(lab: Lab, app: Celery, victim: Victim, benches: Sequence[Bench]) -> None:
    """Ends a worker, or has its tasks do so; then another takes its queue over."""
    for bench in benches:
        if bench.case.victim == victim:
            bench.signal()
    child = lab.doomed[victim]
    if victim.signal is not None:
        os.kill(child.pid, victim.signal)
    _wait_for(lambda: not child.running, f"the end of {victim.name}")
    if victim.heir:
        app.control.add_consumer(victim.name, destination=[f"{MAIN}-0@lab"])


def _wait_until_idle(benches: Sequence[Bench]) -> None:
    """Returns when no message is left, or after a while: then what was seen tells it."""
    broker = benches[0].broker
    consumed = [bench for bench in benches if not (v := bench.case.victim) or v.heir]
    queues = {bench.queue for bench in consumed}
    deadline = time.monotonic() + _IDLE_SECONDS
    idle = 0
    while idle < 8 and time.monotonic() < deadline:
        busy = broker.hlen("unacked") or any(broker.llen(queue) for queue in queues)
        idle = 0 if busy else idle + 1
        time.sleep(_POLL_SECONDS)


def _wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _GONE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(_POLL_SECONDS)
