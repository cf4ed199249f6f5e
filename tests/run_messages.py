"""The messages of a run's tasks and their executions, and the facts that each gives rise to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared.facts import (
    ErrorInfo,
    Failed,
    HandedOver,
    Interrupted,
    Lost,
    Progress,
    Report,
    Retrying,
    Revoked,
    Sent,
    Started,
    Succeeded,
)
from tests.run_link import Process

GRACE_MS = 600_000
MOST_RETRIES = 3
BROKEN = ErrorInfo("broken", "It is broken.")


@dataclass(eq=False, repr=False)
class Message:
    task: str
    retries: int
    nesting: int
    since_ms: int  # when it was sent, or was lost and had to come again
    came_again: bool = False
    hidden: bool = False

    def __repr__(self) -> str:
        return f"{self.task}/{self.nesting}/{self.retries}"

    def sent(self) -> Sent:
        return Sent(task=self.task, retries=self.retries, nesting=self.nesting)

    def unknown(self) -> Failed:
        return Failed(task=self.task, error=BROKEN)

    def expired(self) -> Revoked:
        return Revoked(task=self.task, expired=True, retries=self.retries, nesting=self.nesting)

    def lost(self, comes_again: bool, *, attempt_known: bool = True) -> Lost:
        return Lost(
            task=self.task,
            error=BROKEN,
            comes_again=comes_again,
            grace_ms=GRACE_MS,
            retries=self.retries if attempt_known else None,
            nesting=self.nesting if attempt_known else 0,
        )

    def rejected(self) -> Lost:
        return Lost(
            task=self.task, error=BROKEN, comes_again=False, grace_ms=GRACE_MS, rejected=True
        )

    def interrupted(self, comes_again: bool, nonce: str = "") -> Interrupted:
        return Interrupted(
            task=self.task,
            nonce=nonce,
            error=BROKEN,
            comes_again=comes_again,
            grace_ms=GRACE_MS,
            retries=self.retries,
            nesting=self.nesting,
        )


@dataclass(eq=False, repr=False)
class Execution:
    message: Message
    nonce: str
    next_beat_ms: int
    process: Process
    alive: bool = True
    closed: bool = False

    def __repr__(self) -> str:
        return f"{self.nonce} of {self.message}"

    @property
    def task(self) -> str:
        return self.message.task

    def started(self, late: bool, stages: Mapping[str, float]) -> Started:
        return Started(
            task=self.task,
            nonce=self.nonce,
            retries=self.message.retries,
            nesting=self.message.nesting,
            late=late,
            grace_ms=GRACE_MS,
            stages=stages,
        )

    def progress(self, report: Report | None) -> Progress:
        return Progress(task=self.task, nonce=self.nonce, reports=[report] if report else ())

    def succeeded(self) -> Succeeded:
        return Succeeded(task=self.task, nonce=self.nonce)

    def failed(self) -> Failed:
        return Failed(task=self.task, nonce=self.nonce, error=BROKEN)

    def handed_over(self) -> HandedOver:
        return HandedOver(task=self.task, nonce=self.nonce)

    def interrupted(self, comes_again: bool) -> Interrupted:
        return self.message.interrupted(comes_again, self.nonce)

    def retrying(self) -> Retrying:
        return Retrying(
            task=self.task,
            retries=self.message.retries,
            nesting=self.message.nesting,
            attempts=MOST_RETRIES + 1,
            eta=None,
            eta_ms=None,
            error=BROKEN,
        )
