"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path

import click

data_option = click.option(
    "--data",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=".eventstream",
    envvar="EVENTSTREAM_DATA",
    show_default=True,
    show_envvar=True,
    metavar="DIR",
    help="The folder that keeps the data of embedded servers between starts.",
)
port_option = click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="The web port.  [default: 8000, or any that is free]",
)
