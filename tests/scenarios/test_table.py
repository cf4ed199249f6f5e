"""The table in the documentation says what the scenarios' tests hold the lifecycle to."""

from __future__ import annotations

from tests.scenarios import table
from tests.scenarios.declared import declared


def test_the_table_in_the_documentation_is_up_to_date() -> None:
    written = table.PATH.read_text() if table.PATH.exists() else ""
    command = "bin/test tests/scenarios --write-table"
    assert written == table.render(case.row() for case in declared()), f"stale: {command}"


def test_no_two_scenarios_have_one_name() -> None:
    names = [str(case) for case in declared()]
    assert len(names) == len(set(names))
