"""What is measured: a system that streams events to its users, and how to talk to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import loadgen
from benchmarks.loadgen import Published
from benchmarks.machine import Footprint
from shared.encoding import encode_body
from worker.cli.embedded import LOOPBACK

EVENT_BYTES = 256
EVENT_TYPE = "benchmark.tick"
MARK = "@" + 16 * "0" + "@"  # the load generator puts the time of sending here
TOKEN = "#" + 16 * "0" + "#"  # and here what makes an event unlike any other


@dataclass(frozen=True, slots=True)
class Channel:
    """Where events are published: a port, what replies look like, and what opens a connection."""

    port: int
    replies: str
    sockets: int
    first: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Running:
    """A running system.

    `get` makes the request of a user's client, with a cursor or without; `event` the message that
    publishes to a user; `cursors` publishes `back` events to each user and returns the cursors
    from before them.
    """

    folder: Path
    port: int
    pid: int
    channel: Channel
    get: Callable[[str, str | None], bytes]
    event: Callable[[str], bytes]
    cursors: Callable[[Running, Sequence[str], int], list[str]]
    quickack: bool = False
    redis_url: str | None = None
    footprint: Footprint = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "footprint", Footprint(self.pid))

    def watchers(self, users: Sequence[str]) -> AbstractContextManager[loadgen.Watchers]:
        """Clients that hold streams, the users' in turn."""
        return loadgen.watchers(self.port, self.requests(users))

    def requests(self, users: Sequence[str], cursors: Sequence[str] | None = None) -> Path:
        """A file of one request for each user."""
        places: Sequence[str | None] = cursors if cursors is not None else [None] * len(users)
        made = [self.get(user, cursor) for user, cursor in zip(users, places, strict=True)]
        return loadgen.write_messages(self.folder / "requests", made)

    def publish(
        self, users: Sequence[str], *, rate: float = 0, seconds: float = 0, count: int = 0
    ) -> Published:
        """Publishes to the users in turn, paced or as a burst of `count`."""
        events = loadgen.write_messages(self.folder / "events", [self.event(u) for u in users])
        first = self.channel.first
        return loadgen.publish(
            self.channel.port,
            events,
            self.channel.replies,
            rate=rate,
            seconds=seconds,
            count=count,
            sockets=self.channel.sockets,
            first=loadgen.write_messages(self.folder / "first", first) if first else None,
        )


@dataclass(frozen=True, slots=True)
class System:
    """Something that can be started, fresh for each measurement."""

    name: str
    title: str
    start: Callable[[], AbstractContextManager[Running]]
    one_user: str = "user-0"
    many_users: bool = True


def body(user: str) -> str:
    """An event of 256 bytes, with a place for the time of sending."""
    plain = _body(user, "")
    return _body(user, "x" * max(0, EVENT_BYTES - len(plain)))


def _body(user: str, padding: str) -> str:
    payload = {"mark": MARK, "padding": padding}
    return encode_body(user, EVENT_TYPE, payload, scope=None, max_bytes=16_384)


def http_get(path: str, port: int, **headers: str) -> bytes:
    """A request for a stream; `_` in a header's name stands for `-`."""
    named = {"Host": f"{LOOPBACK}:{port}", "Accept": "text/event-stream"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, "", ""]).encode()
