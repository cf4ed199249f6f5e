"""Real web and worker processes for tests; each dies with the test process."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.cli.children import Child, LogSink, discard, spawn

DEADLINE_SECONDS = 30.0


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without its own settings, and with these."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "default", **variables}


def free_port() -> int:
    """A loopback port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop(child: Child) -> None:
    """Asks a child to stop, and kills it when it doesn't."""
    child.ask_to_stop()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while child.running and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()


@dataclass
class WebServer:
    """A web process that takes connections."""

    url: str
    child: Child

    @property
    def pid(self) -> int:
        return self.child.pid

    def wait(self) -> None:
        """Waits until the process has ended."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self.child.running:
            assert time.monotonic() < deadline, self.child.last_lines()
            time.sleep(0.02)


def web_command(face: str, port: int) -> list[str]:
    """How web is started: the faces, two of the loop's own and two of threads."""
    gunicorn = [*_module("gunicorn"), "--no-control-socket", "--bind", f"127.0.0.1:{port}"]
    return {
        "asgi": [*_module("uvicorn"), "web.asgi:app", "--port", str(port)],
        "wsgi": [*_module("flask"), "--app", "web", "run", "--port", str(port)],
        "gunicorn-asgi": [*gunicorn, "-k", "uvicorn_worker.UvicornWorker", "web.asgi:app"],
        "gunicorn-wsgi": [*gunicorn, "-k", "gthread", "--threads", "8", "web:create_app()"],
    }[face]


@contextmanager
def web_server(
    face: str,
    redis_url: str,
    database_url: str = "postgresql://nobody@127.0.0.1:1/none",
    *,
    options: Sequence[str] = (),
    port: str = "",
    **more: str,
) -> Iterator[WebServer]:
    """Runs web by one of its faces; `options` go to the server's command.

    Without a `port` it gets any that is free.
    """
    port_number = int(port) if port else free_port()
    env = environment(
        REDIS_URL=redis_url, DATABASE_URL=database_url, ALLOW_ANONYMOUS="true", **more
    )
    command = [*web_command(face, port_number), *options]
    child = spawn(f"web-{face}", command, env=env)
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not _listens(port_number):
            assert child.running, child.ended()
            assert time.monotonic() < deadline, child.last_lines()
            time.sleep(0.02)
        yield WebServer(f"http://127.0.0.1:{port_number}", child)
    finally:
        stop(child)


@contextmanager
def celery_worker(
    redis_url: str, database_url: str, *options: str, sink: LogSink = discard, **more: str
) -> Iterator[Child]:
    """Runs a worker until it is ready; `options` go to `celery worker`."""
    env = environment(REDIS_URL=redis_url, DATABASE_URL=database_url, **more)
    command = [*_module("celery"), "-A", "worker", "worker", "--loglevel", "INFO"]
    quiet = ["--without-gossip", "--without-mingle"]
    child = spawn("worker", [*command, *quiet, *options], env=env, ready_text=" ready.", sink=sink)
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not child.ready.wait(0.05):
            assert child.running, child.ended()
            assert time.monotonic() < deadline, child.last_lines()
        yield child
    finally:
        stop(child)


@contextmanager
def celery_beat(redis_url: str, database_url: str, schedule: Path, **more: str) -> Iterator[Child]:
    """Runs beat until it is ready; `schedule` is the file that it keeps."""
    env = environment(REDIS_URL=redis_url, DATABASE_URL=database_url, **more)
    command = [*_module("celery"), "-A", "worker", "beat", "--loglevel", "INFO"]
    command += ["--schedule", str(schedule), "--pidfile", ""]
    child = spawn("beat", command, env=env, ready_text="beat: Starting")
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not child.ready.wait(0.05):
            assert child.running, child.ended()
            assert time.monotonic() < deadline, child.last_lines()
        yield child
    finally:
        stop(child)


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
