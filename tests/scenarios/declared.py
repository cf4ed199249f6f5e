"""All scenarios of this folder, in the order of the table."""

from __future__ import annotations

from tests.scenarios import test_deaths, test_outcomes, test_servers_away, test_two_workers
from tests.scenarios.cases import Case

MODULES = (test_outcomes, test_deaths, test_two_workers, test_servers_away)


def declared() -> list[Case]:
    """One for each pool and acknowledgement."""
    return [case for module in MODULES for case in module.cases.all]
