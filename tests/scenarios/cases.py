"""A scenario: what happens, on which pool, by which acknowledgement, and what the client sees."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests.scenarios.client import PREFIX, TERMINAL, words
from tests.scenarios.table import Row

if TYPE_CHECKING:
    from tests.scenarios.bench import Bench

EARLY, LATE = (False,), (True,)
EITHER = (False, True)
PROCESSES, ANY_POOL = ("prefork",), ("prefork", "threads", "solo")
SOLO, THREADS = ("solo",), ("threads",)
POOLED = ("prefork", "threads")


Act = Callable[["Bench"], object]
Register = Callable[[Act], Act]


@dataclass(frozen=True)
class Victim:
    """A worker of a few scenarios' own, and what becomes of it once they all say so.

    `signal` is None where the tasks themselves end it. `heir` says whether another worker takes
    its queue over, once it is gone.
    """

    name: str
    signal: int | None = None
    concurrency: int = 2
    soft_shutdown_seconds: float = 0
    heir: bool = True


@dataclass(frozen=True)
class Seen:
    """What the client saw of a user, and what the tasks' bodies did."""

    events: list[dict[str, Any]]
    marks: list[str]
    trouble: str | None = None

    @property
    def words(self) -> list[str]:
        return words(self.events)

    @property
    def line(self) -> str:
        return ", ".join(self.words)

    @property
    def attempts(self) -> list[int]:
        return [event["payload"]["attempt"] for event in self.events]

    def payloads(self, kind: str) -> list[dict[str, Any]]:
        return [e["payload"] for e in self.events if e["type"] == PREFIX + kind]

    @property
    def terminals(self) -> Counter[str]:
        """The number of terminal events of each run."""
        ends = Counter({event["payload"]["run_id"]: 0 for event in self.events})
        for event in self.events:
            ends[event["payload"]["run_id"]] += event["type"].removeprefix(PREFIX) in TERMINAL
        return ends


@dataclass(frozen=True)
class Case:
    """One scenario on one pool, with one acknowledgement.

    `sees` is the line of words that the client sees, and `varies` a pattern for it where more
    than one order is right: `sees` then stands in the table for all of them. `without` names the
    server that is away for a while; such scenarios have their turn one server after another.
    """

    title: str
    act: Act
    sees: str
    part: str = ""
    pool: str = ""
    late: bool = False
    plan: str = ""
    varies: str | None = None
    then: Callable[[Seen], None] | None = None
    victim: Victim | None = None
    without: str = ""

    def __str__(self) -> str:
        return f"{self.pool}, {self.acks}: {self.title}"

    @property
    def acks(self) -> str:
        return "late" if self.late else "early"

    def row(self, place: int, seen: Seen | None = None) -> Row:
        """Its row of the table, by what was seen, or by what is to be seen."""
        line = self.sees if seen is None or self.varies is not None else seen.line
        return Row(place, self.part, self.title, self.pool, self.acks, line)

    def check(self, seen: Seen) -> None:
        """Fails where the client saw anything else, or a run ended twice or never."""
        what = f"the client saw: {seen.line or 'nothing'}"
        assert seen.trouble is None, f"{seen.trouble}; {what}"
        expected = re.escape(self.sees) if self.varies is None else self.varies
        assert re.fullmatch(expected, seen.line), f"{what}; to be seen: {self.sees or 'nothing'}"
        assert all(number == 1 for number in seen.terminals.values()), what
        if self.then is not None:
            self.then(seen)


def ran_once(seen: Seen) -> None:
    """A body that leaves one mark ran no second time."""
    assert seen.marks == ["ran"]


@dataclass
class Cases:
    """The scenarios of a module, in the order in which they are written.

    `part` is the headline of their table, `plan` the name of their labs.
    """

    part: str
    plan: str = "{pool}"
    all: list[Case] = field(default_factory=list)

    def add(
        self,
        title: str,
        sees: str,
        *,
        pools: Iterable[str] = ANY_POOL,
        acks: Iterable[bool] = EITHER,
        victim: Victim | None = None,
        **more: Any,
    ) -> Register:
        """Declares a function to be a scenario, for each pool and acknowledgement.

        A victim is shared by them; but solo does one thing at a time.
        """

        def register(act: Act) -> Act:
            case = Case(title, act, sees, part=self.part, **more)
            for pool in pools:
                for late in acks:
                    one = replace(case, pool=pool, late=late, plan=self.plan.format(pool=pool))
                    own = victim
                    if victim is not None and pool == "solo":
                        own = replace(victim, name=f"{victim.name}-{one.acks}")
                    self.all.append(replace(one, victim=own))
            return act

        return register
