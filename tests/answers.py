"""Answers as their writer leaves them: rows in Postgres, and an announcement of each commit."""

from __future__ import annotations

from typing import Any, Protocol

import psycopg

from shared import keys
from shared.encoding import to_json
from shared.message_announcer import told
from shared.messages import begin_attempt, create_message

USER = "local"


class Publishing(Protocol):
    """A client of Redis."""

    def publish(self, channel: str, message: bytes) -> Any:
        """Announces."""


class Writing:
    """One message of a user's, and its writer, who commits and announces when told to.

    Args:
        database_url: where it is written to.
        client: announces; None for nobody.
    """

    def __init__(self, database_url: str, client: Publishing | None, user_id: str = USER) -> None:
        self._url = database_url
        self._client = client
        self.user_id = user_id
        self.last = -1
        with self._connect() as connection:
            self.id = create_message(connection, user_id)

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._url)

    @property
    def path(self) -> str:
        return f"/api/messages/{self.id}/events"

    def begin(self) -> None:
        """Takes the message up; opens one that has ended again."""
        with self._connect() as connection:
            attempt = begin_attempt(connection, self.user_id, self.id, restart=True)
        if attempt.restarted:
            self.announce([{"type": "restart"}], attempt.last_sequence)
        self.last = attempt.last_sequence

    def write(self, *events: dict[str, Any], announced: bool = True) -> None:
        """Commits events at once, and announces them."""
        with self._connect() as connection:
            self._insert(connection, events)
        if announced:
            self.announce(events, self.last)

    def say(self, *words: str, announced: bool = True) -> None:
        """Commits pieces of text."""
        self.write(*[{"type": "answer", "answer": word} for word in words], announced=announced)

    def end(self, *, announced: bool = True, **payload: Any) -> None:
        """Commits the terminal event."""
        event = {"type": "end", **payload}
        with self._connect() as connection:
            self._insert(connection, [event])
            connection.execute(
                "UPDATE messages SET status = 'finished', finished_at = now() WHERE id = %s",
                (self.id,),
            )
        if announced:
            self.announce([event], self.last, finished=True)

    def fall_silent(self) -> None:
        """As one whose process was killed an hour ago."""
        with self._connect() as connection:
            connection.execute(
                "UPDATE messages SET heartbeat_at = now() - interval '1 hour' WHERE id = %s",
                (self.id,),
            )

    def announce(self, events: Any, last: int, *, finished: bool = False) -> None:
        """Announces events, the last of which has this number."""
        payloads = [to_json(event).encode() for event in events]
        for _, said in told(self.id, last - len(events), payloads, finished=finished):
            self.tell(said)

    def tell(self, announcement: bytes) -> None:
        """Announces, if anybody does."""
        if self._client is not None:
            self._client.publish(keys.message(self.id), announcement)

    def _insert(self, connection: psycopg.Connection[Any], events: Any) -> None:
        for event in events:
            connection.execute(
                "WITH m AS (UPDATE messages SET last_sequence = last_sequence + 1,"
                " heartbeat_at = now() WHERE id = %s RETURNING id, day, last_sequence)"
                " INSERT INTO message_events (day, message_id, sequence_no, event_type, payload)"
                " SELECT day, id, last_sequence, %s, %s::json FROM m",
                (self.id, event["type"], to_json(event)),
            )
        self.last += len(events)


def text_of(events: list[dict[str, Any]]) -> str:
    """The text that these events make."""
    text = ""
    for event in events:
        if event["type"] == "restart":
            text = ""
        text += event.get("answer", "")
    return text
