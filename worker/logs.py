"""Log lines of a tracked task say its run: `%(run)s` in a format, and attributes for programs.

Records are made by the factory that is in place, and then told of the execution they come from.
"""

from __future__ import annotations

import logging
from typing import Any

from shared.runs import RunRef
from worker.execution import current

NAMES = frozenset({"run", "run_id", "source_id", "user_id"})


class _Attributes(dict[str, Any]):
    """A record's attributes. `logging` refuses an `extra` that names one which is there already.

    An application may well log a `user_id` of its own, and then it is the application's.
    """

    def __contains__(self, name: object) -> bool:
        return name not in NAMES and super().__contains__(name)


def suffix(ref: RunRef) -> str:
    """What a line ends with: ` run=... source=... user=...`."""
    return f" run={ref.run_id} source={_one_word(ref.source_id)} user={_one_word(ref.user_id)}"


def install(**_: Any) -> None:
    """Has every record of this process say its run. A second call changes nothing.

    after_setup_logger: a module that the worker has loaded may have put a factory of its own.
    """
    make = logging.getLogRecordFactory()
    if getattr(make, "tells_runs", False):
        return

    def make_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        execution = current()
        run = run_id = source_id = user_id = ""
        if execution is not None:
            ref = execution.ref
            run, run_id, source_id, user_id = suffix(ref), ref.run_id, ref.source_id, ref.user_id
        record.__dict__ = _Attributes(
            record.__dict__, run=run, run_id=run_id, source_id=source_id, user_id=user_id
        )
        return record

    make_record.tells_runs = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_record)


def _one_word(text: str) -> str:
    """The text as it is, or quoted: no id may forge a line."""
    return text if text.isprintable() and " " not in text else ascii(text)
