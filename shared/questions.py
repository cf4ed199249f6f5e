"""Questions: what the built-in producer answers, and how web asks it to."""

from __future__ import annotations

from typing import Any

import psycopg

TASK = "worker.chat.answer_question"
LONGEST_QUESTION = 4000


def discard(connection: psycopg.Connection[Any], user_id: str, message_id: str) -> None:
    """Removes a message that no writer has heard of."""
    connection.execute(
        "DELETE FROM messages WHERE id = %s AND user_id = %s"
        " AND attempt = 0 AND status = 'waiting'",
        (message_id, user_id),
    )
