"""What a task author uses: the option and its errors, the bar, and the question whether to stop.

All of it finds the running task by itself, so helpers need no object handed around (in the task's
own thread), and outside of a tracked task it does nothing. Counting never talks to Redis: the
heartbeat sends what changed, at most four times a second. Entering a stage does, once.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from celery.exceptions import Ignore

from worker.execution import Execution, current
from worker.failures import IngestError, register_error
from worker.option import Ingest

__all__ = [
    "Cancelled",
    "Ingest",
    "IngestError",
    "cancelled",
    "note",
    "progress",
    "register_error",
    "stage",
    "track",
]

T = TypeVar("T")


class Cancelled(Ignore):
    """The run is over, or goes on without this execution: its body is to stop.

    Raised by `stage()` and `track()`. Let it pass: Celery acknowledges the message and stores no
    failure.
    """


@contextmanager
def stage(
    name: str, weight: float = 1, *, parts: int | None = None, unit: str | None = None
) -> Iterator[None]:
    """Names the part of the run that the block does. Leaving it normally completes the stage.

    Args:
        name: such as `parse`; an empty one is `work`, as where no stage is named.
        weight: its share of the bar beside the other stages'. What the `ingest` option says of a
            stage, or an earlier task of the run, goes before.
        parts: the number of other tasks that share this stage, where the block only sends them
            off; each brings its share, and this task none.
        unit: what the parts are, such as `files`.

    Raises:
        Cancelled: the body is to stop.
    """
    execution = current()
    if execution is None:
        yield
        return
    with execution.stage(_text(name), weight, parts, unit and str(unit)):
        _stop_if_unwanted(execution)
        yield


def track(
    iterable: Iterable[T], *, total: int | None = None, unit: str | None = None
) -> Generator[T, None, None]:
    """Yields the items and counts them, for the bar of the stage that it runs in.

    Until it ends or is closed, what else is counted in that stage is taken to be within it. A
    loop that is left ends it, unless something else refers to it.

    Args:
        iterable: what to go through.
        total: how many items there are; by default the iterable's length, if it has one.
        unit: what an item is, such as `pages`.

    Raises:
        Cancelled: between two items: the body is to stop.
    """
    execution = current()
    if execution is None:
        yield from iterable
        return
    if total is None and isinstance(iterable, Sized):
        total = _length(iterable)
    counter = execution.count(total, unit and str(unit))
    counter.tracking = True
    try:
        _stop_if_unwanted(execution)
        for item in iterable:
            yield item
            counter.done += 1
            if execution.unwanted:  # before the next item is taken from where it comes
                raise Cancelled
    finally:
        counter.tracking = False


def progress(done: int, total: int | None = None, *, unit: str | None = None) -> None:
    """Says how far the stage is that it runs in, where there is nothing to iterate over."""
    execution = current()
    if execution is not None:
        execution.count(total, unit and str(unit), done)


def note(text: str) -> None:
    """Puts a sentence beside the bar, until another stage is entered; an empty one takes it away.

    Args:
        text: for the user, such as `Reading annual-report.pdf`; cut to 300 characters.
    """
    execution = current()
    if execution is not None:
        execution.note(_text(text))


def cancelled() -> bool:
    """Whether the run is over, or goes on without this execution: then the body is to stop.

    For loops without `track()`. It asks Redis about once a second, and is cheap in between.
    """
    execution = current()
    if execution is None:
        return False
    execution.ask()
    return execution.unwanted


def _text(value: object) -> str:
    """What is shown of it; of None nothing, as a helper hands on what it was not given."""
    return "" if value is None else str(value)


def _length(items: Sized) -> int | None:
    try:
        return len(items)
    except (TypeError, NotImplementedError, OverflowError):  # the items may be there all the same
        return None


def _stop_if_unwanted(execution: Execution) -> None:
    if execution.unwanted:
        raise Cancelled
