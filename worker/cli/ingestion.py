"""Uploading sources to a running server, and following their events until each has ended."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import httpx

from shared.errors import EventStreamError
from worker.cli.bars import View, printable
from worker.cli.following import follow_http
from worker.cli.uploads import Upload, current_cursor, send

_LOOK_SECONDS = 0.2
_TERMINAL = {
    "source.ingest.completed": "completed",
    "source.ingest.failed": "failed",
    "source.ingest.cancelled": "cancelled",
}


@dataclass(slots=True)
class Tally:
    """What became of the uploads, in whatever order it was learned."""

    uploads: int
    events: int = 0
    refused: list[str] = field(default_factory=list)
    _runs: set[str] = field(default_factory=set)
    _ends: dict[str, str] = field(default_factory=dict)
    _failures: dict[str, str] = field(default_factory=dict)

    def accept(self, run_id: str) -> None:
        """An upload was taken."""
        self._runs.add(run_id)

    def count(self, line: str) -> None:
        """An event came."""
        event = json.loads(line)
        self.events += 1
        if end := _TERMINAL.get(event["type"]):
            payload = event["payload"]
            self._ends[payload["run_id"]] = end
            if end == "failed":
                sentence = f"{payload['name']}: {payload['error']['message']}"
                self._failures[payload["run_id"]] = printable(sentence)

    def is_done(self) -> bool:
        """Whether every upload was taken and has ended, or was refused."""
        answered = len(self._runs) + len(self.refused) == self.uploads
        return answered and self._runs <= self._ends.keys()

    @property
    def completed(self) -> int:
        """How many of the uploads were ingested."""
        return sum(self._ends.get(run) == "completed" for run in self._runs)

    @property
    def sentences(self) -> list[str]:
        """Why those failed that did, a sentence each."""
        return self.refused + [self._failures[run] for run in self._failures if run in self._runs]

    def summary(self, seconds: float) -> str:
        """One line that says what came of it."""
        sources = "source" if self.uploads == 1 else "sources"
        return (
            f"{self.uploads} {sources}: {self.completed} completed, "
            f"{self.uploads - self.completed} failed; {self.events} events in {seconds:.1f} s"
        )


def ingest(uploads: Sequence[Upload], url: str, shown: View, check: Callable[[], None]) -> Tally:
    """Follows the events first, then uploads; returns once every source has ended.

    Args:
        uploads: the sources.
        url: the server's address.
        shown: shows each event.
        check: called several times a second; raises where there is no point in going on.

    Raises:
        StreamRefused: the server does not give its events.
    """
    return _Ingestion(uploads, url, shown).run(check)


class _Ingestion:
    """Two threads learn things, one from events, one from answers; the owner's acts on them."""

    def __init__(self, uploads: Sequence[Upload], url: str, shown: View) -> None:
        self._uploads = uploads
        self._url = url
        self._shown = shown
        self._tally = Tally(len(uploads))
        self._learned: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._following = threading.Event()

    def run(self, check: Callable[[], None]) -> Tally:
        """Returns what became of all uploads."""
        for work in (self._follow, self._upload):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()
        while not self._tally.is_done():
            check()
            try:
                act = self._learned.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue
            act()
        return self._tally

    def _follow(self) -> None:
        try:
            with httpx.Client(base_url=self._url, trust_env=False) as client:
                cursor = current_cursor(client)
            lines = follow_http(self._url, cursor, opened=self._following.set, trust_env=False)
            for line in lines:
                self._learned.put(partial(self._take_event, line))
        except EventStreamError as error:
            self._learned.put(partial(_give_up, error))

    def _upload(self) -> None:
        self._following.wait()
        with httpx.Client(base_url=self._url, trust_env=False) as client:
            for upload in self._uploads:
                try:
                    run_id = send(client, upload)
                except (EventStreamError, OSError) as error:
                    self._learned.put(partial(self._tally.refused.append, str(error)))
                else:
                    self._learned.put(partial(self._tally.accept, run_id))

    def _take_event(self, line: str) -> None:
        self._shown.show(line)
        self._tally.count(line)


def _give_up(error: EventStreamError) -> None:
    raise error
