"""The wire format of Server-Sent Events: frames and cursors (WHATWG HTML, section 9.2).

A cursor is a position in a journal: a Redis Stream id, or the sequence number of a message's event.
"""

from __future__ import annotations

import random
import re

from shared.encoding import to_json
from shared.errors import MalformedCursor
from shared.events import BACKLOG_TRUNCATED

CONNECTED = b": connected\n\n"
KEEPALIVE = b": keepalive\n\n"
PUSH_DISABLED = b": push_disabled\n\n"
EXPIRED = b": token_expired\n\n"
ENDED = b": ended\n\n"  # somebody asked for it
POLLING = b": polling\n\n"  # no announcement can be heard: the journal is read every now and then
ORIGIN = "0-0"  # the position before a user stream's first entry
BEFORE_FIRST = "-1"  # the position before a message's first event

# Reconnection times in ms, each jittered: in general, after a capped snapshot, when a server stops.
RETRY_MS = (2000, 5000)
RETRY_CAPPED_MS = (100, 300)
RETRY_DRAINED_MS = (1000, 10_000)

_CURSOR = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
_LARGEST = 2**64 - 1
LARGEST = f"{_LARGEST}-{_LARGEST}"  # the last position that there can be
_SEQUENCE = re.compile(r"[0-9]{1,19}")
_LARGEST_SEQUENCE = 2**63 - 1


def parse_cursor(text: str | None) -> str | None:
    """Returns a cursor as `ms-seq`, or None for an absent one (None or empty).

    `ms` means `ms-0`; `0` is the position before the first entry.

    Raises:
        MalformedCursor: the text is no Redis Stream id.
    """
    if not text:
        return None
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise MalformedCursor
    ms, seq = int(match[1]), int(match[2] or 0)
    if max(ms, seq) > _LARGEST:
        raise MalformedCursor
    return f"{ms}-{seq}"


def parse_sequence(text: str | None) -> str | None:
    """Returns the cursor of a message's journal, or None for an absent one (None or empty).

    Raises:
        MalformedCursor: the text is no sequence number.
    """
    if not text:
        return None
    if _SEQUENCE.fullmatch(text) is None or int(text) > _LARGEST_SEQUENCE:
        raise MalformedCursor
    return str(int(text))


def cursor_key(cursor: str) -> tuple[int, int]:
    """A well-formed cursor's place in the order of its journal; that of `-1` is before all."""
    number, _, seq = cursor.partition("-")
    return int(number or -1), int(seq or 0)


def retry_frame(low_ms: int, high_ms: int) -> bytes:
    """A jittered reconnection time. EventSource keeps the last one across connections."""
    return b"retry: %d\n\n" % random.randint(low_ms, high_ms)


def prime_frame(cursor: str) -> bytes:
    """An id without data: moves a client's cursor and fires nothing."""
    return f"id: {cursor}\n\n".encode()


def event_frame(entry_id: bytes, body: bytes) -> bytes:
    """The frame of one entry: byte for byte what the append step announces."""
    return b'id: %b\ndata: {"id":"%b",%b\n\n' % (entry_id, entry_id, body[1:])


def message_frame(sequence_no: int, payload: bytes) -> bytes:
    """The frame of one event of a message, live and replayed. `payload` is one line of JSON."""
    return b"id: %d\ndata: %b\n\n" % (sequence_no, payload)


def truncated_frame(reason: str, oldest_retained_id: str | None, cursor: str | None) -> bytes:
    """The notice that entries after a client's cursor are gone, or can't be proven present.

    `cursor` is where the stream goes on; None for a message, which begins anew.
    """
    payload = {"reason": reason, "oldest_retained_id": oldest_retained_id, "cursor": cursor}
    return f"data: {to_json({'type': BACKLOG_TRUNCATED, 'payload': payload})}\n\n".encode()
