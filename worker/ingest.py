"""What a task author uses: stage(), track(), progress(), IngestError.

They find the running task by themselves, so helpers need no object handed around (in the task's
own thread), and outside of a tracked task they do nothing. Counting never talks to Redis: the
heartbeat sends what changed, at most four times a second. Entering a stage does, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from worker.execution import current

T = TypeVar("T")


class IngestError(Exception):
    """This source could not be processed.

    The text is the sentence its user reads: no paths, no stack. `code` is for programs,
    `retryable` says whether trying again may help, and `details` is merged into the payload of
    `source.ingest.failed`.
    """

    code: ClassVar[str] = "ingest_failed"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, *, details: Mapping[str, Any] | None = None):
        super().__init__(message or (type(self).__doc__ or "").strip().split("\n")[0])
        self.details = dict(details or {})


@contextmanager
def stage(name: str, *, parts: int | None = None, unit: str | None = None) -> Iterator[None]:
    """Names the part of the run that the block does. Leaving it normally completes the stage.

    Args:
        name: such as `parse`; one of the stages that the task's `ingest` option weighs, or new.
        parts: the number of other tasks that share this stage, where the block only sends them
            off; each brings its share, and this task none.
        unit: what the parts are, such as `files`.
    """
    execution = current()
    if execution is None:
        yield
        return
    with execution.stage(name, parts, unit):
        yield


def track(
    iterable: Iterable[T], *, total: int | None = None, unit: str | None = None
) -> Iterator[T]:
    """Yields the items and counts them, for the bar of the stage that it runs in.

    Args:
        iterable: what to go through.
        total: how many items there are; by default the iterable's length, if it has one.
        unit: what an item is, such as `pages`.
    """
    execution = current()
    if execution is None:
        yield from iterable
        return
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    counter = execution.count(total, unit)
    counter.tracking = True
    try:
        for item in iterable:
            yield item
            counter.done += 1
    finally:
        counter.tracking = False


def progress(done: int, total: int | None = None, *, unit: str | None = None) -> None:
    """Says how far the stage is that it runs in, where there is nothing to iterate over."""
    execution = current()
    if execution is not None:
        execution.count(total, unit).done = done
