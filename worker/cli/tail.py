"""`eventstream tail`: follows a user's events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from shared.errors import MalformedCursor
from shared.settings import get_settings
from shared.wire import parse_cursor
from worker.cli.bars import view
from worker.cli.folder import DataFolder
from worker.cli.following import StreamRefused, follow_http, follow_journal
from worker.cli.options import data_option


def _cursor(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return parse_cursor(value)
    except MalformedCursor as error:
        raise click.BadParameter(str(error)) from error


def _token(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    token = (value or "").strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise click.BadParameter("takes a token, which is ASCII text without spaces.")
    return token or None


@click.command
@click.argument("user")
@click.option(
    "--since",
    "cursor",
    metavar="CURSOR",
    callback=_cursor,
    help="Begin after this event id; 0 for everything that is kept.  [default: now]",
)
@click.option("--url", metavar="URL", help="Follow this server instead of Redis.")
@click.option(
    "--token",
    metavar="TOKEN",
    envvar="EVENTSTREAM_TOKEN",
    show_envvar=True,
    callback=_token,
    help="Who asks, for the server at --url.",
)
@data_option
def tail(user: str, cursor: str | None, url: str | None, token: str | None, folder: Path) -> None:
    """Follow the events of USER: live bars on a terminal, else one JSON line an event.

    Reads Redis, at REDIS_URL or of the running development stack; with --url the server's
    /api/events. Ctrl-C ends it.
    """
    if url is not None:
        lines = _of(user, url, follow_http(url, cursor, token=token))
    else:
        redis_url = get_settings().redis_url or DataFolder(folder).place().redis_url
        lines = follow_journal(redis_url, user, cursor)
    try:
        with view() as shown:
            for line in lines:
                shown.show(line)
    except (KeyboardInterrupt, BrokenPipeError):
        return  # nobody wants more of it


def _of(user: str, url: str, lines: Iterator[str]) -> Iterator[str]:
    """The lines, as long as they are this user's: whose they are is the server's decision."""
    for line in lines:
        whose = json.loads(line).get("user_id", user)
        if whose != user:
            raise StreamRefused(f"{url} sends the events of {whose!r}, not those of {user!r}.")
        yield line
