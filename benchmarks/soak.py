"""Runs of random shape on two workers, while those are killed: does each end once, and rightly?

    .venv/bin/python benchmarks/soak.py [--runs 1000] [--seed N]

A worker's main process, or one of its children, is killed by SIGKILL every few seconds and
started again. The last line says how many runs there were, how many terminal events, how many of
these were duplicates, how many runs were wrong (they ended otherwise than their shape says they
must, a percent fell within an attempt, or a total was not the number of tasks), and how many have
not ended. The exit code is 1 unless all is well.

Runs of which Celery itself left a chord hanging are counted apart (`benchmarks/soak_chords.py`):
they have to fail, once, as `chain_broken`.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import redis

from benchmarks import soak_chords
from benchmarks.soak_crew import Crew, temporary_redis
from benchmarks.soak_verdict import USERS, Expected, Journal, Verdict, judge, kind_of

MOST_AT_ONCE = 40  # open runs
SETTLE_SECONDS = 240.0  # for what nothing is heard of: longer than any deadline below
SHOWN = 20

SETTINGS = {
    "INGEST_LEASE_SECONDS": "4",
    "INGEST_REDELIVERY_GRACE_SECONDS": "60",
    "INGEST_QUEUE_TIMEOUT_SECONDS": "120",
    "EVENTS_STREAM_MAXLEN": "1000000",
}


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
        self.expected.append(
            Expected(shape.words, status, shape.tasks, shape.implicit, source, shape.canvas)
        )
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

    def judge(self) -> Verdict:
        """What became of all runs, to be asked while Redis is there."""
        from benchmarks.soak_app import app

        return judge(
            self.expected,
            self.journal,
            lambda run: soak_chords.hangs(self._client, app, run.source, run.canvas),
        )

    def close(self) -> None:
        """Stops everything, and lets go of Celery's results while there is a Redis to tell."""
        from benchmarks.soak_app import app

        self.crew.stop()
        # Celery keeps the results of a chord's members for as long as the process.
        app.backend._pending_results.concrete.clear()  # type: ignore[attr-defined]
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
                verdict = soak.judge()
            finally:
                soak.close()
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
