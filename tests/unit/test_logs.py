"""What a log record says of the run that it comes from."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, signals

from shared.runs import RunRef
from worker import logs
from worker.execution import Execution, enter
from worker.lifecycle import install

FORMAT = logging.Formatter("%(message)s|%(run_id)s|%(source_id)s|%(user_id)s|%(run)s")


@pytest.fixture(autouse=True)
def factory() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(logging.LogRecord)
    logs.install()
    yield
    logging.setLogRecordFactory(before)
    enter(None)


def line(**extra: Any) -> str:
    logger = logging.getLogger("team")
    return FORMAT.format(logger.makeRecord("team", 30, "f", 1, "hello", (), None, extra=extra))


def begin(source: str = "feed-17", user: str = "alice") -> None:
    ref = RunRef(user, source, "run-1", "T", "n")
    enter(Execution(ref, "T", 0, 0, lambda ref, due_ms: None))


def test_a_record_of_an_execution_names_its_run() -> None:
    begin()
    assert line() == "hello|run-1|feed-17|alice| run=run-1 source=feed-17 user=alice"


def test_every_other_record_names_none() -> None:
    assert line() == "hello||||"


def test_no_id_forges_a_line() -> None:
    begin(source="a b", user="x\n[ERROR] forged")
    assert line().endswith(r" run=run-1 source='a b' user='x\n[ERROR] forged'")


def test_an_application_may_log_a_user_of_its_own() -> None:
    begin()
    assert line(user_id=7, run="mine") == "hello|run-1|feed-17|7|mine"


def test_what_a_record_must_not_say_is_refused_as_always() -> None:
    with pytest.raises(KeyError, match="levelname"):
        line(levelname="mine")


def test_the_factory_that_was_there_makes_the_record_and_is_wrapped_once() -> None:
    class Own(logging.LogRecord):
        pass

    logging.setLogRecordFactory(Own)
    logs.install()
    wrapped = logging.getLogRecordFactory()
    logs.install()
    assert logging.getLogRecordFactory() is wrapped
    assert isinstance(wrapped("team", 30, "f", 1, "hello", (), None), Own)


def test_one_that_took_its_place_is_wrapped_when_logging_is_set_up() -> None:
    install(Celery(set_as_current=False))
    logging.setLogRecordFactory(logging.LogRecord)
    signals.after_setup_logger.send(sender=None, logger=None)
    assert line() == "hello||||"


def test_a_record_can_be_sent_to_another_process() -> None:
    begin()
    record = logging.getLogger("team").makeRecord("team", 30, "f", 1, "hello", (), None)
    assert FORMAT.format(pickle.loads(pickle.dumps(record))).startswith("hello|run-1|")
