"""`eventstream env`: a running stack's addresses, for other shells."""

from __future__ import annotations

from pathlib import Path

import click

from worker.cli.folder import DataFolder
from worker.cli.options import data_option


@click.command
@data_option
def env(folder: Path) -> None:
    """Print REDIS_URL and DATABASE_URL of the running development stack.

    For a shell: export $(eventstream env)
    """
    place = DataFolder(folder).place()
    click.echo(f"REDIS_URL={place.redis_url}")
    click.echo(f"DATABASE_URL={place.database_url}")
