"""A browser tab: a client of `/api/events` that reconnects from its cursor, and what it saw."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.sse import watch

_AGAIN_SECONDS = 0.2
_PATIENCE_SECONDS = 40.0
_OPTIONS: dict[str, Any] = {"trust_env": False, "verify": False}
PREFIX = "source.ingest."
TERMINAL = frozenset({"completed", "failed", "cancelled"})


def word(event: dict[str, Any]) -> str:
    """An event in a word or two: its type, and what tells it from others of its type."""
    kind = str(event["type"]).removeprefix(PREFIX)
    payload = event["payload"]
    match kind:
        case "started" if payload["attempt"] > 1:
            return f"started {payload['attempt']}"
        case "failed":
            return f"failed: {payload['error']['code']}"
        case "stalled" | "cancelled":
            return f"{kind}: {payload['reason']}"
    return kind


def words(events: list[dict[str, Any]]) -> list[str]:
    """All events in words, progress once for any number of it in a row."""
    said = [word(event) for event in events]
    return [w for i, w in enumerate(said) if w != "progress" or i == 0 or said[i - 1] != w]


def has_ended(events: list[dict[str, Any]]) -> bool:
    """Whether there are runs, and each is over."""
    ends = {e["payload"]["run_id"]: _kind(e) in TERMINAL for e in events}
    return bool(ends) and all(ends.values())


def _kind(event: dict[str, Any]) -> str:
    return str(event["type"]).removeprefix(PREFIX)


class Client:
    """Watches one user's stream, in a thread, from the cursor before anything happened."""

    def __init__(self, url: str, user: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.user = user
        self._url = url
        self._headers = {"Cookie": f"host_session={user}"}
        self._news = threading.Condition()
        self._is_over = threading.Event()
        answer = httpx.get(f"{url}/api/sources", headers=self._headers, **_OPTIONS)
        self._cursor: str = answer.raise_for_status().json()["cursor"]
        self._thread = threading.Thread(target=self._run, name=f"client-{user}", daemon=True)
        self._thread.start()

    def cancel(self, source_id: str) -> None:
        """Cancels what runs of a source."""
        url = f"{self._url}/api/sources/{source_id}"
        httpx.delete(url, headers=self._headers, **_OPTIONS).raise_for_status()

    @property
    def words(self) -> list[str]:
        return words(list(self.events))

    def wait_for(
        self,
        condition: Callable[[list[dict[str, Any]]], object],
        seconds: float = _PATIENCE_SECONDS,
    ) -> bool:
        """Returns whether a condition came to hold for the events in time."""
        with self._news:
            return self._news.wait_for(lambda: bool(condition(self.events)), seconds)

    def leave(self) -> None:
        """Ends the watching, within a keepalive."""
        self._is_over.set()

    def join(self) -> None:
        self._thread.join(_PATIENCE_SECONDS)

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                self._watch()
            except (httpx.TransportError, StopIteration, AssertionError):
                time.sleep(_AGAIN_SECONDS)

    def _watch(self) -> None:
        with watch(self._url, self._cursor, **self._headers) as reader:
            while not self._is_over.is_set():
                block = reader.block()
                self._cursor = block.fields.get("id", self._cursor)
                event = block.event
                if event is not None:
                    with self._news:
                        self.events.append(event)
                        self._news.notify_all()
