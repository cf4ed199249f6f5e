"""What users are told of an author's exceptions, whatever the author has made of them."""

from __future__ import annotations

import logging
from collections import UserDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest

from shared.facts import ErrorInfo
from worker import failures
from worker.failures import INTERNAL, IngestError, describe, register_error


class Gone(IngestError):
    """This feed does not exist any more."""

    code = "feed_gone"
    retryable = True


class OwnInit(IngestError):
    """This feed is broken."""

    def __init__(self, url: str) -> None:
        self.url = url


@dataclass
class Data(IngestError):
    """This feed could not be read."""

    url: str
    line: int = 0


@dataclass
class DataWithoutDocstring(Gone):
    url: str


class OwnText(OwnInit):
    def __str__(self) -> str:
        return "The feed of example.org is broken."


class Unspeakable(Gone):
    def __str__(self) -> str:
        raise RuntimeError("/srv/secret")


class NoSentence(Gone):
    code = "nothing"


class Codes(Enum):
    GONE = "gone"
    NUMBER = 3


class Numbered(Gone):
    code = 3  # type: ignore[assignment]


class Named(Gone):
    code = Codes.GONE  # type: ignore[assignment]


class NamedByNumber(Gone):
    code = Codes.NUMBER  # type: ignore[assignment]


class Refusing(Gone):
    @property
    def code(self) -> str:  # type: ignore[override]
        raise LookupError

    @property
    def retryable(self) -> bool:  # type: ignore[override]
        raise LookupError


class OddDetails(Gone):
    def __init__(self, details: Any) -> None:
        super().__init__("It is gone.")
        self.details = details


class RefusingMapping(UserDict[str, Any]):
    def __iter__(self) -> Iterator[str]:
        raise RuntimeError


GONE = "This feed does not exist any more."


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(failures, "_known", dict(failures._known))
    yield


@pytest.mark.parametrize(
    ("exception", "code", "message", "retryable"),
    [
        (Gone(), "feed_gone", GONE, True),
        (Gone("It went away."), "feed_gone", "It went away.", True),
        (OwnInit("/srv/secret"), "ingest_failed", "This feed is broken.", False),
        (OwnText("/srv/secret"), "ingest_failed", "The feed of example.org is broken.", False),
        (Data("/srv/secret"), "ingest_failed", "This feed could not be read.", False),
        (DataWithoutDocstring("/srv/secret"), "feed_gone", GONE, True),
        (Unspeakable("x"), "feed_gone", GONE, True),
        (NoSentence(), "nothing", GONE, True),
        (Numbered(), "ingest_failed", GONE, True),
        (Named(), "gone", GONE, True),
        (NamedByNumber(), "ingest_failed", GONE, True),
        (Refusing(), "ingest_failed", GONE, False),
        (Gone("  "), "feed_gone", GONE, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_of_the_authors_is_told_by_what_can_be_told_of_it(
    exception: IngestError, code: str, message: str, retryable: bool
) -> None:
    assert describe(exception) == (ErrorInfo(code, message, retryable), {})


def test_an_error_that_says_nothing_at_all_has_the_general_sentence() -> None:
    class Quiet(IngestError):
        code = "quiet"

    assert describe(Quiet())[0].message == "This source could not be processed."


@pytest.mark.parametrize("details", [[1], 5, RefusingMapping(a=1), object()])
def test_details_that_are_no_mapping_are_left_out_and_logged(
    details: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        error, told = describe(OddDetails(details))
    assert (error.message, told) == ("It is gone.", {})
    assert "details of OddDetails" in caplog.text


def test_an_error_given_odd_details_is_still_that_error() -> None:
    assert describe(Gone(details=[1]))[0].code == "feed_gone"  # type: ignore[arg-type]


def test_an_exception_of_others_is_not_asked_for_its_text() -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe(Unspeakable()) == (INTERNAL, {})
    register_error(Unspeakable, "odd", "It is odd.")
    assert describe(Unspeakable()) == (ErrorInfo("odd", "It is odd."), {})


@pytest.mark.parametrize(
    ("arguments", "refusal", "sentence"),
    [
        ((ValueError, "c", None), TypeError, "message of ValueError is text, not None"),
        ((ValueError, 5, "m"), TypeError, "code of ValueError is text, not 5"),
        ((ValueError, "", "m"), ValueError, "code of ValueError is empty"),
        ((ValueError, "c", " "), ValueError, "message of ValueError is empty"),
        (("ValueError", "c", "m"), TypeError, "by its class, not by 'ValueError'"),
        ((ValueError("x"), "c", "m"), TypeError, "by its class"),
        ((int, "c", "m"), TypeError, "by its class"),
    ],
)
def test_what_can_not_be_told_is_not_registered(
    arguments: Any, refusal: type[Exception], sentence: str
) -> None:
    with pytest.raises(refusal, match=sentence):
        register_error(*arguments)
    assert describe(ValueError()) == (INTERNAL, {})
