"""The message journal as figures: how much it takes, how soon it is read, what pruning costs.

    .venv/bin/python benchmarks/journal.py [--only write,most,resume,prune] [--rows 1000000]

Answers are written at 50 events/s each, in three ways side by side: ours; one commit an event; one
batch an answer of 16 events or 100 ms. The writers, Postgres, Redis and a reader share the
machine's cores. What each line means: `docs/explanation/performance.md`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import psutil
import psycopg
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.eventstream import STOP_SECONDS, durable_redis
from benchmarks.highest import highest_rate
from benchmarks.journal_days import prune_cost
from benchmarks.journal_reader import Reader, quantile
from benchmarks.journal_resume import resume_cost
from benchmarks.table import OURS, Figure
from shared.migrate import migrate
from worker.cli.children import ChildFailed, stop
from worker.cli.embedded import wait_until_answering
from worker.cli.postgres_server import PostgresServer

RATE = 50.0  # events a second of an answer
NUMBERS = (1, 50, 500)
WAYS = {"ours": "ours", "events": "a commit an event", "batches": "a batch an answer"}
LONGEST_P99_MS = 150.0
LEAST_PART = 0.98  # of the events that were due
WARM_UP_SECONDS = 1.0
LINES = ("write", "most", "resume", "prune")


def _figures() -> Iterator[Figure]:
    for number in NUMBERS:
        for way, title in WAYS.items():
            key, label = f"{way}.{number}", f"{number} answers, {title}"
            yield Figure(f"{key}.events_per_s", f"{label}: events/s", 0, more_is_better=True)
            yield Figure(f"{key}.commits_per_s", "  commits/s", 0)
            yield Figure(f"{key}.cpu_percent", "  CPU of writers and servers, % of a core", 0)
            limit = LONGEST_P99_MS if way == "ours" and number == 500 else None
            yield Figure(f"{key}.p50_ms", "  emit to reader, p50 ms", 1)
            yield Figure(f"{key}.p99_ms", "  emit to reader, p99 ms", 1, limit)
    yield Figure("most.answers", "most answers with p99 under 150 ms", 0, 500, more_is_better=True)
    yield Figure("most.events_per_s", "  events/s", 0, more_is_better=True)
    yield Figure("most.times", "  times a commit an event", 1, 5, more_is_better=True)
    yield Figure("resume.events", "resume: events of the answer", 0)
    yield Figure("resume.ms", "  until the last byte, ms", 1)
    yield Figure("prune.rows", "rows of a day", 0)
    yield Figure("prune.s", "pruning that day, s", 3, 1)
    yield Figure("prune.gone_ms", "  until nobody sees it, ms", 1)
    yield Figure("prune.file_s", "  of that, to empty a file of that size, s", 3)
    yield Figure("prune.hundredth_s", "pruning a hundredth of it, s", 3)
    yield Figure("prune.hundredth_gone_ms", "  until nobody sees it, ms", 1)
    yield Figure("prune.gone_times", "  times as long until nobody sees it", 2, 3)
    yield Figure("prune.delete_s", "DELETE of the same rows, s", 3)


FIGURES = tuple(_figures())


@dataclass(frozen=True, slots=True)
class Bench:
    """The servers, and the environment of a writer."""

    postgres: PostgresServer
    redis_url: str
    redis_pid: int
    env: dict[str, str]

    def run(self, way: str, answers: int, seconds: float) -> dict[str, float]:
        """Writes so many answers for so long, with a reader."""
        command = [sys.executable, "-m", "benchmarks.journal_writers", way, str(answers)]
        reader = Reader(self.redis_url)
        with subprocess.Popen(
            [*command, str(RATE), str(seconds)],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdin is not None and writer.stdout is not None
            try:
                if writer.stdout.readline().strip() != "ready":
                    raise ChildFailed("The writers did not start.")
                before, cpu_before = self._commits(), self._cpu_seconds(writer.pid)
                began = time.monotonic()
                writer.stdin.write("go\n")
                writer.stdin.flush()
                line = writer.stdout.readline()
                took = time.monotonic() - began
                cpu = self._cpu_seconds(writer.pid) - cpu_before
                latencies = reader.close()
                commits = self._commits() - before
            finally:
                writer.stdin.close()
                writer.wait(60)
        if not line:
            raise ChildFailed("The writers failed.")
        return {
            **json.loads(line),
            "commits_per_s": commits / took,
            "cpu_percent": 100 * cpu / took,
            "p50_ms": 1000 * quantile(latencies, 0.5),
            "p99_ms": 1000 * quantile(latencies, 0.99),
        }

    def _cpu_seconds(self, writer: int) -> float:
        return sum(map(_cpu_seconds, (writer, self.postgres.child.pid, self.redis_pid)))

    def _commits(self) -> int:
        """Transactions that have written anything, so far."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            row = connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
            return int((row.fetchone() or [0])[0])


def _cpu_seconds(pid: int) -> float:
    """Of a process and its children, also of those that have ended."""
    root = psutil.Process(pid)
    seconds = sum(root.cpu_times()[:4])
    for child in root.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            seconds += sum(child.cpu_times()[:2])
    return float(seconds)


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """Runs a durable Postgres and a durable Redis."""
    folder.chmod(0o711)  # PostgreSQL may run as another account
    server = PostgresServer(folder, "benchmark")
    server.launch()
    try:
        wait_until_answering(server)
        migrate(server.url)
        with durable_redis(folder) as redis_server:
            kept = {n: os.environ[n] for n in ("PATH", "HOME", "LANG") if n in os.environ}
            env = {
                **kept,
                "REDIS_URL": redis_server.url,
                "DATABASE_URL": server.url,
                "PYTHONPATH": str(Path(__file__).parents[1]),
            }
            yield Bench(server, redis_server.url, redis_server.child.pid, env)
    finally:
        stop([server.child], STOP_SECONDS)


def write_cost(found: Bench, seconds: float, say: Callable[[str], None]) -> dict[str, float]:
    """Each number of answers in each way, one after the other."""
    figures: dict[str, float] = {}
    for number in NUMBERS:
        for way in WAYS:
            run = found.run(way, number, seconds)
            say(f"{number} {way}: " + ", ".join(f"{k} {v:,.5g}" for k, v in run.items()))
            figures |= {f"{way}.{number}.{name}": value for name, value in run.items()}
    return figures


def most_answers(found: Bench, seconds: float, say: Callable[[str], None]) -> dict[str, float]:
    """The highest number of answers that holds, and what a commit an event reaches with as many."""
    held: dict[str, float] = {}

    def holds(answers: float) -> bool:
        run = found.run("ours", int(answers), seconds)
        due = LEAST_PART * RATE * int(answers)
        good = run["events_per_s"] >= due and run["p99_ms"] < LONGEST_P99_MS
        say(f"{int(answers)}: " + ", ".join(f"{k} {v:,.5g}" for k, v in run.items()))
        if good:
            held["most.events_per_s"] = run["events_per_s"]
        return good

    answers = highest_rate(holds, NUMBERS[-1], lowest=10, limit=4000)
    plain = found.run("events", max(1, int(answers)), seconds)["events_per_s"]
    times = held.get("most.events_per_s", 0.0) / plain if plain else 0.0
    return {"most.answers": answers, **held, "most.times": times}


def table_of(medians: dict[str, float]) -> Table:
    ours = {(OURS, name): value for name, value in medians.items()}
    table = Table(title="Message journal: medians", title_justify="left", box=SIMPLE_HEAD)
    for title in ("figure", "value", "target", "met"):
        table.add_column(title, no_wrap=True, justify="left" if title == "figure" else "right")
    for figure in FIGURES:
        if figure.key in medians:
            met = {True: "yes", False: "NO", None: ""}[figure.met(ours)]
            value = figure.show(medians[figure.key])
            table.add_row(figure.label, value, figure.target(), met)
    return table


def measure(
    lines: list[str],
    seconds: float,
    rows: int,
    rounds: int,
    place: str | None,
    say: Callable[[str], None],
) -> dict[str, list[float]]:
    """All figures of all rounds."""
    found: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="eventstream-benchmark-", dir=place) as name,
        bench(Path(name)) as running,
    ):
        measures: dict[str, Callable[[], dict[str, float]]] = {
            "write": lambda: write_cost(running, seconds, say),
            "most": lambda: most_answers(running, seconds, say),
            "resume": lambda: resume_cost(running.postgres.url, running.redis_url),
            "prune": lambda: prune_cost(running.postgres.url, rows, Path(name), say),
        }
        for _ in range(rounds):
            for line in lines:
                for key, value in measures[line]().items():
                    found.setdefault(key, []).append(value)
    return found


@click.command(help=__doc__)
@click.option("--only", default=",".join(LINES), show_default=True, help="What is measured.")
@click.option("--seconds", default=10.0, show_default=True, help="The length of a run.")
@click.option("--rows", default=1_000_000, show_default=True, help="The events of a day.")
@click.option("--folder", "place", metavar="DIR", help="Keeps the servers' data meanwhile.")
@click.option("--runs", "rounds", default=1, show_default=True, help="The table shows medians.")
@click.option("--json", "json_file", metavar="FILE", help="Writes all figures.")
def main(
    only: str, seconds: float, rows: int, place: str | None, rounds: int, json_file: str | None
) -> None:
    lines = only.split(",")
    if unknown := set(lines) - set(LINES):
        raise click.BadParameter(f"takes {', '.join(LINES)}, not {', '.join(unknown)}")
    say = Console(stderr=True, highlight=False)

    def show(line: str) -> None:
        say.print(line, markup=False, soft_wrap=True)

    found = measure(lines, seconds, rows, rounds, place, show)
    medians = {name: median(values) for name, values in found.items()}
    Console().print(table_of(medians))
    if json_file:
        Path(json_file).write_text(json.dumps({"medians": medians, "runs": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
