"""What is measured, one function for each line of the table. `docs/explanation/performance.md`
defines them.

Each gets a fresh system and returns its figures by name. Every event that was published has to
arrive at every client that should have it: `expected` and `arrived` say whether it did.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks import loadgen
from benchmarks.highest import highest_rate
from benchmarks.loadgen import LoadgenFailed, Report, Watchers
from benchmarks.systems import Running, System

Figures = dict[str, float]

USERS = 1000
HELD = 10_000
WATCHING_ONE_USER = 1000
FRAME_EVENTS_PER_SECOND = 50
BURST_EVENTS = 100
LATENCY_EVENTS_PER_SECOND = 100
MOST_P99_MS = 100.0
REPLAYED = 200
REPLAY_USERS = 16
CHURN_CONCURRENCY = 64
CHURN = 100_000
DRAIN_SECONDS = 15.0
PROBE_SECONDS = 3.0
KEPT_UP = 0.97  # of the rate asked for: below, the publisher or its Redis was the limit


@dataclass
class Plan:
    """How much is measured. `known` holds the highest rates that earlier runs found."""

    seconds: float = 5.0
    connections: int | None = None
    most_connections: int = HELD
    churn: int = CHURN
    known: dict[tuple[str, str], float] = field(default_factory=dict)

    def many(self, usual: int) -> int:
        """How many connections, where `usual` is what the definition says."""
        return min(self.connections or usual, self.most_connections)


Measure = Callable[[System, Running, Plan], Figures]


def held(system: System, running: Running, plan: Plan) -> Figures:
    wanted = plan.many(HELD)
    users = _users(system, wanted)
    with running.watchers(users[:1]) as first:  # what is built at a first request is not counted
        _opened(first, min(10, wanted))
    before = running.footprint.settled_memory_bytes()
    with running.watchers(users) as watchers:
        report = watchers.open(wanted)
        after = running.footprint.settled_memory_bytes()
        still = watchers.report().open
    return {
        "held": still,
        "headers_s": report.headers_seconds,
        "idle_kb": (after - before) / 1024 / max(1, still),
        "refused": report.refused,
    }


def frame(system: System, running: Running, plan: Plan) -> Figures:
    with running.watchers([system.one_user]) as watchers:
        _opened(watchers, plan.many(WATCHING_ONE_USER))
        before = running.footprint.cpu_seconds()
        report, expected = _send(system, running, watchers, FRAME_EVENTS_PER_SECOND, plan.seconds)
        used = running.footprint.cpu_seconds() - before
    return {
        "us": used / max(1, report.frames) * 1e6,
        **_together(report),
        **_counts(report, expected),
    }


def burst(system: System, running: Running, plan: Plan) -> Figures:
    connections = plan.many(WATCHING_ONE_USER)
    with running.watchers([system.one_user]) as watchers:
        _opened(watchers, connections)
        running.publish([system.one_user], count=1)  # nothing is done for the first time after it
        watchers.wait_for(connections, DRAIN_SECONDS)
        watchers.reset()
        expected = BURST_EVENTS * connections
        published = running.publish([system.one_user], count=BURST_EVENTS)
        report = watchers.wait_for(expected, DRAIN_SECONDS)
    took = (report.last_frame_ns - published.begin_ns) / 1e9
    return {"s": took, **_together(report), **_counts(report, expected)}


def fanout(system: System, running: Running, plan: Plan) -> Figures:
    connections = plan.many(WATCHING_ONE_USER)
    best = _highest(system, running, plan, [system.one_user], connections, start=40)
    return {**best, "frames_per_s": best["events_per_s"] * connections}


def users(system: System, running: Running, plan: Plan) -> Figures:
    connections = plan.many(USERS)
    return _highest(system, running, plan, _users(system, connections), connections, start=4000)


def latency(system: System, running: Running, plan: Plan) -> Figures:
    connections = plan.many(USERS)
    names = _users(system, connections)
    with running.watchers(names) as watchers:
        _opened(watchers, connections)
        watchers.reset()
        sent = running.publish(names, rate=LATENCY_EVENTS_PER_SECOND, seconds=2 * plan.seconds).sent
        report = watchers.wait_for(sent, DRAIN_SECONDS)
    return {"p50_ms": report.p50_ms, "p99_ms": report.p99_ms, **_counts(report, sent)}


def replay(system: System, running: Running, plan: Plan) -> Figures:
    names = _users(system, REPLAY_USERS)
    requests = running.requests(names, running.cursors(running, names, REPLAYED))
    quickack = running.quickack

    def repeat(concurrency: int, acknowledge: bool = quickack) -> loadgen.Loop:
        return loadgen.loop(
            running.port,
            requests,
            concurrency=concurrency,
            frames=REPLAYED,
            seconds=plan.seconds,
            quickack=acknowledge,
        )

    one, many = repeat(1), repeat(16)
    figures = {"p50_ms": one.p50_ms, "per_s": many.per_second}
    if quickack:  # what a client gets that acknowledges as clients do
        figures["plain_p50_ms"] = repeat(1, acknowledge=False).p50_ms
    done = one.done + many.done
    return {
        **figures,
        "broken": one.broken + many.broken,
        "expected": done * REPLAYED,
        "arrived": one.frames + many.frames,
    }


def churn(system: System, running: Running, plan: Plan) -> Figures:
    requests = running.requests(_users(system, USERS))

    def connect(count: int) -> loadgen.Loop:
        concurrency = min(CHURN_CONCURRENCY, count)
        return loadgen.loop(running.port, requests, concurrency=concurrency, frames=0, count=count)

    connect(max(1, plan.churn // 100))  # pools and arenas have their size after this
    memory = running.footprint.settled_memory_bytes()
    descriptors = running.footprint.descriptors()
    looped = connect(plan.churn)
    left = running.footprint.settled_descriptors(descriptors)
    after = running.footprint.settled_memory_bytes()
    return {
        "growth_percent": (after / memory - 1) * 100,
        "before_mb": memory / 2**20,
        "after_mb": after / 2**20,
        "descriptors_left": left - descriptors,
        "per_s": looped.per_second,
        "expected": plan.churn,
        "arrived": looped.done,
    }


def _users(system: System, connections: int) -> Sequence[str]:
    if not system.many_users:
        return [system.one_user]
    return [f"user-{number}" for number in range(min(USERS, connections))]


def _opened(watchers: Watchers, count: int) -> None:
    report = watchers.open(count)
    if report.open != count:
        raise LoadgenFailed(f"not all of {count} streams were opened: {report}")


def _send(
    system: System, running: Running, watchers: Watchers, rate: float, seconds: float
) -> tuple[Report, int]:
    """Publishes to one user; returns what came until all had come, and how much should have."""
    connections = watchers.reset().open
    published = running.publish([system.one_user], rate=rate, seconds=seconds)
    expected = published.sent * connections
    return watchers.wait_for(expected, DRAIN_SECONDS), expected


def _highest(
    system: System,
    running: Running,
    plan: Plan,
    names: Sequence[str],
    connections: int,
    start: float,
) -> Figures:
    each = connections if len(names) == 1 else 1  # frames for one event
    best: Figures = {"events_per_s": 0.0}

    with running.watchers(names) as watchers:
        _opened(watchers, connections)

        def holds(rate: float) -> bool:
            watchers.reset()
            cpu, began = running.footprint.cpu_seconds(), time.monotonic()
            published = running.publish(names, rate=rate, seconds=min(plan.seconds, PROBE_SECONDS))
            used = (running.footprint.cpu_seconds() - cpu) / (time.monotonic() - began)
            expected = published.sent * each
            report = watchers.wait_for(expected, DRAIN_SECONDS)
            good = (
                report.frames >= expected
                and report.p99_ms < MOST_P99_MS
                and published.per_second >= KEPT_UP * rate
            )
            if good:
                best.update(
                    events_per_s=published.per_second,
                    p99_ms=report.p99_ms,
                    server_cpu_percent=100 * used,
                    **_together(report),
                    **_counts(report, expected),
                )
            elif report.open < connections or report.frames < expected:
                _opened(watchers, connections)  # some were cut off, or are far behind
            return good

        key = (system.name, "one" if len(names) == 1 else "many")
        known = plan.known.get(key)
        found = highest_rate(holds, known or start, known=known is not None)
        if found:
            plan.known[key] = found
    return best


def _together(report: Report) -> Figures:
    """How many frames each write held, where the wire shows it."""
    per_write = report.frames_per_write
    return {} if per_write is None else {"frames_per_write": per_write}


def _counts(report: Report, expected: int) -> Figures:
    return {"expected": expected, "arrived": report.marked}
