"""A strict reader of event streams for tests: it sees every block, comments and primes too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

DEADLINE_SECONDS = 30.0


@dataclass(frozen=True)
class Block:
    """What stands between two blank lines."""

    raw: str

    @property
    def fields(self) -> dict[str, str]:
        pairs = (line.partition(": ") for line in self.raw.split("\n"))
        return {name: value for name, _, value in pairs}

    @property
    def event(self) -> dict[str, Any] | None:
        data = self.fields.get("data")
        return json.loads(data) if data is not None else None


class Reader:
    """The blocks of one open response."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._blocks = self._split()

    def _split(self) -> Iterator[Block]:
        rest = ""
        for text in self.response.iter_text():
            rest += text
            *whole, rest = rest.split("\n\n")
            yield from map(Block, whole)
        assert rest == "", "a stream ends with a whole block"

    def block(self) -> Block:
        return next(self._blocks)

    def rest(self) -> list[Block]:
        return list(self._blocks)

    def events(self, number: int) -> list[dict[str, Any]]:
        """The next events, whatever stands between them."""
        found: list[dict[str, Any]] = []
        while len(found) < number:
            event = self.block().event
            if event is not None:
                found.append(event)
        return found

    def until(self, event_type: str) -> list[dict[str, Any]]:
        """The events up to the first of a type."""
        found = self.events(1)
        while found[-1]["type"] != event_type:
            found += self.events(1)
        return found


@contextmanager
def watch(
    url: str, cursor: str | None = None, *, path: str = "/api/events", **headers: str
) -> Iterator[Reader]:
    """Opens a stream, with a cursor in the header."""
    sent = dict(headers)
    if cursor is not None:
        sent["Last-Event-ID"] = cursor
    with (
        # Not to verify saves reading certificates, which takes longer than the rest.
        httpx.Client(timeout=DEADLINE_SECONDS, trust_env=False, verify=False) as client,
        client.stream("GET", url + path, headers=sent) as response,
    ):
        yield Reader(response)
