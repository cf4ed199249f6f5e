"""The worker's consumer: Celery's own, but it outlives a Redis broker that goes away.

kombu drops what a channel of a lost connection needs to reconnect, while the channel is still
open where Redis refuses connections. Closing it later, or acknowledging a message that it has
delivered, then raises an AttributeError that ends the worker.
"""

from __future__ import annotations

import logging

from celery.utils.threads import bound_open_broker_sockets  # type: ignore[attr-defined]
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu import Connection
from kombu.transport.redis import Channel

log = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0  # as long as Celery itself waits for a server that is silent


class Consumer(CeleryConsumer):
    """For the setting `worker_consumer`."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Lets go of the lost connection, its channels first, before another is made."""
        bound_open_broker_sockets(self.connection, CLOSE_SECONDS)
        _close_channels(self.connection)
        super().on_connection_error_after_connected(exc)


def _close_channels(connection: Connection | None) -> None:
    """Closes the channels while they know their server: a message can be acknowledged later."""
    for channel in list(getattr(connection and connection.transport, "channels", ())):
        if isinstance(channel, Channel):
            for _ in ("what it was reading", "the channel"):
                try:
                    channel.close()
                except Exception as error:  # the connection is lost
                    log.debug("a channel of the lost connection: %r", error)
