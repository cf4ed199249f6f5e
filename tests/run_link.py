"""What is told of a run's tasks, as Redis hears of it: in order for each process, later where Redis
was out of reach, twice where a reply was lost, or never. And what Redis knows by then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from shared import runs
from shared.facts import Accepted, Fact, HandedOver, Retrying, Sent, Started
from shared.runs import Outcome, RunRef


@dataclass(eq=False, repr=False)
class Process:
    """What it can't tell Redis now it tells later; or never, if it dies."""

    name: str
    cut: bool = False
    waiting: deque[Fact] = field(default_factory=deque)

    def __repr__(self) -> str:
        return self.name


class Link:
    """Between the processes of one run and Redis."""

    def __init__(self, ref: RunRef) -> None:
        self.ref = ref
        self.main, self.producer = Process("main"), Process("producer")
        self.processes = [self.main, self.producer]
        self.lost_facts = False  # for good: anything may be made of what was told
        self.forget()

    def forget(self) -> None:
        """Redis loses the run."""
        self.told: set[str] = set()  # tasks that it has heard of
        self.current: dict[str, str] = {}  # the nonce of the execution that it counts on
        self.latest: dict[str, tuple[int, int]] = {}  # the latest (nesting, retries)
        self.handed_over: dict[str, int] = {}  # the nesting in which others stand for a task

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

    def end(self, process: Process) -> None:
        """The process dies, with what it had not told."""
        self.lost_facts = self.lost_facts or bool(process.waiting)
        process.waiting.clear()

    def is_behind(self) -> bool:
        """Whether Redis has not heard of everything."""
        return self.lost_facts or any(process.waiting for process in self.processes)

    def apply(self, fact: Fact) -> Outcome:
        """Redis hears of a fact."""
        outcome = runs.submit(self.ref, fact)
        assert outcome is not None
        if outcome.verdict in ("ok", "duplicate"):
            self.told.update(self._tasks_of(fact))
        if outcome.verdict == "ok":
            self._learn(fact)
        return outcome

    def _tasks_of(self, fact: Fact) -> Iterable[str]:
        return (fact.task, *fact.finals) if isinstance(fact, Accepted) else (fact.task,)

    def _learn(self, fact: Fact) -> None:
        match fact:
            case Started():
                self._check_admission(fact)
                self.current[fact.task] = fact.nonce
                self.latest[fact.task] = (fact.nesting, fact.retries)
            case Sent() | Retrying():
                self.current.pop(fact.task, None)
                retries = fact.retries + isinstance(fact, Retrying)
                self.latest[fact.task] = (fact.nesting, retries)
            case HandedOver():
                self.current.pop(fact.task, None)
                self.handed_over[fact.task] = self.latest[fact.task][0]

    def _check_admission(self, fact: Started) -> None:
        """What others do already, or a later attempt, is not to be done again."""
        assert (fact.nesting, fact.retries) >= self.latest.get(fact.task, (0, 0))
        assert self.handed_over.get(fact.task) != fact.nesting, f"{fact.task} is done by others"
