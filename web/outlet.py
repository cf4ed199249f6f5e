"""Where a stream's bytes go: ASGI's `send`, driven by hand where it need not wait.

A server's `send` completes at once unless its socket is backed up. Waking a task for each frame
costs more than the frame, so the hub steps the coroutine itself; one that does wait is finished
by a task of its own.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from typing import Any

Message = dict[str, Any]
Send = Callable[[Message], Coroutine[Any, Any, None]]

# Servers whose `send` may be stepped outside of a task: it uses nothing of the task's.
_STEPPABLE = ("uvicorn.protocols.", "web.")


def body(data: bytes) -> Message:
    """A piece of a response that goes on."""
    return {"type": "http.response.body", "body": data, "more_body": True}


class Outlet:
    """One response, from its status to its end."""

    __slots__ = ("_owner", "_send", "_speaks_http_1", "has_begun")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False
        owner = getattr(send, "__self__", None)
        module = type(owner).__module__
        self._owner: Any = owner if module.startswith(_STEPPABLE) else None
        self._speaks_http_1 = module.startswith("uvicorn.")

    async def start(
        self, status: int, headers: Mapping[str, str], *, is_last: bool = False
    ) -> None:
        """Sends the status and the headers.

        Args:
            status: HTTP's.
            headers: their values by their names.
            is_last: have the connection end with this response, where the server lets us: one that
                goes on can't be cut when what waits for its client is not read.
        """
        self.has_begun = True
        pairs = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers.items()]
        if is_last and self._speaks_http_1:
            pairs.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def write(self, data: bytes) -> None:
        """Sends a piece of the body; waits while the socket is backed up."""
        await self._send(body(data))

    async def finish(self, data: bytes = b"") -> None:
        """Sends the last piece of the body."""
        await self._send({"type": "http.response.body", "body": data})

    def write_now(self, message: Message) -> Awaitable[None] | None:
        """Sends a piece of the body without waiting; returns what remains to be awaited, if any."""
        writing = self._send(message)
        if self._owner is None:
            return asyncio.ensure_future(writing)
        try:
            waits_for = writing.send(None)
        except StopIteration:
            return None
        return _rest(writing, waits_for)

    @property
    def can_abort(self) -> bool:
        """Whether the server lets us cut its connection."""
        return hasattr(self._owner, "transport")

    def abort(self) -> None:
        """Cuts the connection, with whatever is not sent yet, where the server lets us."""
        if self.can_abort:
            self._owner.transport.abort()

    def abort_after(self, seconds: float) -> None:
        """Cuts the connection of a last response, unless all has been taken by then."""
        if self.can_abort:
            asyncio.get_running_loop().call_later(seconds, self._owner.transport.abort)


@types.coroutine
def _rest(writing: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """Goes on, within a task, with a coroutine that was stepped until it waits for something."""
    try:
        yield waits_for
    except BaseException:
        writing.close()
        raise
    yield from writing.__await__()
