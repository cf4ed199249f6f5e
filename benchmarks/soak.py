"""Runs of random shape on two workers, while those are killed: does each end once, and rightly?

    .venv/bin/python benchmarks/soak.py [--runs 1000] [--seed N]

A worker's main process, or one of its children, is killed by SIGKILL every few seconds and
started again. The last line says how many runs there were, how many terminal events, how many of
these were duplicates, how many runs were wrong (they ended otherwise than their shape says they
must, a percent fell within an attempt, or a total was not the number of tasks), and how many have
not ended. The exit code is 1 unless all is well.
"""

from __future__ import annotations

import gc
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psutil
import redis

from benchmarks import soak_broker
from shared import keys
from worker.cli.children import Child, spawn, stop
from worker.cli.embedded import wait_until_answering
from worker.cli.redis_server import RedisServer

WORKERS = 2
PROCESSES = 2
USERS = 20
MOST_AT_ONCE = 40  # open runs
TERMINAL = {"completed", "failed", "cancelled"}
STOP_SECONDS = 10.0
SETTLE_SECONDS = 240.0  # for what nothing is heard of: longer than any deadline below
SHOWN = 20

SETTINGS = {
    "INGEST_LEASE_SECONDS": "4",
    "INGEST_REDELIVERY_GRACE_SECONDS": "60",
    "INGEST_QUEUE_TIMEOUT_SECONDS": "120",
    "EVENTS_STREAM_MAXLEN": "1000000",
}


@dataclass
class Expected:
    """A run, and what must become of it."""

    words: str
    status: str
    tasks: int
    implicit: bool
    source: str


@dataclass
class Verdict:
    """What became of all runs."""

    runs: int = 0
    terminals: int = 0
    duplicates: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        return (
            f"runs {self.runs}, terminals {self.terminals}, duplicates {self.duplicates}, "
            f"wrong {len(self.wrong)}, lost {self.lost}"
        )

    def is_well(self) -> bool:
        return not (self.duplicates or self.wrong or self.lost) and self.terminals == self.runs


class Crew:
    """The workers, of which one is killed every now and then, and beat."""

    def __init__(
        self, client: redis.Redis, env: Mapping[str, str], log: Path, dice: random.Random
    ) -> None:
        self._client, self._env, self._dice = client, env, dice
        self._log = log.open("a")
        self._workers = [self._worker(n) for n in range(WORKERS)]
        self._beat = self._start("beat", "beat", "--schedule", str(log.with_name("beat")))
        self.killed: Counter[str] = Counter()
        self._maimed: set[int] = set()  # lost a child since they started

    def _start(self, name: str, *arguments: str) -> Child:
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.soak_app", *arguments]
        env = {**self._env, soak_broker.WORKER: name}
        return spawn(name, [*command, "--loglevel", "WARNING"], env=env, sink=self._write)

    def _write(self, name: str, line: str) -> None:
        if not self._log.closed:
            self._log.write(f"{time.time():.3f} {name} {line}\n")

    def _worker(self, number: int) -> Child:
        name = f"worker{number}"
        options = ["--concurrency", str(PROCESSES), "-n", f"{name}@soak"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        return self._start(name, "worker", *options, *quiet)

    def kill_one(self) -> None:
        """Kills a main process or a child; a main process is started again."""
        number = self._dice.randrange(WORKERS)
        worker = self._workers[number]
        children = psutil.Process(worker.pid).children() if worker.running else []
        if children and self._dice.random() < 0.5:
            self._maimed.add(number)
            self._kill("children", self._dice.choice(children).pid)
            return
        self._kill("mains", worker.pid)
        worker.kill()
        self._restart(number)

    def _restart(self, number: int) -> None:
        self._maimed.discard(number)
        soak_broker.give_back(self._client, f"worker{number}")
        self._workers[number] = self._worker(number)

    def _kill(self, what: str, pid: int) -> None:
        self._write("soak", f"kills {pid} of the {what}")
        self.killed[what] += 1
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            self.killed[what] -= 1

    def tend(self) -> None:
        """Starts a worker again that gave up since a child was killed while it started.

        Raises:
            ClickException: something ended for which nobody here is to blame.
        """
        for number, worker in enumerate(self._workers):
            if not worker.running and number in self._maimed:
                self._restart(number)
        for child in (*self._workers, self._beat):
            if not child.running:
                raise click.ClickException(child.ended())

    def stop(self) -> None:
        stop([*self._workers, self._beat], STOP_SECONDS)
        self._log.close()


class Journal:
    """What the users' streams hold, read as it grows."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._cursors = dict.fromkeys(users(), "0-0")
        self.events: dict[str, list[dict[str, Any]]] = {}  # by source
        self.ended: set[str] = set()

    def read(self) -> None:
        for user, cursor in self._cursors.items():
            rows: Any = self._client.xrange(keys.stream(user), f"({cursor}")
            for entry_id, fields in rows:
                self._cursors[user] = entry_id.decode()
                event = json.loads(fields[b"e"])
                self.events.setdefault(event["scope"]["id"], []).append(event)
                if kind_of(event) in TERMINAL:
                    self.ended.add(event["scope"]["id"])


def users() -> list[str]:
    return [f"user-{n}" for n in range(USERS)]


def kind_of(event: Mapping[str, Any]) -> str:
    return str(event["type"]).removeprefix("source.ingest.")


def judge(expected: list[Expected], journal: Journal) -> Verdict:
    """Compares what was told of each run with what had to be."""
    verdict = Verdict(runs=len(expected))
    for run in expected:
        events = journal.events.get(run.source, [])
        terminals = [kind_of(e) for e in events if kind_of(e) in TERMINAL]
        verdict.terminals += len(terminals)
        verdict.duplicates += max(0, len(terminals) - 1)
        verdict.lost += not terminals
        if terminals and (fault := _fault(run, events)):
            shown = " ".join(map(kind_of, events))
            verdict.wrong.append(f"{run.source} {run.words}: {fault}: {shown}")
    return verdict


def _fault(run: Expected, events: list[dict[str, Any]]) -> str:
    """What is wrong with the events of a run that has ended; empty where nothing is."""
    kinds = [kind_of(e) for e in events]
    payload = events[-1]["payload"]
    if kinds[0] != "queued" or kinds.count("queued") != 1:
        return "queued other than once"
    if kinds[-1] not in TERMINAL:
        return "something follows its end"
    if len({e["payload"]["run_id"] for e in events}) != 1:
        return "more than one run"
    if kinds[-1] != run.status:
        return f"{kinds[-1]} instead of {run.status} ({payload.get('error')})"
    if run.status == "failed" and payload["error"]["code"] != "meant_to_fail":
        return f"failed with {payload['error']}"
    before = (0, 0)
    for event in events:
        now = (event["payload"]["attempt"], event["payload"]["percent"])
        if now < before:
            return f"attempt and percent {before}, then {now}"
        before = now
        total = event["payload"].get("total")
        if not run.implicit and run.tasks > 1 and total not in (None, run.tasks):
            return f"a total of {total} instead of {run.tasks}"
    return ""


@contextmanager
def temporary_redis(folder: Path) -> Iterator[str]:
    server = RedisServer(folder, secrets.token_hex(16), durable=False)
    server.launch()
    try:
        wait_until_answering(server)
        yield server.url
    finally:
        stop([server.child], STOP_SECONDS)


class Soak:
    """All of it: starts runs, has workers killed, waits for the ends."""

    def __init__(self, url: str, folder: Path, seed: int, kill_every_seconds: float) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        root = str(Path(__file__).parents[1])
        os.environ.update(SETTINGS, REDIS_URL=url)
        self._client = redis.Redis.from_url(url)
        self._dice = random.Random(seed)
        self._killing = random.Random(seed + 1)
        self._kill_every_seconds = kill_every_seconds
        self._next_kill = time.monotonic() + kill_every_seconds
        env = {**kept, **SETTINGS, "REDIS_URL": url, "PYTHONPATH": root}
        self.crew = Crew(self._client, env, folder / "soak.log", self._killing)
        self.journal = Journal(self._client)
        self.expected: list[Expected] = []

    def start(self, number: int) -> None:
        """Starts so many runs, not too many at once."""
        from benchmarks.soak_shapes import Shapes  # after the settings

        shapes = Shapes(self._dice)
        while len(self.expected) < number:
            if len(self.expected) - len(self.journal.ended) < MOST_AT_ONCE:
                self._start_one(shapes)
            else:
                self._turn()

    def _start_one(self, shapes: Any) -> None:
        from worker.pipeline import start_ingest

        count = len(self.expected)
        user, source = f"user-{count % USERS}", f"s{count:04}"
        shape = shapes.make(user, source)
        status = "failed" if shape.fails else "completed"
        self.expected.append(Expected(shape.words, status, shape.tasks, shape.implicit, source))
        if shape.implicit:
            shape.canvas.delay()
        else:
            start_ingest(shape.canvas, user_id=user, source_id=source)

    def finish(self) -> None:
        """Waits for the ends, still killing; and at last for what nothing is heard of."""
        deadline = time.monotonic() + SETTLE_SECONDS
        ended = len(self.journal.ended)
        while len(self.journal.ended) < len(self.expected) and time.monotonic() < deadline:
            self._turn()
            if len(self.journal.ended) > ended:
                ended, deadline = len(self.journal.ended), time.monotonic() + SETTLE_SECONDS

    def settle(self, seconds: float) -> None:
        """Lets the workers do what is left, so that a second end would be seen."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (
            self._client.llen("celery") or self._client.hlen("unacked")
        ):
            time.sleep(0.1)
        self.journal.read()

    def close(self) -> None:
        """Stops everything, and lets go of Celery's results while there is a Redis to tell."""
        from benchmarks.soak_app import app

        self.crew.stop()
        gc.collect()
        app.close()
        self._client.close()

    def _turn(self) -> None:
        time.sleep(0.05)
        self.journal.read()
        self.crew.tend()
        if time.monotonic() >= self._next_kill:
            self.crew.kill_one()
            pause = self._kill_every_seconds * self._killing.uniform(0.5, 1.5)
            self._next_kill = time.monotonic() + pause


@click.command(help=__doc__)
@click.option("--runs", default=1000, show_default=True)
@click.option("--seed", type=int, help="Of the shapes and the kills; random by default.")
@click.option("--kill-every", default=4.0, show_default=True, help="Seconds, on average.")
@click.option("--log", type=click.Path(path_type=Path), help="Keeps the workers' output there.")
def main(runs: int, seed: int | None, kill_every: float, log: Path | None) -> None:
    seed = random.randrange(10**6) if seed is None else seed
    click.echo(f"seed {seed}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="eventstream-soak-") as name:
        folder = Path(name)
        with temporary_redis(folder) as url:
            soak = Soak(url, log or folder, seed, kill_every)
            try:
                soak.start(runs)
                soak.finish()
                soak.settle(20)
            finally:
                soak.close()
            verdict = judge(soak.expected, soak.journal)
    for fault in verdict.wrong[:SHOWN]:
        click.echo(f"wrong: {fault}")
    for run in soak.expected:
        if run.source not in soak.journal.ended:
            shown = " ".join(map(kind_of, soak.journal.events.get(run.source, [])))
            click.echo(f"lost: {run.source} {run.words}: {shown}")
    killed = soak.crew.killed
    click.echo(
        f"{time.monotonic() - began:.0f} s; killed: {killed['mains']} workers, "
        f"{killed['children']} children"
    )
    click.echo(verdict.line())
    if not verdict.is_well():
        sys.exit(1)


if __name__ == "__main__":
    main()
