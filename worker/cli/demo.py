"""`eventstream demo`: real documents through the whole application, watched over real HTTP."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from worker.cli.bars import view
from worker.cli.children import Child, ChildFailed, spawn, stop
from worker.cli.embedded import pause
from worker.cli.folder import DataFolder
from worker.cli.ingestion import ingest
from worker.cli.options import data_option, port_option
from worker.cli.uploads import default_uploads, upload_of

_READY = "ready http"
_READY_SECONDS = 90
_STOP_SECONDS = 30  # the stack's own deadlines are shorter
_LOOK_SECONDS = 0.2


class DevLog:
    """Keeps the stack's log in a file, and the address from its `ready` line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self.url = ""

    def __call__(self, name: str, line: str) -> None:
        """Takes one line of the stack's."""
        self._file.write(line + "\n")
        self._file.flush()
        if line.startswith(_READY):
            self.url = line.removeprefix("ready ")


@click.command
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH ...]")
@click.option("--exit", "leave", is_flag=True, help="Stop everything when all sources are done.")
@port_option
@data_option
def demo(paths: tuple[Path, ...], leave: bool, port: int | None, folder: Path) -> None:
    """Ingest each PATH, a file or a folder, as one source, and watch it live.

    Without a PATH: this project's own documentation. Serves until Ctrl-C; with --exit it stops
    then, and its exit code is 0 if every source completed.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # one way to stop
    uploads = [upload_of(path) for path in paths] or default_uploads()
    with _running_stack(folder, port) as (stack, url):
        began = time.monotonic()
        with view() as shown:
            tally = ingest(uploads, url, shown, lambda: _check(stack))
        for sentence in tally.sentences:
            click.echo(sentence)
        click.echo(tally.summary(time.monotonic() - began))
        click.echo(f"page: {url}/")
        if not leave:
            _serve(stack)
    if tally.completed < tally.uploads:
        sys.exit(1)


@contextmanager
def _running_stack(folder: Path, port: int | None) -> Iterator[tuple[Child, str]]:
    """Runs `eventstream dev` for the block; it ends with this process, whatever ends that."""
    data = DataFolder(folder)
    data.make()
    data.refuse_if_held()
    log = DevLog(data.path / "dev.log")
    command = [sys.executable, "-m", "worker.cli", "dev", "--data", str(data.path)]
    command += ["--port", str(port)] if port is not None else []
    stack = spawn("eventstream dev", command, death_signal=signal.SIGTERM, sink=log)
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not log.url:
            _check(stack)
            if time.monotonic() > deadline:
                raise ChildFailed(f"The stack was not ready in time:\n{stack.last_lines()}")
            pause()
        yield stack, log.url
    finally:
        stop([stack], _STOP_SECONDS)


def _check(stack: Child) -> None:
    if not stack.running:
        raise ChildFailed(stack.ended())


def _serve(stack: Child) -> None:
    click.echo("Serving until Ctrl-C.")
    try:
        while True:
            _check(stack)
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        click.echo("stopping")
