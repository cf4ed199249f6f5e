"""`eventstream publish`: one event to a user, by hand or from a shell script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import redis

from shared.connections import redis_client
from shared.encoding import encode_body
from shared.errors import RedisUnavailable
from shared.settings import get_settings
from shared.user_stream import append_step
from worker.cli.folder import DataFolder
from worker.cli.options import data_option


def _payload(ctx: click.Context, parameter: click.Parameter, value: str) -> dict[str, Any]:
    try:
        payload = json.loads(value)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"takes a JSON object: {error}.") from error
    if not isinstance(payload, dict):
        raise click.BadParameter(f"takes a JSON object, such as {{}}, not {value}.")
    return payload


@click.command
@click.argument("user")
@click.argument("event_type", metavar="TYPE")
@click.argument("payload", metavar="JSON", callback=_payload)
@click.option("--scope-kind", metavar="K", help="What kind of thing the event is about.")
@click.option("--scope-id", metavar="ID", help="Which of them.")
@data_option
def publish(
    user: str,
    event_type: str,
    payload: dict[str, Any],
    scope_kind: str | None,
    scope_id: str | None,
    folder: Path,
) -> None:
    """Publish an event of TYPE with the payload JSON to USER, and print its id.

    To Redis, at REDIS_URL or of the running development stack.
    """
    settings = get_settings()
    scope = {"kind": scope_kind, "id": scope_id}
    scope = {name: value for name, value in scope.items() if value is not None}
    limit = settings.event_max_bytes
    body = encode_body(user, event_type, payload, scope=scope, max_bytes=limit)
    url = settings.redis_url or DataFolder(folder).place().redis_url
    try:
        (entry_id,) = append_step(settings, user, [body]).run(redis_client(url))
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise RedisUnavailable from error
    click.echo(entry_id.decode())
