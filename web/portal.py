"""The WSGI face of a stream: the same driver, on one event loop in a thread of this process.

The loop starts with the first stream, never at import: a process that forks afterwards would have
a portal without its thread. It is keyed by process id.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

import anyio
from anyio.from_thread import BlockingPortal

from shared.settings import get_settings
from web.delivery import Delivery
from web.pipe import Pipe
from web.reader import END_SECONDS
from web.request import Request
from web.stream import open_stream

log = logging.getLogger(__name__)

CLIENT_GONE = 499  # nginx's code for it, for the access log: nobody reads this answer
DRAIN_SECONDS = END_SECONDS + 0.5
POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body is still being written."""

    status: int
    headers: list[tuple[str, str]]
    body: Pipe


def answer_stream(request: Request, connection: socket.socket | None) -> Answer:
    """Starts the driver for a request that opens a stream; returns once its headers are known.

    Args:
        request: the client's.
        connection: its socket, where the server tells; a client that leaves is then noticed.
    """
    loop = _loop(os.getpid())
    pipe = Pipe(loop.portal, connection)
    task = loop.portal.start_task_soon(_drive, loop.delivery, request, pipe)
    start = pipe.next_message()
    if start is None:
        task.result()  # raises what ended the driver
        return Answer(CLIENT_GONE, [], pipe)
    headers = [(name.decode(), value.decode()) for name, value in start["headers"]]
    return Answer(start["status"], headers, pipe)


def drain() -> None:
    """Ends this process's streams, and waits for a moment until their threads have said so.

    From a signal handler, in the main thread: it takes no lock, and any thread may hold one.
    """
    pid = os.getpid()
    _stopping.add(pid)
    loop = _loops.get(pid)
    if loop is None:
        return
    with suppress(TimeoutError):
        loop.drain().result(DRAIN_SECONDS)


async def _drive(delivery: Delivery, request: Request, pipe: Pipe) -> None:
    try:
        with pipe.watched():
            reader = await open_stream(delivery, request, pipe.send)
            if reader is not None:
                await reader.serve(pipe.receive)
    except Exception:  # the task's edge: once there are headers, nobody asks how it ended
        log.exception("a stream failed")
        raise


class _Loop:
    """The event loop of one process, in a daemon thread; it lives as long as the process.

    Not by `start_blocking_portal`: at the exit, that waits for a thread which is gone by then.
    """

    def __init__(self) -> None:
        started: Future[BlockingPortal] = Future()
        name = "eventstream-portal"
        threading.Thread(target=anyio.run, args=(_run, started), name=name, daemon=True).start()
        self.portal = started.result()
        self._loop, self.delivery = self.portal.call(_build)

    def drain(self) -> Future[None]:
        """Ends its streams, lets no more in, and is done when their threads have said so."""
        return asyncio.run_coroutine_threadsafe(_drained(self.delivery), self._loop)


_loops: dict[int, _Loop] = {}
_loops_lock = threading.Lock()
_stopping: set[int] = set()  # ids of processes that were asked to


def _loop(pid: int) -> _Loop:
    with _loops_lock:  # tabs come back all at once
        if pid not in _loops:
            _loops[pid] = _Loop()
            if pid in _stopping:
                _loops[pid].drain()
        return _loops[pid]


async def _run(started: Future[BlockingPortal]) -> None:
    async with BlockingPortal() as portal:
        started.set_result(portal)
        await portal.sleep_until_stopped()


async def _drained(delivery: Delivery) -> None:
    delivery.drain()
    while delivery.hub.topics:
        await asyncio.sleep(POLL_SECONDS)
    await delivery.aclose()


async def _build() -> tuple[asyncio.AbstractEventLoop, Delivery]:
    return asyncio.get_running_loop(), Delivery(get_settings())
