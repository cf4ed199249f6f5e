"""The `eventstream` command as a real process, for tests; it dies with the test process."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from worker.cli.children import Child, spawn

DEADLINE_SECONDS = 60.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Returns once a condition holds; fails when it doesn't in time."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


class Command:
    """A running command and everything it has written."""

    def __init__(self, *arguments: str, cwd: Path | None = None, **variables: str) -> None:
        self.lines: list[str] = []
        kept = ("PATH", "HOME", "LANG", "EVENTSTREAM_REDIS_SERVER", "EVENTSTREAM_POSTGRES_BIN")
        env = {name: os.environ[name] for name in kept if name in os.environ} | variables
        self.child: Child = spawn(
            "eventstream",
            [sys.executable, "-m", "worker.cli", *arguments],
            env=env,
            cwd=cwd,
            sink=lambda name, line: self.lines.append(line),
        )

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, text: str) -> str:
        """Returns the first line that holds a text, once it is there."""

        def found() -> str | None:
            return next((line for line in list(self.lines) if text in line), None)

        wait_until(lambda: found() or not self.child.running, f"{text!r} in:\n{self.output}")
        self.child.last_lines()  # all of it, where the command has ended
        line = found()
        assert line is not None, f"{text!r} is not in:\n{self.output}"
        return line

    def send(self, number: int) -> None:
        os.kill(self.child.pid, number)

    def wait(self) -> int:
        """Returns the exit code once the command has ended."""
        wait_until(lambda: not self.child.running, f"the end of:\n{self.output}")
        self.child.last_lines()
        code = self.child.exit_code
        assert code is not None
        return code

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.child.pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that run; one that ended and was not waited for does not."""
    return [p for p in processes if p.is_running() and _status(p) != psutil.STATUS_ZOMBIE]


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return psutil.STATUS_ZOMBIE


@contextmanager
def eventstream(*arguments: str, cwd: Path | None = None, **variables: str) -> Iterator[Command]:
    """Runs a command for the block."""
    command = Command(*arguments, cwd=cwd, **variables)
    try:
        yield command
    finally:
        if command.child.running:
            command.send(signal.SIGTERM)
            deadline = time.monotonic() + DEADLINE_SECONDS
            while command.child.running and time.monotonic() < deadline:
                time.sleep(0.02)
        command.child.kill()
