"""The task that answers a question: what its producer yields goes into the message's journal."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager

import psycopg
from celery import shared_task

from shared.errors import PostgresUnavailable
from shared.messages import RESTART
from shared.questions import TASK
from shared.settings import get_settings
from worker.answer import answer
from worker.chat.question import Event, Piece, Question, load_producer


@shared_task(
    name=TASK,
    acks_late=True,
    ignore_result=True,
    autoretry_for=(psycopg.OperationalError, PostgresUnavailable),
    retry_backoff=2,
    max_retries=5,
)
def answer_question(*, message_id: str, user_id: str, question: str) -> None:
    """Writes the answer to a question; one that is finished is left as it is.

    An attempt whose worker died has left a part of the answer: readers are told to clear it.
    """
    with answer(message_id, user_id) as a:
        if a.attempt > 1:
            a.emit(RESTART, {})
        produce = load_producer(get_settings().chat_producer)
        with _closed(produce(Question(question, user_id, message_id))) as pieces:
            for piece in pieces:
                if isinstance(piece, Event):
                    a.emit(piece.type, piece.payload)
                else:
                    a.emit("answer", {"answer": piece})


@contextmanager
def _closed(pieces: Iterable[Piece]) -> Iterator[Iterable[Piece]]:
    """Closes a generator at once where the answer was stopped: it may hold a model's request."""
    try:
        yield pieces
    finally:
        if isinstance(pieces, Generator):
            pieces.close()
