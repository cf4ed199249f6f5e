"""`eventstream prune`: removes old days of the message journal by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import click
import psycopg

from shared.message_pruning import Pruned
from worker.retention import run_retention


def _before(days: int | None, before: datetime | None) -> date | None:
    today = datetime.now(UTC).date()
    if days is not None and before is not None:
        raise click.UsageError("--days and --before exclude each other.")
    if before is not None and before.date() > today:
        raise click.BadParameter(f"takes a day up to {today}, today in UTC.", param_hint="--before")
    if before is not None:
        return before.date()
    return today - timedelta(days=days) if days is not None else None


@click.command
@click.option("--dry-run", is_flag=True, help="Tell what would be removed, and remove nothing.")
@click.option(
    "--days",
    type=click.IntRange(0, 36_500),
    metavar="N",
    help="Keep the last N whole days, and today.  [default: MESSAGE_EVENTS_RETENTION_DAYS]",
)
@click.option(
    "--before",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="Remove the days before this one.",
)
def prune(dry_run: bool, days: int | None, before: datetime | None) -> None:
    """Remove whole days of answers that are old, as beat does by itself.

    A day that holds an answer which is being written is kept. Days are those of UTC.
    """
    try:
        pruned = run_retention(_before(days, before), dry_run=dry_run)
    except psycopg.Error as error:
        raise click.ClickException(f"Postgres did not do it: {error}") from error
    if pruned.is_elsewhere:
        raise click.ClickException("Another process is removing days just now.")
    _show(pruned, "would be removed" if dry_run else "removed")


def _show(pruned: Pruned, done: str) -> None:
    for day in pruned.removed:
        size = f"{day.bytes / 1024**2:,.1f} MiB"
        click.echo(f"{day.day}: {day.messages} answers, {day.events} events, {size}: {done}")
    for kept in pruned.kept:
        click.echo(f"{kept}: kept, it is in use or holds an answer that is being written")
    if not (pruned.removed or pruned.kept):
        click.echo(f"nothing to do: there is no day before {pruned.before}")
