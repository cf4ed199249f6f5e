"""What a producer gets and what it gives: the seam where a team plugs a model in.

A producer is a function that `CHAT_PRODUCER` names, `module:function`. It gets a `Question` and
yields pieces of the answer as they come: text, and events of other types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from shared.connections import postgres
from shared.errors import SettingsError
from shared.search import Passage, passages

__all__ = ["Event", "Passage", "Piece", "Producer", "Question", "load_producer"]

LONGEST_EXCERPT = 300


@dataclass(frozen=True, slots=True)
class Event:
    """An event of the answer that is no text: a source, a thought, a tool call."""

    type: str
    payload: Mapping[str, Any]


Piece = str | Event


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody asked."""

    text: str
    user_id: str
    message_id: str

    def passages(self, limit: int = 8) -> list[Passage]:
        """The pieces of the user's own sources that fit the question best, best first.

        Raises:
            PostgresUnavailable: they can't be searched just now.
        """
        with postgres() as connection:
            return passages(connection, self.user_id, self.text, limit)

    @staticmethod
    def source(number: int, passage: Passage) -> Event:
        """The event that says what the answer cites as `[number]`."""
        told = asdict(passage)
        excerpt = " ".join(told.pop("text").split())[:LONGEST_EXCERPT]
        return Event("source", {"number": number, **told, "excerpt": excerpt})


Producer = Callable[[Question], Iterable[Piece]]


def load_producer(name: str) -> Producer:
    """The function that a setting names, `module:function`.

    Raises:
        SettingsError: there is none.
    """
    module_name, _, function_name = name.partition(":")
    try:
        found = getattr(import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"CHAT_PRODUCER is wrong: {name!r} can't be had: {error}.") from error
    if not callable(found):
        raise SettingsError(f"CHAT_PRODUCER is wrong: {name!r} can't be called.")
    return found  # type: ignore[no-any-return]
