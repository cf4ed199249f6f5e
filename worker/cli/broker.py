"""Messages of a broker whose workers are all gone."""

from __future__ import annotations

from typing import Any

from kombu import Connection


def give_back(broker_url: str) -> int:
    """Puts what killed workers held unacknowledged back into the queues; returns how many.

    kombu's Redis transport does so by itself only after the visibility timeout, an hour. To be
    called where no worker runs: what one holds would be executed twice.
    """
    options = {"visibility_timeout": 0}
    with Connection(broker_url, transport_options=options) as connection:
        channel: Any = connection.default_channel  # of kombu's Redis transport
        with channel.conn_or_acquire() as client:
            client.delete(channel.unacked_mutex_key)  # a killed worker may have held it
            held: int = client.zcard(channel.unacked_index_key)
        channel.qos.restore_visible(num=None, interval=1)
        return held
