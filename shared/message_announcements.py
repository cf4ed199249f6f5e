"""What is announced on a message's channel: a hint, which may be lost, late or doubled."""

from __future__ import annotations

from shared import wire
from shared.messages import Ended

FINISHED = b"!finished "  # begins the announcement of the sequence number on which nothing follows


def announcements_of(ended: Ended) -> tuple[bytes, bytes]:
    """What to announce, in this order, of a message that Postgres has ended."""
    number = ended.sequence_no
    frame = wire.message_frame(number, ended.payload.encode())
    return b"%d %d %b" % (number - 1, number, frame), FINISHED + b"%d" % number
