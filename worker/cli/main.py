"""The `eventstream` command. Errors that a reader can act on end it with their sentence."""

from __future__ import annotations

from typing import Any

import click

from shared.errors import EventStreamError
from worker.cli.demo import demo
from worker.cli.dev import dev
from worker.cli.env import env
from worker.cli.migrate import migrate
from worker.cli.prune import prune
from worker.cli.publish import publish
from worker.cli.tail import tail
from worker.cli.token import token


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EventStreamError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.filename is None:
                raise  # a defect, not something about a file that its reader named
            raise click.ClickException(f"{error.filename}: {error.strerror}.") from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="celery-eventstream")
def main() -> None:
    """Live, resumable progress events for Celery work."""


for command in (dev, env, migrate, prune, tail, publish, token, demo):
    main.add_command(command)
