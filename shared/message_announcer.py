"""Announcements of what was committed to messages: hints, which may be lost, for live readers.

One is `<prev> <last> <frames>`: the sequence number before its first event (-1 for none), that of
its last one, and the frames of all. `!finished <last>` follows where the message is over. A Redis
that is away is asked ever more rarely, so that it holds up nobody.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence

import redis

from shared import keys
from shared.connections import AnyRedis, app_redis, ask_together
from shared.errors import SettingsError
from shared.messages import RESTART_PAYLOAD, Attempt, Ended
from shared.settings import get_settings
from shared.wire import message_frame

log = logging.getLogger(__name__)

PAUSE_SECONDS = (0.5, 5.0)  # after a failure: the first, and the longest

Announcement = tuple[str, bytes]  # a channel, and what is said there


def told(
    message_id: str, prev: int, payloads: Iterable[bytes], *, finished: bool = False
) -> list[Announcement]:
    """What is announced of events that follow on `prev`."""
    frames = [message_frame(prev + n, payload) for n, payload in enumerate(payloads, 1)]
    channel, last = keys.message(message_id), prev + len(frames)
    said = [(channel, b"%d %d %b" % (prev, last, b"".join(frames)))] if frames else []
    if finished:
        said.append((channel, b"!finished %d" % last))
    return said


def told_of_ended(ended: Iterable[Ended]) -> list[Announcement]:
    """What is announced of messages that Postgres ended."""
    return [
        announcement
        for one in ended
        for announcement in told(
            one.message_id, one.sequence_no - 1, [one.payload.encode()], finished=True
        )
    ]


def told_of_attempt(attempt: Attempt) -> list[Announcement]:
    """What is announced of an attempt that began: its `restart`, where there is one."""
    if not attempt.restarted:
        return []
    return told(attempt.message_id, attempt.last_sequence - 1, [RESTART_PAYLOAD.encode()])


class Announcer:
    """Sends announcements, in order, and drops them while Redis is away."""

    def __init__(self, client: Callable[[], AnyRedis] = app_redis) -> None:
        self._client = client
        self._closed_until = 0.0  # the circuit: no try before then (monotonic seconds)
        self._pause_seconds = 0.0

    def announce(self, announcements: Sequence[Announcement]) -> None:
        """Sends them in one round trip, or drops them. To be called once they are committed."""
        if not announcements:
            return
        settings = get_settings()
        if not (settings.enable_sse_push and settings.redis_url):
            return
        if time.monotonic() < self._closed_until:
            return
        try:
            self._send(settings.publish_command, announcements)
        except (redis.RedisError, SettingsError, OSError) as error:
            self._pause(error)
        else:
            self._pause_seconds = 0.0

    def _send(self, command: str, announcements: Sequence[Announcement]) -> None:
        client = self._client()
        if isinstance(client, redis.RedisCluster):  # each goes to its own shard
            for channel, said in announcements:
                client.execute_command(command, channel, said)  # type: ignore[no-untyped-call]
            return
        for reply in ask_together(client, [(command, *one) for one in announcements]):
            if isinstance(reply, redis.RedisError):
                raise reply

    def _pause(self, error: Exception) -> None:
        first, longest = PAUSE_SECONDS
        if not self._pause_seconds:
            log.warning("messages are not announced: %s", error)
        self._pause_seconds = min(max(first, 2 * self._pause_seconds), longest)
        self._closed_until = time.monotonic() + self._pause_seconds
