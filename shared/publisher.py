"""Publishing events to a user: one call, one round trip, and never the end of a task."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from shared.encoding import encode_body
from shared.errors import EventRefused
from shared.outbox import outbox
from shared.settings import Settings, get_settings
from shared.user_stream import append_step, in_steps

log = logging.getLogger(__name__)

_TIME_LIMIT = "SoftTimeLimitExceeded"  # Celery's, which nothing here imports


class NewEvent(NamedTuple):
    """An event to be published; a plain tuple of the same does as well."""

    type: str
    payload: Mapping[str, Any]
    scope: Mapping[str, Any] | None = None


def publish_user_event(
    user_id: str,
    event_type: str,
    payload: Mapping[str, Any],
    *,
    scope: Mapping[str, Any] | None = None,
) -> str | None:
    """Appends an event to a user's stream and announces it, in one atomic step.

    Never raises for a missing Redis: the event then waits in this process, in order, and leaves
    with the next publish or heartbeat, or when the process ends. An event that can't be published
    as it is (no user, no type, a payload that is no JSON object, that raises, or that is larger
    than `EVENT_MAX_BYTES`) is logged with the reason.

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
    body = _encode(settings, user_id, (event_type, payload, scope))
    return None if body is None else _append(settings, user_id, [body])[0]


def publish_user_events(user_id: str, events: Iterable[NewEvent]) -> list[str | None]:
    """Appends events to a user's stream and announces them, in order, in one atomic step.

    Not one at a time: nobody else's event comes between, and one round trip does for all, up to
    500 events or 1 MiB; more go in several such steps. Otherwise as `publish_user_event`. A bad
    event is logged with its place and the reason, and the others go.

    Args:
        user_id: whose stream.
        events: such as `[NewEvent("report.ready", {"report": 7})]`.

    Returns:
        For each event its id, or None when it was not journaled (yet).
    """
    settings = get_settings()
    wanted = list(events)
    ids: list[str | None] = [None] * len(wanted)
    if not settings.enable_sse_push:
        return ids
    encoded = [_encode(settings, user_id, event, place) for place, event in enumerate(wanted)]
    good = [place for place, body in enumerate(encoded) if body is not None]
    bodies = [body for body in encoded if body is not None]
    for part in in_steps(bodies):
        found = _append(settings, user_id, bodies[part.start : part.stop])
        for index, entry_id in zip(part, found, strict=True):
            ids[good[index]] = entry_id
    return ids


def _encode(
    settings: Settings, user_id: str, event: tuple[Any, ...], place: int | None = None
) -> str | None:
    """Returns the event's body; None for one that is refused, which is logged."""
    try:
        new = NewEvent(*event)
        return encode_body(
            user_id, new.type, new.payload, scope=new.scope, max_bytes=settings.event_max_bytes
        )
    except Exception as error:  # the edge: whatever a payload's own code raises fails no task
        if _is_time_limit(error):
            raise
        which = "event" if place is None else f"event {place} of a batch,"
        shown = event[0] if isinstance(event, tuple) and event else event
        traceback = not isinstance(error, (EventRefused, TypeError))
        log.error("%s %r for user %r refused: %s", which, shown, user_id, error, exc_info=traceback)
        return None


def _is_time_limit(error: Exception) -> bool:
    """Whether an exception came from outside, for the task: Celery raises it wherever it is."""
    return any(kind.__name__ == _TIME_LIMIT for kind in type(error).__mro__)


def _append(settings: Settings, user_id: str, bodies: list[str]) -> list[str | None]:
    reply = outbox().send(append_step(settings, user_id, bodies))
    return [entry_id.decode() or None for entry_id in reply] if reply else [None] * len(bodies)
