"""Journal one, the writing side: a user's events in a Redis Stream, appended in atomic steps."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from shared import keys
from shared.encoding import type_of
from shared.scripts import script
from shared.settings import Settings
from shared.steps import Step

STEP_EVENTS = 500
STEP_BYTES = 1024 * 1024


def append_step(settings: Settings, user_id: str, bodies: Sequence[str]) -> Step:
    """The step that appends encoded events and announces them; a repetition appends nothing.

    Its reply holds their ids. Not more at once than `in_steps` allows.
    """
    head = [*stream_args(settings, user_id), secrets.token_hex(8)]
    return Step(
        script("append"),
        [keys.stream(user_id)],
        [*head, "", *bodies],
        retry_args=[*head, "1", *bodies],
        events=lambda _: map(type_of, bodies),
    )


def stream_args(settings: Settings, user_id: str) -> list[Any]:
    """What a step that appends to a user's stream is told of it: `to` in `append_entry.lua`."""
    return [
        keys.topic(user_id),
        settings.publish_command,
        settings.events_stream_maxlen,
        settings.events_stream_ttl_seconds * 1000,
    ]


def in_steps(bodies: Sequence[str]) -> Iterator[range]:
    """Cuts encoded events, by their places, into what one step may append.

    Redis does nothing else meanwhile: at most 500 events, and about 1 MiB.
    """
    start, size = 0, 0
    for place, body in enumerate(bodies):
        if place > start and (place - start == STEP_EVENTS or size + len(body) > STEP_BYTES):
            yield range(start, place)
            start, size = place, 0
        size += len(body)
    if bodies:
        yield range(start, len(bodies))
