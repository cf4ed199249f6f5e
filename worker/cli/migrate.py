"""`eventstream migrate`: brings the database to this release's schema."""

from __future__ import annotations

import click

from shared.message_days import make_days_ahead, session
from shared.migrate import migrate as apply_migrations
from shared.settings import get_settings


@click.command
def migrate() -> None:
    """Apply the schema's migrations to the database that DATABASE_URL names.

    Several at once take turns; what is applied already is left alone.
    """
    url = get_settings().require_database_url()
    applied = apply_migrations(url)
    with session(url) as connection:
        make_days_ahead(connection)
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("nothing to do: the schema is up to date")
