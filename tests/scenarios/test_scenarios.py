"""Each scenario, and the table of them in the documentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import pytest

from tests.scenarios import (
    cancelling,
    canvases,
    deaths,
    messages,
    outages,
    outcomes,
    processes,
    redeliveries,
    table,
)
from tests.scenarios.cases import Case
from tests.scenarios.conftest import Observe
from tests.scenarios.lab import Plan

PLANS = {  # in an order that gives two test processes about the same to wait for
    plan.name: plan
    for plan in (
        Plan("prefork", "prefork"),
        Plan("prefork-away", "prefork", visibility_timeout=60),
        Plan(
            "prefork-two-workers",
            "prefork",
            workers=2,
            visibility_timeout=2,
            queue_timeout=9,
            redelivery_grace=6,
        ),
        Plan("threads", "threads"),
        Plan("solo", "solo"),
        Plan("threads-away", "threads", visibility_timeout=60),
    )
}
PARTS = (
    outcomes,
    canvases,
    cancelling,
    processes,
    deaths,
    messages,
    redeliveries,
    outages,
)
DECLARED = [case for part in PARTS for case in part.cases.all]
BY_PLAN = sorted(DECLARED, key=lambda case: list(PLANS).index(case.plan))


@pytest.mark.timeout(300)  # the first one waits for all of a lab
@pytest.mark.parametrize("case", BY_PLAN, ids=str)
def test_a_client_sees(
    case: Case, observe: Observe, record_property: Callable[[str, object], None]
) -> None:
    seen = observe(PLANS[case.plan], case)
    case.check(seen)
    record_property(table.PROPERTY, asdict(case.row(DECLARED.index(case), seen)))


def test_the_table_in_the_documentation_is_up_to_date() -> None:
    written = table.PATH.read_text() if table.PATH.exists() else ""
    command = "bin/test tests/scenarios --write-table"
    rows = [case.row(place) for place, case in enumerate(DECLARED)]
    assert written == table.render(rows), f"stale: {command}"


def test_no_two_scenarios_have_one_name() -> None:
    names = [str(case) for case in DECLARED]
    assert len(names) == len(set(names))
