"""The highest rate at which something still holds: by steps at first, then by halving."""

from __future__ import annotations

import math
from collections.abc import Callable

PRECISION = 1.05  # between the highest that held and the lowest that did not
TRIES = 2  # the machine may have been busy with something else
FIRST_STEP = 2.0
KNOWN_STEP = 1.2


def highest_rate(
    holds: Callable[[float], bool],
    start: float,
    *,
    known: bool = False,
    lowest: float = 1.0,
    limit: float = 1e6,
) -> float:
    """Returns the highest rate for which `holds` was true, 0 where none was.

    Args:
        holds: tries a rate.
        start: the rate that is tried first.
        known: whether `start` is what an earlier search found: the steps are smaller then.
        lowest: the rate below which the search gives up.
        limit: the rate at which it ends.
    """

    def holds_once(rate: float) -> bool:
        return any(holds(rate) for _ in range(TRIES))

    step = KNOWN_STEP if known else FIRST_STEP
    good, bad = 0.0, math.inf
    rate = start
    while rate >= lowest and (good == 0.0 or bad == math.inf) and rate <= limit:
        if holds_once(rate):
            good = rate
            rate *= step
        else:
            bad = rate
            rate /= step
    while good and bad < math.inf and bad / good > PRECISION:
        middle = math.sqrt(good * bad)
        if holds_once(middle):
            good = middle
        else:
            bad = middle
    return good
