"""Drives the load generator, `loadgen.c`, which is compiled when it is first needed.

Clients and publisher run on the core that the calling process is pinned to.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

SOURCE = Path(__file__).with_name("loadgen.c")
WINDOW = 256  # connections without headers at once: servers' queues for accept() are short
ANSWER_SECONDS = 600.0


class NoCompiler(Exception):
    """The load generator is one file of C, and no C compiler was found: install gcc or clang, or
    name one in CC."""


class LoadgenFailed(Exception):
    """The load generator could not do what it was asked to."""


@dataclass(frozen=True, slots=True)
class Report:
    """What held streams got since the last reset, and how they stand. Frames carry data."""

    open: int
    headers: int
    refused: int
    refused_status: int
    failed: int
    closed: int
    headers_seconds: float
    frames: int
    marked: int
    bytes: int
    chunks: int
    disordered: int
    fewest: int
    most: int
    first_frame_ns: int
    last_frame_ns: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    cpu_seconds: float

    @property
    def frames_per_write(self) -> float | None:
        """Frames in each chunk: above 1, writes were coalesced. None where it isn't chunked."""
        return self.frames / self.chunks if self.chunks else None


@dataclass(frozen=True, slots=True)
class Loop:
    """Requests made one after the other by a number of clients."""

    done: int
    broken: int
    refused: int
    refused_status: int
    failed: int
    seconds: float
    per_second: float
    frames: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Published:
    """Events that were sent. `per_second` is the rate of sending, not of replies."""

    sent: int
    answered: int
    errors: int
    seconds: float
    per_second: float
    longest_lag_ms: float
    begin_ns: int
    last_sent_ns: int
    cpu_seconds: float


_Answer = TypeVar("_Answer", Report, Loop, Published)


def build() -> Path:
    """Returns the compiled program, from the cache folder where it was compiled before.

    Raises:
        NoCompiler: it was not compiled yet, and there is nothing to do it with.
    """
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "celery-eventstream")
    program = cache / f"loadgen-{digest}"
    if program.exists():
        return program
    candidates = (os.environ.get("CC"), "cc", "gcc", "clang")
    compiler = next((found for name in candidates if name and (found := shutil.which(name))), None)
    if compiler is None:
        raise NoCompiler(NoCompiler.__doc__)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        draft = Path(folder, "loadgen")
        command = [compiler, "-O2", "-o", str(draft), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LoadgenFailed(f"{SOURCE.name} does not compile:\n{done.stderr}")
        draft.replace(program)
    return program


def write_messages(path: Path, messages: Sequence[bytes]) -> Path:
    """Writes a file of messages for the load generator."""
    path.write_bytes(b"".join(b"%d\n%b\n" % (len(each), each) for each in messages))
    return path


class Watchers:
    """Held streams. Each call answers when it is done."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def open(self, count: int, *, rate: float = 5000, seconds: float = 60) -> Report:
        """Opens `count` streams, after closing those that were; returns when all have headers."""
        return self._ask(f"open {count} {rate} {WINDOW} {seconds}")

    def wait_for(self, frames: int, seconds: float) -> Report:
        """Returns when so many frames came since the reset, or when the time is out."""
        return self._ask(f"await {frames} {seconds}")

    def reset(self) -> Report:
        """Counts from 0 again."""
        return self._ask("reset")

    def report(self) -> Report:
        """What came until now."""
        return self._ask("report")

    def close(self) -> None:
        """Closes all streams."""
        self._ask("close")

    def _ask(self, command: str) -> Report:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return _parsed(Report, self._process.stdout.readline(), command)


@contextmanager
def watchers(port: int, requests: Path, *, sources: int = 16) -> Iterator[Watchers]:
    """Clients of a server on a port, with its requests; closed at the end of the block."""
    command = _command("hold", port=port, messages=requests, sources=sources)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Watchers(process)
        finally:
            process.kill()


def loop(
    port: int,
    requests: Path,
    *,
    concurrency: int,
    frames: int,
    seconds: float | None = None,
    count: int | None = None,
    quickack: bool = False,
) -> Loop:
    """Clients that connect, read `frames` frames (0: only the headers), close, and do it again."""
    limits = {"seconds": seconds, "count": count}
    command = _command(
        "loop",
        port=port,
        messages=requests,
        concurrency=concurrency,
        frames=frames,
        quickack=int(quickack),
        **{name: value for name, value in limits.items() if value is not None},
    )
    return _parsed(Loop, _output(command), command[1])


def publish(
    port: int,
    messages: Path,
    replies: str,
    *,
    rate: float = 0,
    seconds: float = 0,
    count: int = 0,
    sockets: int = 1,
    window: int = 512,
    first: Path | None = None,
) -> Published:
    """Publishes messages round robin: paced, or `count` of them as one burst.

    Args:
        port: of what takes them.
        messages: a file with one for each user.
        replies: `resp` or `http`.
        rate: events a second; 0 for as many as the window lets out.
        seconds: how long, where there is no count.
        count: how many.
        sockets: over how many connections; one user's events stay on one.
        window: how many events may be without a reply.
        first: a file of messages that each connection begins with.
    """
    command = _command(
        "publish",
        port=port,
        messages=messages,
        replies=replies,
        rate=rate,
        seconds=seconds,
        count=count,
        sockets=sockets,
        window=window,
        **({"first": first} if first else {}),
    )
    published = _parsed(Published, _output(command), command[1])
    if published.errors or published.answered < published.sent:
        raise LoadgenFailed(f"not every event was taken: {published}")
    return published


def _command(mode: str, **options: object) -> list[str]:
    named = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [str(build()), mode, *named]


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LoadgenFailed(f"no answer within {ANSWER_SECONDS:g} seconds: {command}") from error
    if done.returncode != 0 or not done.stdout:
        raise LoadgenFailed(done.stderr or f"loadgen ended with {done.returncode}")
    return done.stdout


def _parsed(form: type[_Answer], line: str, command: str) -> _Answer:
    if not line:
        raise LoadgenFailed(f"loadgen ended at {command!r}; what it said is above.")
    values: dict[str, Any] = json.loads(line)
    return form(**{field.name: values[field.name] for field in fields(form)})
