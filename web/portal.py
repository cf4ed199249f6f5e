"""The WSGI face of a stream: the same driver, on one event loop in a thread of this process.

The loop starts with the first stream, never at import: a process that forks afterwards would have
a portal without its thread. It is keyed by process id.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from shared.settings import get_settings
from web.delivery import Delivery
from web.request import Request
from web.stream import Send, stream_user_events

BUFFERED_WRITES = 16

Message = dict[str, Any]
Driver = Callable[[Delivery, Request, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body is still being written."""

    status: int
    headers: list[tuple[str, str]]
    body: Body


class Body:
    """The iterator that WSGI wants. `close()` ends the driver, and with it the subscription."""

    def __init__(
        self,
        portal: BlockingPortal,
        receive: MemoryObjectReceiveStream[Message],
        task: Future[None],
    ) -> None:
        self._portal = portal
        self._receive = receive
        self._task = task

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        message = self.next_message()
        if message is None:
            raise StopIteration
        return bytes(message.get("body", b""))

    def next_message(self) -> Message | None:
        """Waits for the driver's next message; None after the last."""
        try:
            message: Message = self._portal.call(self._receive.receive)
        except anyio.EndOfStream:
            return None
        return message

    def close(self) -> None:
        """Cancels the driver."""
        self._task.cancel()
        self._portal.call(self._receive.aclose)


def answer_user_events(request: Request) -> Answer:
    """Starts the driver for `GET /api/events` and returns as soon as its headers are known."""
    loop = _loop(os.getpid())
    send, receive = anyio.create_memory_object_stream[Message](BUFFERED_WRITES)
    task = loop.portal.start_task_soon(_drive, loop.delivery, request, send)
    body = Body(loop.portal, receive, task)
    start = body.next_message()
    if start is None:
        task.result()  # raises what ended the driver
        raise RuntimeError("the driver ended without an answer")
    headers = [(name.decode(), value.decode()) for name, value in start["headers"]]
    return Answer(start["status"], headers, body)


async def _drive(
    delivery: Delivery, request: Request, send: MemoryObjectSendStream[Message]
) -> None:
    async with send:
        await stream_user_events(delivery, request, send.send)


class _Loop:
    """The event loop of one process, in a daemon thread; it lives as long as the process."""

    def __init__(self) -> None:
        self._context = start_blocking_portal(name="eventstream-portal")  # let go, it would stop
        self.portal = self._context.__enter__()
        self.delivery = self.portal.call(_build)


_loops: dict[int, _Loop] = {}
_loops_lock = threading.Lock()


def _loop(pid: int) -> _Loop:
    with _loops_lock:  # tabs come back all at once
        if pid not in _loops:
            _loops[pid] = _Loop()
        return _loops[pid]


async def _build() -> Delivery:
    return Delivery(get_settings())
