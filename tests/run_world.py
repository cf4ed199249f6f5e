"""A model of what happens to the tasks of a run, and what is told of it: messages that come once,
twice or never, executions that die, processes that reach Redis late, a backend that knows results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from shared import runs
from shared.facts import (
    Accepted,
    ErrorInfo,
    Fact,
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
from shared.runs import Outcome, RunRef

LEASE_MS, BEAT_MS, QUEUE_MS, GRACE_MS, DELIVERIES = 30_000, 10_000, 3_600_000, 600_000, 2
BROKEN = ErrorInfo("broken", "It is broken.")
MOST_RETRIES = 3
COME_AGAIN = ("worker", "requeued", "hard limit, comes again", "cold stop")
UNTOLD = ("worker", "after the result")
OVER = ("closed", "stale", "duplicate")


@dataclass(eq=False, repr=False)
class Process:
    """What it can't tell Redis now it tells later, in order; or never, if it dies."""

    name: str
    cut: bool = False
    waiting: deque[Fact] = field(default_factory=deque)

    def __repr__(self) -> str:
        return self.name


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
        self.ref, self.canvas, self.late, self.stages = ref, canvas, late, stages
        self.now_ms = 0
        self.messages: list[Message] = []
        self.executions: list[Execution] = []
        self.succeeded: set[str] = set()  # what the result backend knows
        self.failed: set[str] = set()  # for good, and not only an execution that nobody counts on
        self.current: dict[str, str] = {}  # the nonce of the execution that counts
        self.started = 0
        self.sent: dict[tuple[str, int], int] = {}  # the latest retry that was sent
        self.members: dict[tuple[str, int], frozenset[str]] = {}  # in whose place a task stands
        self.told: set[str] = set()  # tasks that Redis has heard of
        self.main, self.producer = Process("main"), Process("producer")
        self.loses_next = False  # what follows a success is not sent
        self.handed_over: dict[str, int] = {}  # the nesting in which others stand for a task
        self.latest: dict[str, tuple[int, int]] = {}  # the (nesting, retries) that Redis knows of
        self.doubted: set[str] = set()  # tasks of which an end was told that may be another's
        self.broken = False  # what should have followed was not sent, or facts are lost for good
        self.processes = [self.main, self.producer]

    # What is told

    def tell(self, process: Process, *facts: Fact) -> Outcome | None:
        """Reports facts in order; the outcome of the last, None where it has to wait."""
        outcome = None
        for fact in facts:
            if process.cut or process.waiting:
                process.waiting.append(fact)
                outcome = None
            else:
                outcome = self.apply(fact)
        return outcome

    def mend(self, process: Process, reply_lost: bool) -> None:
        """Redis is back; a reply that was lost has its fact told again."""
        process.cut = False
        if process.waiting and reply_lost:
            self.apply(process.waiting[0])
        while process.waiting:
            self.apply(process.waiting.popleft())

    def apply(self, fact: Fact) -> Outcome:
        outcome = runs.submit(self.ref, fact)
        assert outcome is not None
        if outcome.verdict in ("ok", "duplicate"):
            self.told |= {fact.task, *(fact.finals if isinstance(fact, Accepted) else ())}
        if outcome.verdict == "ok":
            match fact:
                case Started():
                    self.check_admission(fact)
                    self.current[fact.task] = fact.nonce
                    self.latest[fact.task] = (fact.nesting, fact.retries)
                case Sent() | Retrying():
                    self.current.pop(fact.task, None)
                    retries = fact.retries + isinstance(fact, Retrying)
                    self.latest[fact.task] = (fact.nesting, retries)
                case HandedOver():
                    self.current.pop(fact.task, None)
                    self.handed_over[fact.task] = self.latest[fact.task][0]
        return outcome

    # What happens

    def dispatch(self, accepted: Iterable[Accepted], told_late: bool) -> None:
        self.producer.cut = told_late
        self.tell(self.producer, *accepted)
        for task in self.canvas.first:
            self.messages.append(Message(task, 0, 0, self.now_ms))

    def send(self, process: Process, task: str, retries: int = 0, nesting: int = 0) -> None:
        self.tell(process, Sent(task=task, retries=retries, nesting=nesting))
        self.messages.append(Message(task, retries, nesting, self.now_ms))
        self.sent[task, nesting] = max(retries, self.sent.get((task, nesting), 0))

    def start(self, message: Message, cut: bool) -> None:
        """A worker takes the message; the gate lets it run, or not."""
        self.messages.remove(message)
        self.started += 1
        nonce = f"n{self.started}"
        execution = Execution(message, nonce, self.now_ms + BEAT_MS, Process(nonce, cut))
        outcome = self.tell(
            execution.process,
            Started(
                task=message.task,
                nonce=execution.nonce,
                retries=message.retries,
                nesting=message.nesting,
                late=self.late,
                grace_ms=GRACE_MS,
                stages=self.stages,
            ),
        )
        if outcome is not None and outcome.verdict != "ok":
            self.check_refusal(message, outcome)
        else:
            self.executions.append(execution)
            self.processes.append(execution.process)

    def check_refusal(self, message: Message, outcome: Outcome) -> None:
        """Only what was replaced, is done, or belongs to a run that is over may be refused."""
        if outcome.verdict == "closed":
            return
        key = (message.nesting, message.retries)
        newer = [
            (nesting, retries)
            for (task, nesting), retries in self.sent.items()
            if task == message.task
        ]
        assert (
            message.task in self.succeeded
            or any(other > key for other in newer)
            or (message.task, message.nesting) in self.members
            or self._is_spent(message.task)
        ), f"{message} was refused"

    def check_admission(self, fact: Started) -> None:
        """What others do already, or a later attempt, is not to be done again."""
        key = (fact.nesting, fact.retries)
        assert key >= self.latest.get(fact.task, (0, 0))
        assert self.handed_over.get(fact.task) != fact.nesting, f"{fact.task} is done by others"

    def report(self, execution: Execution, report: Report | None) -> None:
        """Progress, or a bare beat."""
        execution.next_beat_ms = self.now_ms + BEAT_MS
        if execution.closed:
            return
        fact = Progress(
            task=execution.message.task,
            nonce=execution.nonce,
            reports=[report] if report else (),
        )
        outcome = self.tell(execution.process, fact)
        execution.closed = outcome is not None and outcome.verdict in OVER

    def finish(self, execution: Execution, how: str) -> None:
        """An execution ends by its own word."""
        message, process = execution.message, execution.process
        task, nonce = message.task, execution.nonce
        counts = self.counts(execution)
        if how in ("retry", "retry later") and message.retries >= MOST_RETRIES:
            how = "failure"
        if how == "retry later":  # retry(throw=False): the body goes on
            self.send(process, task, message.retries + 1, message.nesting)
            return
        execution.alive = False
        match how:
            case "success":
                self.succeed(execution)
                self.tell(process, Succeeded(task=task, nonce=nonce))
            case "failure":
                self.tell_failed(task, counts)
                self.tell(process, Failed(task=task, nonce=nonce, error=BROKEN))
            case "retry":
                self.send(process, task, message.retries + 1, message.nesting)
                self.tell(
                    process,
                    Retrying(
                        task=task,
                        retries=message.retries,
                        nesting=message.nesting,
                        attempts=MOST_RETRIES + 1,
                        eta=None,
                        eta_ms=None,
                        error=BROKEN,
                    ),
                )
            case "replace":
                self.replace(execution)
                self.tell(process, HandedOver(task=task, nonce=nonce))
            case "ignore":
                self.tell_failed(task, counts)
                self.tell(process, self.interrupted(message, False, nonce))
            case "reject":
                self.tell_failed(task, counts or not self.is_healthy(task))
                self.doubted.add(task)
                self.tell(process, Failed(task=task, nonce=nonce, error=BROKEN))
                self.tell(self.main, self.lost(message, None, rejected=True))
            case "requeue":
                self.come_again(message) if self.late else self.tell_failed(task, counts)
                self.tell(process, self.interrupted(message, self.late, nonce))

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
        task, process = execution.message.task, execution.process
        self.succeeded.add(task)
        if self.loses_next:
            self.broken = True
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
        self.doubted.add(message.task)
        self.lose(execution.process)
        comes_again = self.late and how in COME_AGAIN
        if comes_again:
            self.come_again(message, hidden=how == "worker")
        elif how not in UNTOLD:
            self.tell_failed(message.task, counts)
        self.tell(self.main, *self.told_by_main(message, how, comes_again))

    def told_by_main(self, message: Message, how: str, comes_again: bool) -> list[Fact]:
        """What the worker's main process sees of it."""
        match how:
            case "requeued" if comes_again:  # reject_on_worker_lost
                return []
            case "child" | "requeued":
                return [self.lost(message, message.retries)]
            case "hard limit" | "hard limit, comes again":  # Celery tells it twice
                attempts = (message.retries, None)
                return [self.lost(message, attempt, comes_again) for attempt in attempts]
            case "cold stop":
                return [self.interrupted(message, comes_again)]
        return []

    def lose(self, process: Process) -> None:
        self.broken = self.broken or bool(process.waiting)
        process.waiting.clear()

    def drop(self, message: Message, how: str) -> None:
        """A message ends without an execution."""
        self.messages.remove(message)
        task, healthy = message.task, self.is_healthy(message.task)
        self.tell_failed(task, not healthy)
        self.doubted.add(task)
        match how:
            case "expired":
                self.tell(
                    self.main,
                    Revoked(
                        task=task, expired=True, retries=message.retries, nesting=message.nesting
                    ),
                )
            case "unknown":
                self.tell(self.main, Failed(task=task, error=BROKEN))
            case "internal" if not healthy:
                self.tell(self.main, self.interrupted(message, comes_again=False))

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
        outcome = runs.lapse(self.ref, "ask")
        for task in outcome.tasks:
            if task in self.succeeded:
                self.apply(Succeeded(task=task))
        if outcome.tasks:
            outcome = runs.lapse(self.ref, "fail")
        assert outcome.status in (*runs.TERMINAL, "") or outcome.next_ms is not None
        return outcome

    def be_forgotten(self) -> None:
        """Redis loses the run."""
        self.broken = True
        self.told.clear()
        self.current.clear()
        self.latest.clear()
        self.handed_over.clear()

    # What is true

    def lost(
        self,
        message: Message,
        retries: int | None,
        comes_again: bool = False,
        rejected: bool = False,
    ) -> Lost:
        return Lost(
            task=message.task,
            error=BROKEN,
            comes_again=comes_again,
            grace_ms=GRACE_MS,
            retries=retries,
            nesting=0 if retries is None else message.nesting,
            rejected=rejected,
        )

    def interrupted(self, message: Message, comes_again: bool, nonce: str = "") -> Interrupted:
        return Interrupted(
            task=message.task,
            nonce=nonce,
            error=BROKEN,
            comes_again=comes_again,
            grace_ms=GRACE_MS,
            retries=message.retries,
            nesting=message.nesting,
        )

    def tell_failed(self, task: str, counts: bool) -> None:
        if counts:
            self.failed.add(task)

    def counts(self, execution: Execution) -> bool:
        """Whether it is the one that Redis counts on; also where it has not heard of it yet."""
        return self.current.get(execution.message.task, execution.nonce) == execution.nonce

    def is_healthy(self, task: str) -> bool:
        """Whether an execution of it is at work, and its lease is renewed."""
        return any(
            e.alive and not e.closed and not e.process.cut and self.current.get(task) == e.nonce
            for e in self.executions
            if e.message.task == task
        )

    def works_undoubted(self) -> bool:
        """Whether a task is at work of which nobody may have told an end."""
        tasks = {e.message.task for e in self.executions} - self.doubted
        return any(self.is_healthy(task) for task in tasks)

    def may_fail(self) -> bool:
        """Whether there is a reason for the run to have failed by now."""
        tasks = {e.message.task for e in self.executions} | {m.task for m in self.messages}
        tasks |= self.failed
        if self.broken or any(process.waiting for process in self.processes):
            return True
        return any(self._is_reason(task) for task in tasks)

    def _is_reason(self, task: str) -> bool:
        if task in self.failed:
            return True
        if self.is_healthy(task):
            return False
        if self._is_spent(task):
            return True
        if task in self.succeeded:
            return False
        if task in self.doubted:
            return True
        others_work = any(self.is_healthy(e.message.task) for e in self.executions)
        copies = [m for m in self.messages if m.task == task]
        if not copies and task in self.handed_over:
            return False  # its members are tasks of their own
        for copy in copies:
            limit = GRACE_MS if copy.came_again else QUEUE_MS
            if self.now_ms - copy.since_ms < limit or (others_work and not copy.came_again):
                return False
        return True

    def _is_spent(self, task: str) -> bool:
        executions = [e for e in self.executions if e.message.task == task]
        retries = max((e.message.retries for e in executions), default=0)
        return len(executions) - retries >= DELIVERIES
