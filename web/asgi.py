"""The ASGI entrypoint: streams natively, all else through Flask. `uvicorn web.asgi:app`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from a2wsgi import WSGIMiddleware

from shared.settings import get_settings
from web.app import create_app
from web.delivery import Delivery
from web.stream import Request, Send, stream_user_events

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]

FLASK_THREADS = 16


class Application:
    """An ASGI application. Its streams share one Delivery, made where its loop starts."""

    def __init__(self) -> None:
        flask: Any = create_app()
        self._flask: Any = WSGIMiddleware(flask, workers=FLASK_THREADS)
        self._delivery: Delivery | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection of any kind (ASGI 3)."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            if scope["path"] == "/api/events" and scope["method"] == "GET":
                await self._stream(scope, receive, send)
            else:
                await self._flask(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        driver = asyncio.ensure_future(stream_user_events(self._ready(), _request(scope), send))
        gone = asyncio.ensure_future(_until_disconnect(receive))
        try:
            await asyncio.wait({driver, gone}, return_when=asyncio.FIRST_COMPLETED)
            if driver.done():
                driver.result()  # raises what ended it
        finally:
            driver.cancel()
            gone.cancel()
            await asyncio.gather(driver, gone, return_exceptions=True)

    def _ready(self) -> Delivery:
        if self._delivery is None:  # a server without lifespan events
            self._delivery = Delivery(get_settings())
        return self._delivery

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        _chain_signals(self._ready().drain)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._ready().aclose()
        await send({"type": "lifespan.shutdown.complete"})


def _chain_signals(drain: Callable[[], None]) -> None:
    """Drains at SIGTERM and SIGINT, then does what the server does.

    uvicorn tells an open stream nothing before it is closed, and waits for it: without this a
    stop would hang for as long as somebody watches.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def handler(n: int, frame: Any, before: Any = before) -> None:
            loop.call_soon_threadsafe(drain)
            if callable(before):
                before(n, frame)

        try:
            signal.signal(number, handler)
        except ValueError:  # not the main thread: whoever embeds us drains
            return


def _request(scope: Scope) -> Request:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return Request(headers, dict(parse_qsl(scope["query_string"].decode("latin-1"))))


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


app = asgi_app = Application()
