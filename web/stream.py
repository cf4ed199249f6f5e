"""Every stream of events, for both faces: who is asking, a place, the first page, then a reader.

Every refusal happens here, as a status code, before the stream opens. Connecting and recovering
are one path from there on: `web/reader.py`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Protocol

from shared import wire
from shared.errors import PostgresUnavailable, RedisUnavailable
from web import message_channel, user_channel
from web.auth import Identity, authenticator
from web.cors import cors_headers
from web.delivery import Delivery
from web.journal import Journal
from web.merge import Merge
from web.outlet import Outlet, Send
from web.reader import Lease, Reader
from web.refusal import Refusal, internal_error, unavailable
from web.request import Request
from web.topic import Topic

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


class Channel(Protocol):
    """What one request asks to read, and the way in."""

    @property
    def journal(self) -> Journal:
        """What is read."""

    @property
    def place(self) -> Lease:
        """Its place among the user's connections, which `begin` takes."""

    async def begin(self, topic: Topic) -> tuple[Merge, bytes]:
        """Where the client stands, and what it gets first; raises what refuses it."""


async def open_stream(delivery: Delivery, request: Request, send: Send) -> Reader | None:
    """Begins the answer to a request that `Request.opens_stream`.

    Returns:
        The reader to be served; None where the request has been answered otherwise.
    """
    outlet = Outlet(send)
    headers = cors_headers(request, delivery.settings)
    try:
        identity = await authenticator().identify_in_loop(request)
        headers |= identity.headers
        if delivery.draining:
            raise unavailable("The server")
        channel = await _channel(delivery, request, identity)
        if channel is None:
            await outlet.start(200, HEADERS | headers)
            await outlet.finish(wire.PUSH_DISABLED)
            return None
        return await _open(delivery, identity, channel, outlet, headers)
    except Refusal as refusal:
        await refuse(outlet, refusal, headers)
    except RedisUnavailable:
        await refuse(outlet, unavailable("The event stream"), headers)
    except PostgresUnavailable:
        await refuse(outlet, unavailable("Postgres"), headers)
    except Exception:  # the request's edge
        if outlet.has_begun:
            raise
        log.exception("a stream could not be opened")
        await refuse(outlet, internal_error(), headers)
    return None


async def refuse(outlet: Outlet, refusal: Refusal, headers: Mapping[str, str]) -> None:
    """Answers with a refusal's status and JSON, and with these headers besides."""
    kind = {"Content-Type": "application/json"}
    await outlet.start(refusal.status, {**kind, **headers, **refusal.headers})
    await outlet.finish(refusal.body.encode())


async def _channel(delivery: Delivery, request: Request, identity: Identity) -> Channel | None:
    """What the request is for; None where it is turned off instance-wide."""
    if request.message_id is not None:
        return await message_channel.find(delivery, request, identity)
    if not delivery.settings.enable_sse_push:
        return None
    return await user_channel.find(delivery, request, identity)


async def _open(
    delivery: Delivery,
    identity: Identity,
    channel: Channel,
    outlet: Outlet,
    headers: Mapping[str, str],
) -> Reader:
    # Subscribed before anything is read: what comes after the page is announced.
    topic = delivery.hub.enter(channel.journal)
    try:
        merge, frames = await channel.begin(topic)
        if delivery.draining:
            raise unavailable("The server")
        await outlet.start(200, {**HEADERS, **headers}, is_last=True)
        first = wire.retry_frame(*wire.RETRY_MS) + wire.CONNECTED + frames
        ends_at = _end_of(identity, delivery)
        return Reader(delivery, topic, channel.place, outlet, merge, first, ends_at)
    except BaseException:
        channel.place.give_back()
        delivery.hub.leave(topic)
        raise


def _end_of(identity: Identity, delivery: Delivery) -> float:
    """When what proved the identity is good no more, of the loop's clock."""
    if identity.expires_at is None:
        return math.inf
    return delivery.now() + identity.expires_at - time.time()
