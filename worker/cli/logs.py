"""The merged log of several processes: one line at a time, each with its process's name."""

from __future__ import annotations

import os
import sys
import threading
from typing import TextIO

import click

_COLOURS = {
    "redis": "red",
    "postgres": "blue",
    "web": "green",
    "worker": "yellow",
    "beat": "magenta",
}
_WIDTH = max(map(len, _COLOURS))


def wants_colour(stream: TextIO) -> bool:
    """Whether to write colours: to a terminal, unless NO_COLOR says no (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


class MergedLog:
    """Writes lines of several threads to one stream; goes quiet when nobody reads it any more."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._colour = wants_colour(self._stream)
        self._lock = threading.Lock()
        self._open = True

    def __call__(self, name: str, line: str) -> None:
        """Writes one line of the process `name`."""
        prefix = f"{name:<{_WIDTH}} |"
        if self._colour:
            prefix = click.style(prefix, fg=_COLOURS.get(name, "cyan"))
        self.say(f"{prefix} {line}")

    def say(self, line: str) -> None:
        """Writes a line of the stack's own."""
        with self._lock:
            if not self._open:
                return
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except BrokenPipeError:
                self._open = False
