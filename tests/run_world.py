"""What happens to the tasks of one run: messages that come once, twice or never, executions that
end or die, results that are stored; and what Celery's signals tell of each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from shared import runs
from shared.facts import Accepted, Fact, Report, Succeeded
from shared.runs import Outcome, RunRef
from tests.run_link import Link, Process
from tests.run_messages import MOST_RETRIES, Execution, Message

LEASE_MS, BEAT_MS, QUEUE_MS, DELIVERIES = 30_000, 10_000, 3_600_000, 2
COME_AGAIN = ("worker", "requeued", "hard limit, comes again", "cold stop")
UNTOLD = ("worker", "after the result")
OVER = ("closed", "stale", "duplicate")


@dataclass(frozen=True)
class Canvas:
    """Which tasks are sent first, which follow when those have succeeded, which are the finals."""

    first: tuple[str, ...]
    then: tuple[tuple[frozenset[str], str], ...]
    finals: tuple[str, ...]


CANVASES = {
    "single": Canvas(("a",), (), ("a",)),
    "chain": Canvas(("a",), ((frozenset("a"), "b"), (frozenset("b"), "c")), ("c",)),
    "group": Canvas(("a", "b", "c"), (), ("a", "b", "c")),
    "chord": Canvas(("a", "b"), ((frozenset("ab"), "c"),), ("c",)),
}


class World:
    """One run of a canvas. `late`: its messages are acknowledged after the work."""

    def __init__(self, ref: RunRef, canvas: Canvas, late: bool, stages: dict[str, float]) -> None:
        self.link, self.canvas, self.late, self.stages = Link(ref), canvas, late, stages
        self.now_ms = self.started = 0
        self.messages: list[Message] = []
        self.executions: list[Execution] = []
        self.sent: dict[tuple[str, int], int] = {}  # the latest retry that was sent
        self.members: dict[tuple[str, int], frozenset[str]] = {}  # in whose place a task stands
        self.succeeded: set[str] = set()  # what the result backend knows
        self.failed: set[str] = set()  # for good, and not only an execution that nobody counts on
        self.doubted: set[str] = set()  # at work, while an end was told that may be another's
        self.loses_next = False  # what follows a success is not sent

    def dispatch(self, accepted: Iterable[Accepted], told_late: bool) -> None:
        self.link.producer.cut = told_late
        self.link.tell(self.link.producer, *accepted)
        for task in self.canvas.first:
            self.messages.append(Message(task, 0, 0, self.now_ms))

    def send(self, process: Process, task: str, retries: int = 0, nesting: int = 0) -> None:
        message = Message(task, retries, nesting, self.now_ms)
        self.link.tell(process, message.sent())
        self.messages.append(message)
        self.sent[task, nesting] = max(retries, self.sent.get((task, nesting), 0))

    def start(self, message: Message) -> bool:
        """A worker takes the message; False where the gate refuses it though the run is open."""
        self.messages.remove(message)
        self.started += 1
        nonce = f"n{self.started}"
        execution = Execution(message, nonce, self.now_ms + BEAT_MS, Process(nonce))
        outcome = self.link.tell(execution.process, execution.started(self.late, self.stages))
        if outcome is None or outcome.verdict == "ok":
            self.executions.append(execution)
            self.link.processes.append(execution.process)
            return True
        return outcome.verdict == "closed"

    def report(self, execution: Execution, report: Report | None) -> None:
        """Progress, or a bare beat."""
        execution.next_beat_ms = self.now_ms + BEAT_MS
        if not execution.closed:
            outcome = self.link.tell(execution.process, execution.progress(report))
            execution.closed = outcome is not None and outcome.verdict in OVER

    def finish(self, execution: Execution, how: str) -> None:
        """An execution ends by its own word."""
        message, counts = execution.message, self.counts(execution)
        if how in ("retry", "retry later") and message.retries >= MOST_RETRIES:
            how = "failure"
        if how in ("retry", "retry later"):
            self.send(execution.process, message.task, message.retries + 1, message.nesting)
        if how == "retry later":  # retry(throw=False): the body goes on
            return
        execution.alive = False
        match how:
            case "success":
                self.succeed(execution)
            case "replace":
                self.replace(execution)
            case "requeue" if self.late:
                self.come_again(message)
            case "failure" | "ignore" | "reject" | "requeue":
                self.fail(message.task, counts)
        self.link.tell(execution.process, self.told_of(execution, how))
        if how == "reject":  # which the main process tells as well
            self.fail(message.task, not self.is_healthy(message.task))
            self.doubt(message.task)
            self.link.tell(self.link.main, message.rejected())

    def told_of(self, execution: Execution, how: str) -> Fact:
        """What the execution itself tells of its end."""
        match how:
            case "success":
                return execution.succeeded()
            case "retry":
                return execution.retrying()
            case "replace":
                return execution.handed_over()
            case "ignore":
                return execution.interrupted(comes_again=False)
            case "requeue":
                return execution.interrupted(comes_again=self.late)
        return execution.failed()

    def replace(self, execution: Execution) -> None:
        message, process = execution.message, execution.process
        if len(self.members) % 2:
            self.send(process, message.task, 0, message.nesting + 1)
            self.members[message.task, message.nesting] = frozenset()
            return
        members = {f"{message.task}{message.nesting}{execution.nonce}{i}" for i in range(2)}
        self.members[message.task, message.nesting] = frozenset(members)
        for member in sorted(members):
            self.send(process, member)

    def succeed(self, execution: Execution) -> None:
        """What follows is sent before the result is stored, and that before anybody is told."""
        task, process = execution.task, execution.process
        self.succeeded.add(task)
        if self.loses_next:
            return
        for before, following in self.canvas.then:
            if task in before and before <= self.succeeded:
                self.send(process, following)
        for (replaced, nesting), members in self.members.items():
            if task in members and members <= self.succeeded:
                self.send(process, replaced, 0, nesting + 1)

    def break_down(self, execution: Execution, how: str) -> None:
        """An execution ends without its own word; what it had not told yet is lost."""
        message, counts = execution.message, self.counts(execution)
        execution.alive = False
        if how == "after the result":
            self.succeed(execution)
        self.doubt(message.task)
        self.link.end(execution.process)
        comes_again = self.late and how in COME_AGAIN
        if comes_again:
            self.come_again(message, hidden=how == "worker")
        elif how not in UNTOLD:
            self.fail(message.task, counts)
        self.link.tell(self.link.main, *self.told_by_main(message, how, comes_again))

    def told_by_main(self, message: Message, how: str, comes_again: bool) -> list[Fact]:
        """What the worker's main process sees of it."""
        match how:
            case "requeued" if comes_again:  # reject_on_worker_lost
                return []
            case "child" | "requeued":
                return [message.lost(comes_again=False)]
            case "hard limit" | "hard limit, comes again":  # Celery tells it twice
                return [message.lost(comes_again, attempt_known=known) for known in (True, False)]
            case "cold stop":
                return [message.interrupted(comes_again)]
        return []

    def drop(self, message: Message, how: str) -> None:
        """A message ends without an execution."""
        self.messages.remove(message)
        task, healthy = message.task, self.is_healthy(message.task)
        self.fail(task, not healthy)
        self.doubt(task)
        match how:
            case "expired":
                self.link.tell(self.link.main, message.expired())
            case "unknown":
                self.link.tell(self.link.main, message.unknown())
            case "internal" if not healthy:
                self.link.tell(self.link.main, message.interrupted(comes_again=False))

    def copy(self, execution: Execution) -> Message:
        """The broker takes it for lost, and delivers its message once more."""
        self.come_again(execution.message)
        return self.messages[-1]

    def come_again(self, message: Message, hidden: bool = False) -> None:
        self.messages.append(replace(message, since_ms=self.now_ms, came_again=True, hidden=hidden))

    def advance(self, ms: int) -> None:
        """Time passes; who is alive and reaches Redis has beaten."""
        self.now_ms += ms
        for execution in self.executions:
            if execution.alive and execution.next_beat_ms <= self.now_ms:
                self.report(execution, None)

    def look(self) -> Outcome:
        """What the reaper does with one run."""
        outcome = runs.lapse(self.link.ref, "ask")
        for task in outcome.tasks:
            if task in self.succeeded:
                self.link.apply(Succeeded(task=task))
        if outcome.tasks:
            outcome = runs.lapse(self.link.ref, "fail")
        assert outcome.status in (*runs.TERMINAL, "") or outcome.next_ms is not None
        return outcome

    def fail(self, task: str, counts: bool) -> None:
        if counts:
            self.failed.add(task)

    def doubt(self, task: str) -> None:
        if self.is_healthy(task):
            self.doubted.add(task)

    def counts(self, execution: Execution) -> bool:
        """Whether it is the one that Redis counts on; also where it has not heard of it yet."""
        return self.link.current.get(execution.task, execution.nonce) == execution.nonce

    def is_healthy(self, task: str) -> bool:
        """Whether an execution of it is at work, and its lease is renewed."""
        nonce = self.link.current.get(task)
        return any(
            execution.alive and not execution.closed and not execution.process.cut
            for execution in self.executions
            if execution.task == task and execution.nonce == nonce
        )
