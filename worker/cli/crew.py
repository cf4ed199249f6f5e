"""The children of one stack: recorded for the next owner, watched, stopped in order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worker.cli.children import Child, LogSink, spawn, stop
from worker.cli.folder import DataFolder

# Those that use a server end before it does.
_STOP_ORDER = (("web", "worker", "beat"), ("postgres",), ("redis",))
# A worker finishes what it executes; what takes longer is given back at the next start.
_STOP_SECONDS = 8


class Crew:
    """Children by name. A child of the same name takes the other's place."""

    def __init__(self, folder: DataFolder, sink: LogSink) -> None:
        self._folder = folder
        self._sink = sink
        self._children: dict[str, Child] = {}

    def spawn(self, name: str, command: Sequence[str | Path], **options: Any) -> Child:
        """Starts a child, as `children.spawn` does, and records it."""
        child = spawn(name, command, sink=self._sink, **options)
        self._children[name] = child
        self._folder.record(self._children.values())
        return child

    def ended(self) -> Child | None:
        """One that ended by itself, the first started first."""
        return next((child for child in self._children.values() if not child.running), None)

    def stop(self) -> None:
        """Stops all in good order; kills what takes too long."""
        for names in _STOP_ORDER:
            group = [child for name, child in self._children.items() if name in names]
            stop(group, _STOP_SECONDS)

    def kill(self) -> None:
        """Ends all at once, without waiting: for a signal handler."""
        for child in self._children.values():
            child.kill_unwaited()


class StopRequested(Exception):
    """Somebody asked this process to stop."""


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP: the first asks to stop, the second ends everything at once."""

    def __init__(self) -> None:
        self.asked = 0

    @contextmanager
    def taken(self, kill: Callable[[], None]) -> Iterator[None]:
        """Takes the signals over for the block; the second calls `kill` and ends the process."""

        def receive(number: int, frame: object) -> None:
            self.asked += 1
            if self.asked > 1:
                kill()
                raise SystemExit(128 + number)

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        previous = {number: signal.signal(number, receive) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
