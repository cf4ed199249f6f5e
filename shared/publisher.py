"""Publishing an event to a user: one call, one round trip, and never the end of a task."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from shared.encoding import encode_body
from shared.errors import EventRefused
from shared.outbox import outbox
from shared.settings import get_settings
from shared.user_stream import append_step

log = logging.getLogger(__name__)


def publish_user_event(
    user_id: str,
    event_type: str,
    payload: Mapping[str, Any],
    *,
    scope: Mapping[str, Any] | None = None,
) -> str | None:
    """Appends an event to a user's stream and announces it, in one atomic step.

    Never raises for a missing Redis: the event then waits in this process, in order, and leaves
    with the next publish or heartbeat. An event that can't be published as it is (no user, no
    type, a payload that is no JSON object or larger than `EVENT_MAX_BYTES`) is logged with the
    reason.

    Args:
        user_id: whose stream.
        event_type: a dotted name, such as `tool.approval.required`.
        payload: a JSON object; datetimes, UUIDs, Decimals, enums and dataclasses are encoded.
        scope: what the event is about, such as `{"kind": "source", "id": "..."}`.

    Returns:
        The event's id, or None when it was not journaled (yet).
    """
    settings = get_settings()
    if not settings.enable_sse_push:
        return None
    try:
        body = encode_body(
            user_id, event_type, payload, scope=scope, max_bytes=settings.event_max_bytes
        )
    except EventRefused as error:
        log.error("event %r for user %r refused: %s", event_type, user_id, error)
        return None
    reply = outbox().send(append_step(settings, user_id, body))
    return reply[0].decode() if reply else None
