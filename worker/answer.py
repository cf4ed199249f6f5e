"""What the author of a task that writes a chat answer uses.

    with answer(message_id, user_id) as a:
        for token in model(question):
            a.emit("answer", {"answer": token})

The machinery is `shared/answers.py`, which web requests and scripts use as it is. Here exceptions
are told to users as those of any task, and what is no failure of the task is none to Celery.
"""

from __future__ import annotations

from types import TracebackType
from uuid import UUID

from celery.exceptions import Ignore, Reject, Retry

from shared import answers, errors
from shared.answers import Answer, OnRedelivery
from shared.errors import Stopped
from shared.facts import ErrorInfo
from worker.failures import describe

__all__ = ["Answer", "MessageFinished", "MessageGone", "Stopped", "TakenOver", "answer"]


class MessageFinished(errors.MessageFinished, Ignore):
    """This answer is finished. Let it pass: Celery acknowledges the message, and nothing fails."""


class MessageGone(errors.MessageGone, Ignore):
    """This message was deleted. Let it pass: nobody waits for the answer any more."""


class TakenOver(errors.TakenOver, Ignore):
    """This answer has another writer by now. Let it pass: the result is the other one's."""


class Block:
    """The block that an answer is written in; to Celery, what is no failure is none."""

    def __init__(self, block: answers.Block) -> None:
        self._block = block

    def __enter__(self) -> Answer:
        try:
            return self._block.__enter__()
        except errors.MessageFinished as error:
            raise MessageFinished from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        try:
            if self._block.__exit__(kind, error, traceback):
                return True
        except (errors.TakenOver, errors.MessageGone) as late:
            error = late
        if isinstance(error, errors.TakenOver):
            raise TakenOver from error
        if isinstance(error, errors.MessageGone):
            raise MessageGone from error
        return False


def answer(message_id: str | UUID, user_id: str, on_redelivery: OnRedelivery = "skip") -> Block:
    """Lends a message to be written, event by event, for the length of a `with` block.

    Makes the message unless it is there. Leaving the block writes `end`; an exception writes
    `error`, with the code and the sentence that `worker.failures` has for it, and goes on.
    `self.retry()` within the block leaves the message open, for the next attempt.

    Args:
        message_id: a UUID.
        user_id: the owner.
        on_redelivery: where an earlier attempt has written events, `restart` begins anew: a
            `restart` event tells readers to clear what they have. With `skip`, a message that is
            finished stays so, and one that is open is continued.

    Entering and leaving raise:
        MessageFinished: it is finished, and `on_redelivery` is `skip`.
        MessageTaken: it is another user's.
        TakenOver, MessageGone: nothing more can be written.
        PostgresUnavailable: it can't be begun, or its end was not committed within 30 seconds.
    """
    block = answers.answer(
        message_id, user_id, on_redelivery, describe=_describe, comes_again=_comes_again
    )
    return Block(block)


def _describe(error: BaseException) -> ErrorInfo:
    return describe(error)[0]


def _comes_again(error: BaseException) -> bool:
    """Whether the same task will run again, for the same message."""
    return isinstance(error, Retry) or (isinstance(error, Reject) and error.args[1])
