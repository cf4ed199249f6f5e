"""What a task's `ingest` option may be, and what is said of a wrong one."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from worker import option
from worker.lifecycle import install
from worker.option import Ingest

RIGHT = {"user": "user_id", "source": "source_id"}


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    monkeypatch.setattr(option, "_told", set())
    app = Celery("team", broker="memory://", set_as_current=False)
    install(app)
    yield app
    app.close()


def declare(app: Celery, name: str, ingest: object, body: Any = None) -> None:
    def run(user_id: str, source_id: str) -> None: ...

    declared: Any = app.task
    declared(name=name, ingest=ingest, shared=False)(body or run)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [record for record in caplog.records if record.name == option.log.name]
    assert {record.levelno for record in records} <= {logging.ERROR}
    return [record.getMessage() for record in records]


def is_gated(app: Celery, name: str) -> bool:
    return getattr(type(app.tasks[name]).before_start, "is_gate", False)


WRONG = {
    "misspelt": ({"user": "user_id", "sorce": "source_id"}, "'sorce' is not known"),
    "incomplete": ({"user": "user_id"}, "'source' is missing"),
    "true": (True, "True is neither an Ingest nor a mapping"),
    "a list": (["user_id"], "['user_id'] is neither an Ingest nor a mapping"),
    "a text": ("user_id", "'user_id' is neither an Ingest nor a mapping"),
    "no name": ({"user": None, "source": "source_id"}, "'user' is None"),
    "stages misspelt": ({**RIGHT, "stage": {"a": 1}}, "'stage' is not known"),
    "stages a list": ({**RIGHT, "stages": ["a"]}, "'stages' is ['a']"),
    "no weight": (Ingest("user_id", "source_id", {"a": 0}), "'stages' is {'a': 0}"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_a_wrong_option_is_said_once_and_every_task_has_its_gate(
    app: Celery, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    given, what = WRONG[case]
    declare(app, "a-right", RIGHT)
    declare(app, "bad", given)
    declare(app, "z-right", Ingest("user_id", "source_id"))
    assert all(is_gated(app, name) for name in app.tasks)
    app.tasks["bad"].delay("alice", "s")
    assert not option.option(app.tasks["bad"])
    assert said(caplog) == [
        f"task bad is not tracked, its ingest option is wrong: {what}. It takes 'user' and "
        "'source', the names of the arguments with their ids, and 'stages', names with a weight "
        "over 0."
    ]


def test_an_argument_that_the_task_does_not_have_is_said_before_any_call(
    app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    declare(app, "bad", {"user": "uid", "source": "source_id"})
    declare(app, "right", RIGHT)
    app.finalize()
    assert ["the task has no argument 'uid'" in line for line in said(caplog)] == [True]


def test_a_task_that_takes_any_name_has_every_argument(
    app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    def run(**more: Any) -> None: ...

    declare(app, "any", RIGHT, run)
    app.finalize()
    assert said(caplog) == []


def test_a_task_without_the_option_is_none_of_our_business(
    app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    for name, ingest in (("none", None), ("false", False), ("empty", {})):
        declare(app, name, ingest)
        app.tasks[name].delay("alice", "s")
    assert said(caplog) == []


def test_a_wrong_option_of_a_task_that_is_declared_late_is_said_by_its_first_call(
    app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    app.finalize()
    declare(app, "late", True)
    for _ in range(2):
        app.tasks["late"].delay("alice", "s")
    assert ["task late is not tracked" in line for line in said(caplog)] == [True]


def by_default(source_id: str, user_id: str = "alice") -> None: ...


def by_any_name(**more: Any) -> None: ...


def by_a_rest(url: str, *rest: str, source_id: str = "s", **kwargs: Any) -> None: ...


def by_position(user_id: str, source_id: str, /, **more: Any) -> None: ...


CALLS: dict[str, tuple[Any, list[str], dict[str, str], tuple[str | None, str | None]]] = {
    "a default": (by_default, ["s"], {}, ("alice", "s")),
    "a default that is overruled": (by_default, ["s"], {"user_id": "bob"}, ("bob", "s")),
    "any names": (by_any_name, [], {"user_id": "bob", "source_id": "s"}, ("bob", "s")),
    "any names, one missing": (by_any_name, [], {"source_id": "s"}, (None, "s")),
    "both": (by_a_rest, ["u", "more"], {"user_id": "bob"}, ("bob", "s")),
    "positions": (by_position, ["bob", "s"], {}, ("bob", "s")),
    "a wrong call": (by_default, ["s", "alice", "?"], {}, (None, None)),
}


@pytest.mark.parametrize("case", list(CALLS))
def test_a_calls_user_and_source_are_found_wherever_its_signature_takes_them(
    app: Celery, case: str
) -> None:
    body, args, kwargs, found = CALLS[case]
    declare(app, "called", RIGHT, body)
    assert option.arguments(app.tasks["called"], args, kwargs) == found
