"""Measures the delivery of events, with everything switched on, beside Nchan where it is installed.

    .venv/bin/python benchmarks/delivery.py [--only burst,replay] [--runs 3] [--json figures.json]

The server has one core, clients, publisher and Redis have the other. What each line means, and what
its target is: `docs/explanation/performance.md`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console

from benchmarks import eventstream, loadgen, measures, nchan
from benchmarks.machine import cores, on_core, raise_descriptor_limit
from benchmarks.measures import Figures, Measure, Plan
from benchmarks.results import Results, say
from benchmarks.systems import System
from benchmarks.table import OURS, medians_of, table_of

PUBLISH_CALLS = 5000
SPARE_DESCRIPTORS = 500
TABLE_COLUMNS = 130

# In the order of the table; whether a line needs more than one user; whether once is enough.
MEASURES: dict[str, Measure] = {
    "held": measures.held,
    "frame": measures.frame,
    "burst": measures.burst,
    "fanout": measures.fanout,
    "users": measures.users,
    "latency": measures.latency,
    "replay": measures.replay,
    "churn": measures.churn,
}
MANY_USERS = {"users", "latency"}
ONCE = {"churn"}
LINES = [*list(MEASURES)[:-1], "publish", "churn"]


def publish_cost() -> Figures:
    """Microseconds of `publish_user_event`: the caller on the server's core, Redis on the other."""
    program = Path(__file__).with_name("publishing.py")
    with (
        TemporaryDirectory(prefix="eventstream-benchmark-") as folder,
        eventstream.durable_redis(Path(folder)) as server,
        on_core(cores()[0]),
    ):
        done = subprocess.run(
            [sys.executable, str(program), str(PUBLISH_CALLS)],
            env={"PATH": os.environ["PATH"], "REDIS_URL": server.url},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise loadgen.LoadgenFailed(done.stderr)
    found: dict[str, float | None] = json.loads(done.stdout)
    return {name: value for name, value in found.items() if value is not None}


def measure_line(line: str, systems: list[System], plan: Plan, results: Results) -> None:
    """Measures one line once, each system after the other, so that all see the same machine."""
    if line == "publish":
        results.take(OURS, line, publish_cost)
        return
    for system in systems:
        if line in MANY_USERS and not system.many_users:
            say.print(f"{system.name:13} {line:8} left out: it needs users that sign in")
            continue

        def measure(system: System = system) -> Figures:
            with system.start() as running:
                return MEASURES[line](system, running, plan)

        results.take(system.name, line, measure)


def chosen_lines(only: str) -> list[str]:
    names = [name.strip() for name in only.split(",") if name.strip()] or LINES
    unknown = set(names) - set(LINES)
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}; there are: {', '.join(LINES)}")
    return [line for line in LINES if line in names]


def chosen_systems(descriptors: int, *, signed_in: bool, with_nchan: bool) -> list[System]:
    ours = eventstream.system(signed_in=signed_in)
    if not with_nchan:
        return [ours]
    if sentence := nchan.missing():
        say.print(sentence)
        return [ours]
    return [ours, *nchan.systems(descriptors)]


def plan_of(descriptors: int, seconds: float, connections: int | None, churn: int) -> Plan:
    most = descriptors - SPARE_DESCRIPTORS
    if most < measures.HELD:
        say.print(f"This account may open {descriptors} files, so at most {most} connections.")
    if cores()[0] == cores()[1]:
        say.print("There is one core for everything: the figures say little.")
    return Plan(seconds, connections, most, churn)


@click.command(help=__doc__)
@click.option("--only", default="", metavar="NAME,...", help=f"Lines: {', '.join(LINES)}.")
@click.option("--seconds", default=5.0, show_default=True, help="How long each load lasts.")
@click.option("--runs", default=3, show_default=True, help="The table shows medians.")
@click.option("--connections", type=int, help="Instead of what each definition says.")
@click.option("--churn", default=measures.CHURN, show_default=True, help="Connects in all.")
@click.option("--no-nchan", is_flag=True, help="Without the peer.")
@click.option("--no-auth", is_flag=True, help="AUTH_TYPE=none: everyone is one user.")
@click.option("--json", "json_file", metavar="FILE", help="Writes all figures; - for the output.")
def main(
    only: str,
    seconds: float,
    runs: int,
    connections: int | None,
    churn: int,
    no_nchan: bool,
    no_auth: bool,
    json_file: str | None,
) -> None:
    lines = chosen_lines(only)
    try:
        loadgen.build()
    except loadgen.NoCompiler as error:
        raise click.ClickException(" ".join(str(error).split())) from error
    descriptors = raise_descriptor_limit()
    plan = plan_of(descriptors, seconds, connections, churn)
    systems = chosen_systems(descriptors, signed_in=not no_auth, with_nchan=not no_nchan)
    results = Results()
    with on_core(cores()[1]):
        for line in lines:
            for _ in range(1 if line in ONCE else runs):
                measure_line(line, systems, plan, results)
    show(results, {system.name: system.title for system in systems}, json_file, plan, runs)


def show(
    results: Results, titles: dict[str, str], json_file: str | None, plan: Plan, runs: int
) -> None:
    if json_file == "-":
        click.echo(results.as_json(plan, runs))
    else:
        Console(width=max(TABLE_COLUMNS, Console().width)).print(
            table_of(medians_of(results.runs), titles)
        )
        if json_file:
            Path(json_file).write_text(results.as_json(plan, runs) + "\n")
    if results.failures:
        raise click.ClickException(f"{len(results.failures)} measurements failed; see above.")


if __name__ == "__main__":
    main()
