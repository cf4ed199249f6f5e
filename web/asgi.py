"""The ASGI entrypoint: streams natively, all else through Flask. `uvicorn web.asgi:app`."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qsl

from a2wsgi import WSGIMiddleware

from shared.outbox import outbox
from shared.settings import get_settings
from web.app import create_app
from web.auth import authenticator
from web.cors import SAFE_METHODS, check_write, cors_headers
from web.delivery import Delivery
from web.outlet import Outlet, Send
from web.refusal import Refusal
from web.request import Request
from web.request_body import ClientGone, Receive, RequestBody, most_bytes, over_limit
from web.stopping import before_stop
from web.stream import open_stream, refuse

Scope = dict[str, Any]

FLASK_THREADS = 16


class Application:
    """An ASGI application. The streams of one event loop share one Delivery."""

    def __init__(self) -> None:
        flask: Any = create_app()
        self._flask: Any = WSGIMiddleware(flask, workers=FLASK_THREADS)
        self._delivery: tuple[asyncio.AbstractEventLoop, Delivery] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection of any kind (ASGI 3)."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(_request(scope), scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        if not request.opens_stream:
            await self._page(request, scope, receive, send)
            return
        reader = await open_stream(self._ready(), request, send)
        del request  # ten thousand streams are idle: each keeps what it needs
        if reader is not None:
            await reader.serve(receive)

    async def _page(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        settings = get_settings()
        limit = most_bytes(request, settings)
        length = request.headers.get("content-length", "")
        is_too_long = length.isdigit() and int(length) > limit
        if is_too_long or _is_refused(request):  # Flask says so without reading it
            await self._flask(scope, receive, send)
            return
        body = RequestBody()
        try:
            if not await body.read(receive, limit):
                headers = cors_headers(request, settings)
                await refuse(Outlet(send), over_limit(request, settings), headers)
                return
            await self._flask(_with_length(scope, body.size), body.receive, send)
        except ClientGone:
            return
        finally:
            body.close()

    def _ready(self) -> Delivery:
        loop = asyncio.get_running_loop()
        if self._delivery is None or self._delivery[0] is not loop:
            self._delivery = loop, Delivery(get_settings())
            _drain_at_stop(*self._delivery)
        return self._delivery[1]

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._ready()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._ready().aclose()
        await asyncio.to_thread(outbox().close)  # a signal ends the process without its exit hooks
        self._delivery = None
        await send({"type": "lifespan.shutdown.complete"})


def _drain_at_stop(loop: asyncio.AbstractEventLoop, delivery: Delivery) -> None:
    def drain() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(delivery.drain)

    before_stop(drain)


def _request(scope: Scope) -> Request:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:  # repeated ones as WSGI servers join them
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        joint = "; " if name == "cookie" else ","
        headers[name] = f"{headers[name]}{joint}{value}" if name in headers else value
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    client = scope.get("client")
    root_path = scope.get("root_path", "").rstrip("/")
    return Request(
        headers,
        dict(reversed(query)),  # the first of a repeated one, as Flask has it
        scope["method"],
        scope["path"].removeprefix(root_path),
        scope.get("scheme", "http"),
        client[0] if client else "",
        root_path,
    )


def _is_refused(request: Request) -> bool:
    """Whether a write is refused for what its headers say, as far as that is known at once."""
    if request.method in SAFE_METHODS:
        return False
    try:
        check_write(request, get_settings())
        if not authenticator().blocks(request):
            authenticator().identify(request)
    except Refusal:
        return True
    return False


def _with_length(scope: Scope, size: int) -> Scope:
    """The scope of a body whose size is known by now, also where it came in chunks."""
    framing = (b"content-length", b"transfer-encoding")
    headers = [(n, v) for n, v in scope["headers"] if n not in framing]
    if size:
        headers.append((b"content-length", str(size).encode()))
    return {**scope, "headers": headers}


app = asgi_app = Application()
