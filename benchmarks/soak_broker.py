"""Redis as the soak's broker, without the hole that Celery's transport for it has.

That transport takes a message off the queue (BRPOP), and notes then that a worker has it (HSET): a
worker that is killed in between loses the message for good, and every run that needs it. The soak
is about what this project does with the messages that come again. So here the message is moved
into a list of the worker's own (BLMOVE) until it is noted, and goes back to the queue when the
worker is started again.
"""

from __future__ import annotations

import os
from queue import Empty
from time import monotonic
from typing import Any

import redis
from kombu.transport.redis import Channel as RedisChannel
from kombu.transport.redis import Transport as RedisTransport
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

QUEUE = "celery"
WORKER = "SOAK_WORKER"  # the variable with the worker's name


def taken(worker: str) -> str:
    """The list of what a worker has taken, and not noted."""
    return f"soak:taken:{worker}"


def give_back(client: redis.Redis, worker: str) -> None:
    """Puts back what a killed worker had taken, to be called before it starts again."""
    while client.lmove(taken(worker), QUEUE, "LEFT", "RIGHT"):
        pass


class Channel(RedisChannel):
    """Takes messages in a way that a kill does not lose; for one queue without priorities."""

    def _brpop_start(self, timeout: float | None = None) -> None:
        if not self._queue_cycle.consume(1):  # type: ignore[attr-defined]
            return
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        mine, seconds = taken(os.environ[WORKER]), timeout or self.brpop_timeout
        self.client.connection.send_command("BLMOVE", QUEUE, mine, "RIGHT", "LEFT", seconds)

    def _brpop_read(self, **options: Any) -> bool:
        try:
            try:
                item = self.client.parse_response(self.client.connection, "BLMOVE", **options)
            except self.connection_errors:  # type: ignore[attr-defined]
                self.client.connection.disconnect()
                raise
            if not item:
                raise Empty
            self.connection._deliver(loads(bytes_to_str(item)), QUEUE)
            with self.conn_or_acquire() as client:
                client.lrem(taken(os.environ[WORKER]), 1, item)
            return True
        finally:
            self._in_poll = None


class Transport(RedisTransport):
    """What `broker_transport` names."""

    Channel = Channel
