"""A data folder: who holds it, its secrets, which processes run on it, where they answer.

One owner at a time: the lock is the kernel's, so that it ends with the owner. Secrets are files
that only their owner reads, and not a closed folder: PostgreSQL may run as another account.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from shared.errors import EventStreamError
from worker.cli.children import Child
from worker.cli.embedded import pause, write_secret

_STOP_SECONDS = 10
# A clock that was set right in between moves the times that processes are said to have begun at.
_SAME_START_SECONDS = 2


class FolderInUse(EventStreamError):
    """Another `eventstream dev` runs on this data folder."""


class NotRunning(EventStreamError):
    """No development stack runs on this data folder. Start one: 'eventstream dev'."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """The passwords of a folder's servers."""

    redis: str
    postgres: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a running stack answers; `url` is None where it has no web process."""

    pid: int
    started: float
    url: str | None
    redis_url: str
    database_url: str


class DataFolder:
    """The folder at `path`, made by `claim` where it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    def make(self) -> None:
        """Makes the folder where it is not there."""
        if not self.path.exists():
            self.path.mkdir(parents=True)
            self.path.chmod(0o711)  # the account that PostgreSQL runs under passes through

    def claim(self) -> None:
        """Takes the folder for this process and ends what a killed owner left running.

        Raises:
            FolderInUse: another process holds it.
        """
        self.make()
        self._lock = self._locked()
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        self._end_leftovers()

    def refuse_if_held(self) -> None:
        """Returns if nobody holds the folder just now.

        Raises:
            FolderInUse: another process holds it.
        """
        os.close(self._locked())

    def _locked(self) -> int:
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(lock, 32, 0).decode().strip() or "unknown"
            os.close(lock)
            raise FolderInUse(
                f"Another 'eventstream dev' runs on {self.path}: process {pid}. "
                "Stop it, or take another folder with --data."
            ) from error
        return lock

    def release(self) -> None:
        """Gives the folder back; everything on it has stopped."""
        self._stack_file.unlink(missing_ok=True)
        self._record_file.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def _stack_file(self) -> Path:
        return self.path / "stack.json"

    @property
    def _record_file(self) -> Path:
        return self.path / "procs.json"

    def secrets(self) -> Secrets:
        """The passwords of this folder's servers, made at first use."""
        file = self.path / "secrets.json"
        if not file.exists():
            made = Secrets(secrets.token_hex(16), secrets.token_hex(16))
            write_secret(file, json.dumps(asdict(made)))
        return Secrets(**json.loads(file.read_text()))

    def record(self, children: Iterable[Child]) -> None:
        """Notes which processes run, for the next owner, in case this one is killed."""
        rows = [[c.name, c.pid, _started(c.pid)] for c in children if c.running]
        write_secret(self._record_file, json.dumps(rows))

    def announce(self, url: str | None, redis_url: str, database_url: str) -> None:
        """Notes for other shells where the stack answers."""
        pid = os.getpid()
        place = Place(pid, _started(pid), url, redis_url, database_url)
        write_secret(self._stack_file, json.dumps(asdict(place)))

    def place(self) -> Place:
        """Where the stack on this folder answers.

        Raises:
            NotRunning: there is none.
        """
        try:
            place = Place(**json.loads(self._stack_file.read_text()))
        except FileNotFoundError:
            place = None
        if place is None or _find(place.pid, place.started) is None:
            raise NotRunning(
                f"No development stack runs on {self.path}. Start one: eventstream dev"
            )
        return place

    def _end_leftovers(self) -> None:
        if not self._record_file.exists():
            return
        rows = json.loads(self._record_file.read_text())
        for name, pid, started in rows:
            if _find(pid, started) and name == "postgres":
                os.kill(pid, signal.SIGINT)
            elif _find(pid, started):
                os.killpg(pid, signal.SIGKILL)
        deadline = time.monotonic() + _STOP_SECONDS
        while running := [row for row in rows if _find(row[1], row[2])]:
            if time.monotonic() > deadline:
                for _, pid, _ in running:
                    os.killpg(pid, signal.SIGKILL)
                deadline += _STOP_SECONDS
            pause()


def _started(pid: int) -> float:
    return psutil.Process(pid).create_time()


def _find(pid: int, started: float) -> psutil.Process | None:
    """The process with this id, if it is the one that began then and is not a zombie."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < _SAME_START_SECONDS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
