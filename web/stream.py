"""The one driver of an SSE response, for both faces: admit, subscribe, snapshot, tail.

It pushes into a `send` of ASGI's form. Any doubt returns the stream to the journal from its own
cursor; connecting and recovering are one path. Every refusal happens before the stream opens.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from shared import wire
from shared.errors import MalformedCursor, RedisUnavailable
from shared.user_stream import Page
from web.admission import Lease
from web.auth import Identity, authenticator
from web.cors import cors_headers
from web.delivery import Delivery
from web.hub import Subscription
from web.merge import Merge, State
from web.refusal import Refusal, unavailable
from web.request import Request

Send = Callable[[dict[str, Any]], Awaitable[None]]

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
RECOVERY_SECONDS = (0.3, 1.5)
RETRY_MS = (2000, 5000)
RETRY_CAPPED_MS = (100, 300)
RETRY_DRAINED_MS = (1000, 10_000)


class Journal(Protocol):
    """A journal that can be streamed."""

    topic: str

    async def last_id(self) -> str:
        """The cursor of its newest entry."""

    async def read_after(self, cursor: str, limit: int) -> Page:
        """A page past a cursor."""


async def stream_user_events(delivery: Delivery, request: Request, send: Send) -> None:
    """Answers `GET /api/events`: refused with a status, or streamed until either side ends it."""
    headers = cors_headers(request, delivery.settings)
    try:
        identity = await _identify(request)
        headers |= identity.headers
        if delivery.draining:
            raise unavailable("The server")
        if not delivery.settings.enable_sse_push:
            await _open(send, headers, wire.PUSH_DISABLED)
            await _end(send)
            return
        journal = delivery.user_stream(identity.user_id)
        await _Stream(delivery, journal, send, headers).run(identity.user_id, request)
    except Refusal as refusal:
        await refuse(send, refusal, headers)


async def _identify(request: Request) -> Identity:
    try:
        if authenticator().blocks(request):
            return await asyncio.to_thread(authenticator().identify, request)
        return authenticator().identify(request)
    except RedisUnavailable as error:
        raise unavailable("Redis") from error


class _Stream:
    def __init__(
        self, delivery: Delivery, journal: Journal, send: Send, headers: Mapping[str, str]
    ) -> None:
        self._delivery = delivery
        self._journal = journal
        self._send = send
        self._headers = headers
        self._keepalive_seconds = delivery.settings.sse_keepalive_seconds
        self._renew_at = asyncio.get_running_loop().time() + self._keepalive_seconds

    async def run(self, user_id: str, request: Request) -> None:
        """Opens the stream once lease, subscription and first page stand; else refuses."""
        cap = self._delivery.settings.events_replay_max_per_request
        text = request.headers.get("last-event-id") or request.query.get("last_event_id")
        try:
            cursor, malformed = wire.parse_cursor(text), False
        except MalformedCursor:
            cursor, malformed = None, True
        try:
            async with (
                self._delivery.admitted(user_id, replay=cursor is not None) as lease,
                self._delivery.hub.subscribe(self._journal.topic) as subscription,
            ):
                opening = b""
                if cursor is None:
                    opening, cursor = await self._primed(malformed)
                merge = Merge(cursor, cap)
                opening += await self._page(merge)
                opening = wire.retry_frame(*RETRY_MS) + wire.CONNECTED + opening
                await _open(self._send, self._headers, opening)
                await self._follow(merge, subscription, lease)
        except RedisUnavailable as error:  # before the stream opened: _follow answers its own
            raise unavailable("The event stream") from error
        await _end(self._send)

    async def _primed(self, malformed: bool) -> tuple[bytes, str]:
        """What a client without a usable cursor gets first, and where it starts: at the end."""
        cursor = await self._journal.last_id()
        notice = wire.truncated_frame("malformed_cursor", None, cursor) if malformed else b""
        return notice + wire.prime_frame(cursor), cursor

    async def _page(self, merge: Merge) -> bytes:
        return merge.page(await self._journal.read_after(merge.position, merge.want))

    async def _follow(self, merge: Merge, subscription: Subscription, lease: Lease) -> None:
        while not self._delivery.draining:
            await self._renew(merge, lease)
            match merge.state:
                case State.ENDED:
                    await _write(self._send, wire.retry_frame(*RETRY_CAPPED_MS))
                    return
                case State.CATCHING_UP:
                    await self._catch_up(merge)
                case State.LIVE:
                    await self._tail(merge, subscription)
        await _write(self._send, wire.retry_frame(*RETRY_DRAINED_MS))

    async def _renew(self, merge: Merge, lease: Lease) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._renew_at:
            return
        self._renew_at = now + self._keepalive_seconds
        last_id = await lease.renew()
        if last_id is not None and last_id != merge.position:
            merge.doubt()  # an announcement is under way, or was lost

    async def _catch_up(self, merge: Merge) -> None:
        try:
            frames = await self._page(merge)
        except RedisUnavailable:  # the cursor stays; the hub's return or the next try goes on
            await _write(self._send, wire.KEEPALIVE)
            await asyncio.sleep(random.uniform(*RECOVERY_SECONDS))
            return
        if frames:
            await _write(self._send, frames)

    async def _tail(self, merge: Merge, subscription: Subscription) -> None:
        if not await subscription.wait(self._keepalive_seconds):
            await _write(self._send, wire.KEEPALIVE)
            return
        announcements, missed = subscription.take()
        if missed:
            merge.doubt()
        frames = b"".join([merge.announce(each) for each in announcements])
        if frames:
            await _write(self._send, frames)


async def refuse(send: Send, refusal: Refusal, headers: Mapping[str, str] | None = None) -> None:
    """Answers with a refusal's status and JSON, and with more headers."""
    own = {"Content-Type": "application/json", **refusal.headers}
    await _start(send, refusal.status, {**own, **(headers or {})})
    await send({"type": "http.response.body", "body": refusal.body.encode()})


async def _open(send: Send, headers: Mapping[str, str], first: bytes) -> None:
    await _start(send, 200, {**HEADERS, **headers})
    await _write(send, first)


async def _start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _end(send: Send) -> None:
    await send({"type": "http.response.body", "body": b""})
