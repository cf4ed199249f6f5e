"""Moments that scenarios share: the end of a worker, the beginning and the end of an outage.

Each happens once all scenarios that it concerns are ready for it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from tests.scenarios.cases import Case, Victim

_PATIENCE_SECONDS = 60.0


class Meetings:
    """The meetings of one lab. One that a scenario can't come to is off for the others too.

    Args:
        cases: all scenarios of the lab.
        end: ends a victim.
        take, give: take a server away, and give it back.
    """

    def __init__(
        self,
        cases: Iterable[Case],
        end: Callable[[Victim], None],
        take: Callable[[str], None],
        give: Callable[[str], None],
    ) -> None:
        victims = Counter(case.victim for case in cases if case.victim is not None)
        servers = Counter(case.without for case in cases if case.without)
        self._strikes = {v: _meeting(n, partial(end, v)) for v, n in victims.items()}
        self._taken = {s: _meeting(n, partial(take, s)) for s, n in servers.items()}
        self._given = {s: _meeting(n, partial(give, s)) for s, n in servers.items()}

    def strike(self, case: Case) -> None:
        """Returns once the scenario's worker has ended."""
        assert case.victim is not None
        self._strikes[case.victim].wait()

    @contextmanager
    def outage(self, case: Case) -> Iterator[None]:
        """A server is away for the block."""
        self._taken[case.without].wait()
        try:
            yield
        finally:
            self._given[case.without].wait()

    def miss(self, case: Case) -> None:
        """Lets the others know that a scenario has failed."""
        if case.victim is not None:
            self._strikes[case.victim].abort()
        if case.without:
            self._taken[case.without].abort()


def _meeting(parties: int, action: Callable[[], None]) -> threading.Barrier:
    return threading.Barrier(parties, action, timeout=_PATIENCE_SECONDS)
