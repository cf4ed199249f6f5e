"""`eventstream dev`: the whole application on this machine, as real processes."""

from __future__ import annotations

from pathlib import Path

import click

from worker.cli.folder import DataFolder
from worker.cli.logs import MergedLog
from worker.cli.options import data_option, port_option
from worker.cli.stack import PROCESSES, Plan, Stack


def _names(ctx: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names or not set(names) <= set(PROCESSES):
        raise click.BadParameter(f"takes names out of {','.join(PROCESSES)}, with commas between.")
    return [name for name in PROCESSES if name in names]


@click.command
@port_option
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="H", help="The web address."
)
@data_option
@click.option(
    "--processes",
    default=",".join(PROCESSES),
    callback=_names,
    show_default=True,
    metavar="NAMES",
    help="Which processes to run.",
)
def dev(port: int | None, host: str, folder: Path, processes: list[str]) -> None:
    """Run web, worker and beat, with a Redis and a PostgreSQL where none is named.

    REDIS_URL and DATABASE_URL name them. Prints `ready http://HOST:PORT` once everything
    answers. Ctrl-C stops everything in order, a second one at once.
    """
    Stack(Plan(host, port, processes), DataFolder(folder), MergedLog()).run()
