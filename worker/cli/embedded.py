"""What the embedded servers have in common: a free loopback port, secret files, being waited for.

Servers listen on TCP only: a Unix socket's path is limited to 107 bytes, a data folder's is not.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from worker.cli.children import POLL_SECONDS, Child, ChildFailed

LOOPBACK = "127.0.0.1"
_LAUNCHES = 5


class Server(Protocol):
    """A server that runs as a child."""

    child: Child

    def launch(self) -> None:
        """Makes the child, on a free port."""

    def answers(self) -> bool:
        """Whether it takes commands now."""


def free_port(host: str = LOOPBACK) -> int:
    """Returns a TCP port that nothing listens on just now; somebody else may take it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def lost_its_port(child: Child) -> bool:
    """Whether the child ended because somebody else took its port first."""
    return not child.running and "in use" in child.last_lines().lower()


def pause() -> None:
    """Waits a moment between two looks at something."""
    time.sleep(POLL_SECONDS)


def wait_until_answering(
    server: Server, seconds: float = 30, pause: Callable[[], None] = pause
) -> None:
    """Returns as soon as a launched server answers; launches it anew where it lost its port.

    Raises:
        ChildFailed: it ended, or did not answer in time; with its last lines.
    """
    deadline = time.monotonic() + seconds
    launches = 1
    while not server.answers():
        if lost_its_port(server.child) and launches < _LAUNCHES:
            server.launch()
            launches += 1
        elif not server.child.running:
            raise ChildFailed(server.child.ended())
        elif time.monotonic() > deadline:
            name, lines = server.child.name, server.child.last_lines()
            raise ChildFailed(f"{name} did not answer for {seconds:g} seconds:\n{lines}")
        pause()


def write_secret(path: Path, text: str) -> None:
    """Writes a file that only its owner may read, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
