"""Child processes that die with this process, each with its output read line by line.

Children are made by the main thread only: the kernel's parent-death signal fires when the thread
that made a child ends. Each has a session of its own, so that Ctrl-C in a terminal reaches only
the owner, which stops them in order.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from shared.errors import EventStreamError

LogSink = Callable[[str, str], None]  # takes a child's name and one line
Spawn = Callable[..., "Child"]  # `spawn`, or something that adds to it

POLL_SECONDS = 0.02
_LAUNCHER = str(Path(__file__).with_name("launcher.py"))
_LINES_KEPT = 20


class ChildFailed(EventStreamError):
    """A process could not be started, or ended by itself."""


class Account(StrEnum):
    """Whose account a child runs under. NAMESPACE: root's files under a uid that is not root's."""

    SELF = "self"
    NOBODY = "nobody"
    NAMESPACE = "namespace"


def discard(name: str, line: str) -> None:
    """A log sink that drops every line."""


class Child:
    """A running process and the last lines that it wrote.

    `ready` is set once it writes a line that holds `ready_text`.
    """

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[str],
        stop_signal: int,
        ready_text: str | None,
        sink: LogSink,
    ) -> None:
        self.name = name
        self.pid = process.pid
        self.ready = threading.Event()
        self._process = process
        self._stop_signal = stop_signal
        self._ready_text = ready_text
        self._sink = sink
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._pump = threading.Thread(target=self._read, name=f"log-{name}", daemon=True)
        self._pump.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                text = line.rstrip("\n")
                self._lines.append(text)
                if self._ready_text is not None and self._ready_text in text:
                    self.ready.set()
                self._sink(self.name, text)

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal's number; None while it runs."""
        return self._process.poll()

    def last_lines(self) -> str:
        """What it wrote last, at most twenty lines."""
        if not self.running:
            self._pump.join(timeout=0.5)
        return "\n".join(self._lines)

    def ended(self) -> str:
        """A sentence that says how the process ended, followed by its last lines."""
        code = self.exit_code
        signalled = code is not None and code < 0
        how = f"was ended by signal {-(code or 0)}" if signalled else f"ended with exit code {code}"
        lines = self.last_lines()
        return f"{self.name} {how}" + (f". Its last lines:\n{lines}" if lines else ".")

    def ask_to_stop(self) -> None:
        """Sends the signal at which this program stops in good order."""
        if self.running:
            self._process.send_signal(self._stop_signal)

    def kill_unwaited(self) -> None:
        """Ends the process and its children without waiting: for a signal handler."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """Ends the process and the children it made, at once."""
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._pump.join(timeout=1)


def spawn(
    name: str,
    command: Sequence[str | Path],
    *,
    stop_signal: int = signal.SIGTERM,
    death_signal: int = signal.SIGKILL,
    account: Account = Account.SELF,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    ready_text: str | None = None,
    sink: LogSink = discard,
) -> Child:
    """Starts a program, to be called from the main thread.

    Args:
        name: how logs and errors call it.
        command: an absolute path and its arguments.
        stop_signal: what `ask_to_stop` sends.
        death_signal: what the kernel sends it when this process dies, whatever the cause (Linux).
        account: whose account it runs under.
        env: its environment; None for this process's own.
        cwd: its working directory; None for this process's own.
        ready_text: part of the line that says it is ready.
        sink: takes every line it writes, on a thread of its own.
    """
    launch = [sys.executable, "-I", "-S", _LAUNCHER, str(os.getpid()), str(int(death_signal))]
    process = subprocess.Popen(
        [*launch, account.value, *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=env,
        cwd=cwd,
        text=True,
        errors="replace",
    )
    return Child(name, process, stop_signal, ready_text, sink)


def wait(child: Child, seconds: float) -> None:
    """Returns when a child that does one job has done it.

    Raises:
        ChildFailed: its exit code is not 0, or it took longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    while child.running:
        if time.monotonic() > deadline:
            child.kill()
            raise ChildFailed(f"{child.name} took longer than {seconds:g} seconds.")
        time.sleep(POLL_SECONDS)
    if child.exit_code != 0:
        raise ChildFailed(child.ended())


def stop(children: Iterable[Child], seconds: float) -> None:
    """Asks children to stop, all at once; kills what still runs after `seconds`."""
    remaining = list(children)
    for child in remaining:
        child.ask_to_stop()
    deadline = time.monotonic() + seconds
    while any(child.running for child in remaining) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    for child in remaining:
        child.kill()
