"""Measures what tracking a task costs, beside the same task untracked, in one run.

    .venv/bin/python benchmarks/lifecycle.py [--tasks 3000] [--runs 5] [--json figures.json]

Two worker processes, the worker's main process, Redis and the producer share the machine's cores.
What each line means: `docs/explanation/performance.md`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import click
import redis
from celery import Celery
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.eventstream import STOP_SECONDS, durable_redis
from benchmarks.round_trips import counted
from benchmarks.table import OURS, Figure
from shared import runs
from shared.connections import ask
from shared.facts import Progress, Report, Started, Succeeded
from shared.outbox import outbox
from shared.settings import get_settings
from worker.cli.children import ChildFailed, spawn, stop
from worker.execution import Execution, enter
from worker.ingest import track
from worker.lifecycle import install

PROCESSES = 2
QUEUE = "benchmark"  # consumed only while it is drained
DRAIN_SECONDS = 120.0
START_SECONDS = 30.0
WARM_UP = 200
ITEMS = 1_000_000
COUNTED_TASKS = 300
FACTS = 5000
KINDS = ("untracked", "pinging", "tracked")
POLL_SECONDS = 0.02  # more often, and the looking takes a tenth of the machine

FIGURES = (
    Figure("publish.untracked_us", "untracked: publish, µs", 0),
    Figure("publish.pinging_us", "three PINGs: publish, µs", 0),
    Figure("publish.tracked_us", "tracked: publish, µs", 0),
    Figure("run.untracked_per_s", "untracked: tasks/s", 0, more_is_better=True),
    Figure("run.pinging_per_s", "three PINGs: tasks/s", 0, more_is_better=True),
    Figure("run.tracked_per_s", "tracked: tasks/s", 0, more_is_better=True),
    Figure("run.untracked_us", "untracked: run, µs", 0),
    Figure("run.pinging_us", "three PINGs: run, µs", 0),
    Figure("run.tracked_us", "tracked: run, µs", 0),
    Figure("cost.pings_us", "three PINGs: µs a task more", 0),
    Figure("cost.publish_us", "tracking: publish, µs more", 0),
    Figure("cost.run_us", "tracking: run, µs more", 0),
    Figure("cost.us", "tracking: µs a task more", 0, 400),
    Figure("cost.tasks_percent", "tracking: tasks/s, % of untracked", 0, more_is_better=True),
    Figure("trips.untracked", "untracked: our round trips a task", 2),
    Figure("trips.tracked", "tracked: our round trips a task", 2, 3),
    Figure("track.ns", "track(), ns an item", 0, 300),
    Figure("step.us", "a step, µs of Redis", 1),
    Figure("step.per_s", "steps/s that Redis has time for", 0, more_is_better=True),
    Figure("step.client_per_s", "steps/s of one client that waits", 0, more_is_better=True),
)


class Bench:
    """A Redis, a producer and a worker."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.client = redis.Redis.from_url(url)
        self.app = Celery("benchmark", broker=url, backend=url, set_as_current=False)
        self.app.conf.task_publish_retry = False
        install(self.app)
        import benchmarks.lifecycle_tasks  # noqa: F401

    def publish(self, kind: str, number: int) -> float:
        """Publishes tasks, each for a source of its own; returns the median of a call's µs."""
        task: Any = self.app.tasks[f"benchmark.{kind}"]
        seconds = []
        for n in range(number):
            arguments = (f"user-{n % 50}", uuid4().hex)
            began = time.perf_counter()
            if kind == "pinging":
                ask(self.client, "PING")
            task.apply_async(arguments, queue=QUEUE)
            seconds.append(time.perf_counter() - began)
        return median(seconds) * 1e6

    def run_us(self, kind: str) -> float:
        """The median of what an execution took since the last look, in µs."""
        seconds: list[float] = []
        for file in self.folder.glob(f"benchmark.{kind}-*"):
            seconds += map(float, file.read_text().split())
            file.unlink()
        return median(seconds) * 1e6

    def drain(self) -> float:
        """Has the worker do what was published; returns the seconds."""
        self.app.control.add_consumer(QUEUE)
        began = time.perf_counter()
        while self.client.llen(QUEUE) or self.client.hlen("unacked"):
            if time.perf_counter() - began > DRAIN_SECONDS:
                raise ChildFailed("The worker did not finish in time.")
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - began
        self.app.control.cancel_consumer(QUEUE, reply=True, timeout=1)
        return seconds


@contextmanager
def bench(folder: Path, redis_url: str, app_url: str | None = None) -> Iterator[Bench]:
    """Runs a worker with two processes; `app_url` is where this project finds its Redis."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    env = {
        **kept,
        "REDIS_URL": app_url or redis_url,
        "CELERY_BROKER_URL": redis_url,
        "CELERY_RESULT_BACKEND": redis_url,
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "WORKER_IMPORTS": "benchmarks.lifecycle_tasks",
        "BENCHMARK_FOLDER": str(folder),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    os.environ["REDIS_URL"] = env["REDIS_URL"]
    get_settings.cache_clear()
    options = ["--concurrency", str(PROCESSES), "--without-gossip", "--without-mingle"]
    command = [sys.executable, "-m", "celery", "-A", "worker", "worker", *options]
    child = spawn("worker", [*command, "--loglevel", "INFO"], env=env, ready_text=" ready.")
    try:
        deadline = time.monotonic() + START_SECONDS
        while not child.ready.wait(0.05):
            if not child.running or time.monotonic() > deadline:
                raise ChildFailed(child.ended() if not child.running else child.last_lines())
        found = Bench(redis_url, folder)
        for kind in KINDS:
            found.publish(kind, WARM_UP)
            found.drain()
        yield found
        found.app.close()
    finally:
        stop([child], STOP_SECONDS)


def task_cost(found: Bench, number: int) -> dict[str, float]:
    """One round: each kind after the other, so that both see the same machine."""
    figures: dict[str, float] = {}
    for kind in KINDS:
        figures[f"publish.{kind}_us"] = found.publish(kind, number)
        seconds = found.drain()
        figures[f"run.{kind}_per_s"] = number / seconds
        figures[f"run.{kind}_us"] = found.run_us(kind)
    figures["cost.pings_us"] = _more("publish", "pinging", figures) + _more(
        "run", "pinging", figures
    )
    figures["cost.publish_us"] = _more("publish", "tracked", figures)
    figures["cost.run_us"] = _more("run", "tracked", figures)
    figures["cost.tasks_percent"] = (
        100 * figures["run.tracked_per_s"] / figures["run.untracked_per_s"]
    )
    figures["cost.us"] = figures["cost.publish_us"] + figures["cost.run_us"]
    return figures


def _more(what: str, kind: str, figures: dict[str, float]) -> float:
    return figures[f"{what}.{kind}_us"] - figures[f"{what}.untracked_us"]


def round_trips(folder: Path, redis_url: str) -> dict[str, float]:
    """Round trips of this project to its Redis, by producer and worker together."""
    figures = {}
    with counted(redis_url) as (trips, url), bench(folder, redis_url, url) as found:
        for kind in ("untracked", "tracked"):
            before = trips.count
            found.publish(kind, COUNTED_TASKS)
            found.drain()
            figures[f"trips.{kind}"] = (trips.count - before) / COUNTED_TASKS
    return figures


def track_cost() -> dict[str, float]:
    """Nanoseconds of `track()` for an item that nobody does anything with, less the bare loop's."""
    ref = runs.new_run("alice", "source", "name", final="task")
    items = range(ITEMS)

    def loop(iterable: Any) -> float:
        began = time.perf_counter()
        for _ in iterable:
            pass
        return time.perf_counter() - began

    enter(Execution(ref, "task", 0, 0, lambda ref, due_ms: None))
    try:
        return {"track.ns": (loop(track(items)) - loop(items)) / ITEMS * 1e9}
    finally:
        enter(None)


def step_cost(client: redis.Redis) -> dict[str, float]:
    """A run's facts, one after the other: what Redis takes for each, and what a client gets."""
    client.config_resetstat()
    began, count = time.perf_counter(), 0
    while count < FACTS:
        ref = runs.new_run("alice", uuid4().hex, "name", final="task")
        runs.accept(ref)
        start = Started(task="task", nonce="n", retries=0, nesting=0, late=True, grace_ms=60_000)
        runs.submit(ref, start)
        for done in range(97):
            reports = [Report("parse", done, 97, "pages")]
            runs.submit(ref, Progress(task="task", nonce="n", reports=reports))
        runs.submit(ref, Succeeded(task="task", nonce="n"))
        count += 100
    seconds = time.perf_counter() - began
    stats: Any = client.info("commandstats")
    us = stats["cmdstat_evalsha"]["usec_per_call"]
    return {"step.us": us, "step.per_s": 1e6 / us, "step.client_per_s": count / seconds}


def measure(tasks: int, rounds: int, say: Callable[[str], None]) -> dict[str, list[float]]:
    """All figures of all rounds."""
    found: dict[str, list[float]] = {}

    def take(figures: dict[str, float]) -> None:
        for name, value in figures.items():
            found.setdefault(name, []).append(value)
        say(", ".join(f"{name} {value:,.6g}" for name, value in figures.items()))

    with (
        tempfile.TemporaryDirectory(prefix="eventstream-benchmark-") as name,
        durable_redis(Path(name)) as server,
    ):
        folder = Path(name)
        with bench(folder, server.url) as running:
            for _ in range(rounds):
                take(task_cost(running, tasks))
            for _ in range(rounds):
                take(track_cost())
            for _ in range(rounds):
                take(step_cost(running.client))
        take(round_trips(folder, server.url))
        outbox().close()
    return found


def table_of(medians: dict[str, float]) -> Table:
    ours = {(OURS, name): value for name, value in medians.items()}
    table = Table(title="Lifecycle: medians", title_justify="left", box=SIMPLE_HEAD)
    for title in ("figure", "value", "target", "met"):
        table.add_column(title, no_wrap=True, justify="left" if title == "figure" else "right")
    for figure in FIGURES:
        met = {True: "yes", False: "NO", None: ""}[figure.met(ours)]
        table.add_row(figure.label, figure.show(medians.get(figure.key)), figure.target(), met)
    return table


@click.command(help=__doc__)
@click.option("--tasks", default=3000, show_default=True, help="Tasks of each kind in a round.")
@click.option("--runs", "rounds", default=5, show_default=True, help="The table shows medians.")
@click.option("--json", "json_file", metavar="FILE", help="Writes all figures.")
def main(tasks: int, rounds: int, json_file: str | None) -> None:
    say = Console(stderr=True, highlight=False)
    found = measure(tasks, rounds, lambda line: say.print(line, markup=False, soft_wrap=True))
    medians = {name: median(values) for name, values in found.items()}
    Console().print(table_of(medians))
    if json_file:
        Path(json_file).write_text(json.dumps({"medians": medians, "runs": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
