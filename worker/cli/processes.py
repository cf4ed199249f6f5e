"""The processes of a stack as it runs them: their commands, and how each says that it is ready."""

from __future__ import annotations

import http.client
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from shared.errors import EventStreamError
from worker.cli.children import Child, Spawn
from worker.cli.embedded import free_port

DEFAULT_PORT = 8000
_HEALTH_SECONDS = 2
_GRACE_SECONDS = 5


class PortUnusable(EventStreamError):
    """The web process can't listen on this port."""


def check_port(host: str, port: int) -> None:
    """Returns if a server may listen there just now.

    Raises:
        PortUnusable: it is taken, or not this machine's or this account's to use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise PortUnusable(f"Can't listen on {host} port {port}: {error.strerror}.") from error


class Web:
    """The web process. It listens on `port`; without one on 8000, or any that is free."""

    def __init__(self, host: str, port: int | None, env: Mapping[str, str], spawn: Spawn) -> None:
        self.child: Child
        self.port = 0
        self._host = host
        self._explicit = port
        self._env = env
        self._spawn = spawn

    @property
    def url(self) -> str:
        """Where it is reached from outside."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    def launch(self) -> None:
        """Makes the child; a second launch means that its port was lost."""
        self.port = self._choose_port()
        self.child = self._spawn(
            "web",
            [
                *(sys.executable, "-m", "uvicorn", "web.asgi:app"),
                *("--host", self._host, "--port", str(self.port)),
                *("--timeout-graceful-shutdown", str(_GRACE_SECONDS)),
            ],
            env=self._env,
            ready_text="Uvicorn running on",
        )

    def _choose_port(self) -> int:
        if self._explicit is not None:
            check_port(self._host, self._explicit)
            return self._explicit
        try:
            check_port(self._host, DEFAULT_PORT)
            return DEFAULT_PORT
        except PortUnusable:
            return free_port(self._host)

    def answers(self) -> bool:
        """Whether it says that it, Redis and PostgreSQL are well."""
        if not self.child.ready.is_set():
            return False  # what answers on its port may be another stack
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        host = everywhere.get(self._host, self._host)
        connection = http.client.HTTPConnection(host, self.port, timeout=_HEALTH_SECONDS)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Worker:
    """A Celery worker with two processes."""

    def __init__(self, env: Mapping[str, str], spawn: Spawn) -> None:
        self.child: Child
        self._env = env
        self._spawn = spawn

    def launch(self) -> None:
        """Makes the child."""
        self.child = self._spawn(
            "worker",
            [
                *(sys.executable, "-m", "celery", "-A", "worker", "worker"),
                *("--loglevel", "INFO", "--concurrency", "2"),
                *("--without-gossip", "--without-mingle"),  # both are for several workers
            ],
            env=self._env,
            ready_text=" ready.",
        )

    def answers(self) -> bool:
        """Whether it has said that it takes tasks."""
        return self.child.ready.is_set()


class Beat:
    """Celery's scheduler, which keeps its schedule in a file."""

    def __init__(self, schedule: Path, env: Mapping[str, str], spawn: Spawn) -> None:
        self.child: Child
        self._schedule = schedule
        self._env = env
        self._spawn = spawn

    def launch(self) -> None:
        """Makes the child."""
        self.child = self._spawn(
            "beat",
            [
                *(sys.executable, "-m", "celery", "-A", "worker", "beat"),
                *("--schedule", self._schedule, "--loglevel", "INFO"),
                *("--pidfile", ""),  # the folder's lock does that
            ],
            env=self._env,
            ready_text="beat: Starting",
        )

    def answers(self) -> bool:
        """Whether it has said that it schedules."""
        return self.child.ready.is_set()
