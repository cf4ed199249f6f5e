"""`GET /api/events` for both faces: who is asking, a place, the first page, then a reader.

Every refusal happens here, as a status code, before the stream opens. Connecting and recovering
are one path from there on: `web/reader.py`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping

from shared import keys, wire
from shared.encoding import now_iso, to_json
from shared.errors import MalformedCursor, RedisUnavailable
from web.admission import Place
from web.auth import Identity, authenticator
from web.cors import cors_headers
from web.delivery import Delivery
from web.hub import Topic
from web.merge import Merge
from web.outlet import Outlet, Send
from web.reader import Reader
from web.refusal import Refusal, internal_error, unavailable
from web.request import Request

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
LONGEST_AGENT = 200


async def open_user_events(delivery: Delivery, request: Request, send: Send) -> Reader | None:
    """Begins the answer to `GET /api/events`.

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
        if not delivery.settings.enable_sse_push:
            await outlet.start(200, HEADERS | headers)
            await outlet.finish(wire.PUSH_DISABLED)
            return None
        return await _open(delivery, request, identity, outlet, headers)
    except Refusal as refusal:
        await refuse(outlet, refusal, headers)
    except RedisUnavailable:
        await refuse(outlet, unavailable("The event stream"), headers)
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


async def _open(
    delivery: Delivery,
    request: Request,
    identity: Identity,
    outlet: Outlet,
    headers: Mapping[str, str],
) -> Reader:
    await delivery.hub.ready()
    # Subscribed before anything is read: what comes after the page is announced.
    topic = delivery.hub.enter(keys.topic(identity.user_id))
    place = Place(delivery.hub, delivery.settings, identity.user_id, _details(request))
    try:
        merge, frames = await _begin(delivery, request, topic, place)
        if delivery.draining:
            raise unavailable("The server")
        await outlet.start(200, {**HEADERS, **headers}, is_last=True)
        first = wire.retry_frame(*wire.RETRY_MS) + wire.CONNECTED + frames
        return Reader(delivery, topic, place, outlet, merge, first, _end_of(identity, delivery))
    except BaseException:
        place.give_back()
        delivery.hub.leave(topic)
        raise


def _end_of(identity: Identity, delivery: Delivery) -> float:
    """When what proved the identity is good no more, of the loop's clock."""
    if identity.expires_at is None:
        return math.inf
    return delivery.now() + identity.expires_at - time.time()


async def _begin(
    delivery: Delivery, request: Request, topic: Topic, place: Place
) -> tuple[Merge, bytes]:
    """Where the client stands, and what it gets first."""
    cap = delivery.settings.events_replay_max_per_request
    text = request.headers.get("last-event-id") or request.query.get("last_event_id")
    malformed = False
    try:
        cursor = wire.parse_cursor(text)
    except MalformedCursor:
        cursor, malformed = None, True
    last_id = await place.take(cursor, topic.observe)
    if cursor is None:
        notice = wire.truncated_frame("malformed_cursor", None, last_id) if malformed else b""
        return Merge(last_id, None), notice + wire.prime_frame(last_id)
    merge = Merge(cursor, cap)
    page = await delivery.read_after(place, merge, topic)
    return merge, merge.page(page)


def _details(request: Request) -> str:
    agent = request.headers.get("user-agent", "")[:LONGEST_AGENT]
    return to_json({"since": now_iso(), "address": request.address, "user_agent": agent})
