"""`eventstream publish`: one event to a user, by hand or from a shell script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import redis

from shared.connections import app_redis, redis_client
from shared.encoding import encode_body
from shared.errors import RedisUnavailable
from shared.settings import get_settings
from shared.user_stream import append_step
from worker.cli.folder import DataFolder
from worker.cli.options import data_option


def _payload(ctx: click.Context, parameter: click.Parameter, value: str) -> dict[str, Any]:
    try:
        payload = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"takes a JSON object: {error}.") from error
    if not isinstance(payload, dict):
        raise click.BadParameter(f"takes a JSON object, such as {{}}, not {value}.")
    return payload


def _scope(kind: str | None, of: str | None) -> dict[str, str]:
    if kind is None and of is None:
        return {}
    if not (kind and of):
        raise click.UsageError("--scope-kind and --scope-id go together, and neither is empty.")
    return {"kind": kind, "id": of}


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

    TYPE is a dotted name, such as report.ready, JSON an object, such as '{"report": 7}'. To Redis,
    at REDIS_URL or of the running development stack.
    """
    settings = get_settings()
    if not settings.enable_sse_push:
        raise click.ClickException("Nothing is published while ENABLE_SSE_PUSH is false.")
    scope = _scope(scope_kind, scope_id)
    limit = settings.event_max_bytes
    body = encode_body(user, event_type, payload, scope=scope, max_bytes=limit)
    try:
        if settings.redis_url:
            client = app_redis()
        else:
            client = redis_client(DataFolder(folder).place().redis_url)
        (entry_id,) = append_step(settings, user, [body]).run(client)
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise RedisUnavailable from error
    except redis.ResponseError as error:
        raise click.ClickException(f"Redis refused it: {error}.") from error
    click.echo(entry_id.decode())
