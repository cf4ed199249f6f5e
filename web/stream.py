"""`GET /api/events` for both faces: who is asking, a place, the first page, then a reader.

Every refusal happens here, as a status code, before the stream opens. Connecting and recovering
are one path from there on: `web/reader.py`.
"""

from __future__ import annotations

from shared import keys, wire
from shared.encoding import now_iso, to_json
from shared.errors import MalformedCursor, RedisUnavailable
from shared.user_stream import Page
from web.admission import Place
from web.auth import identify
from web.delivery import Delivery
from web.hub import Topic
from web.merge import Merge
from web.outlet import Outlet, Send
from web.reader import Reader
from web.refusal import Refusal, unavailable
from web.request import Request

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
    try:
        user_id = identify(request.headers, delivery.settings)
        if delivery.draining:
            raise unavailable("The server")
        if not delivery.settings.enable_sse_push:
            await outlet.start(200, HEADERS)
            await outlet.finish(wire.PUSH_DISABLED)
            return None
        return await _open(delivery, request, user_id, outlet)
    except Refusal as refusal:
        await refuse(outlet, refusal)
    except RedisUnavailable:
        await refuse(outlet, unavailable("The event stream"))
    return None


async def refuse(outlet: Outlet, refusal: Refusal) -> None:
    """Answers with a refusal's status and JSON."""
    await outlet.start(refusal.status, {"Content-Type": "application/json", **refusal.headers})
    await outlet.finish(refusal.body.encode())


async def _open(delivery: Delivery, request: Request, user_id: str, outlet: Outlet) -> Reader:
    # Subscribed before anything is read: what comes after the page is announced.
    topic = delivery.hub.enter(keys.topic(user_id))
    place = Place(delivery.hub.link(topic.name), delivery.settings, user_id, _details(request))
    try:
        merge, frames = await _begin(delivery, request, topic, place)
        if delivery.draining:
            raise unavailable("The server")
        await outlet.start(200, HEADERS)
        await outlet.write(wire.retry_frame(*wire.RETRY_MS) + wire.CONNECTED + frames)
        return Reader(delivery, topic, place, outlet, merge, float("inf"))
    except BaseException:
        place.give_back()
        delivery.hub.leave(topic)
        raise


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
    found = await place.take(cursor, min(Merge.PAGE, cap), topic.observe)
    if isinstance(found, Page):
        merge = Merge(found.start, cap)
        return merge, merge.page(found)
    notice = wire.truncated_frame("malformed_cursor", None, found) if malformed else b""
    return Merge(found, None), notice + wire.prime_frame(found)


def _details(request: Request) -> str:
    agent = request.headers.get("user-agent", "")[:LONGEST_AGENT]
    return to_json({"since": now_iso(), "address": request.address, "user_agent": agent})
