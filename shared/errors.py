"""The exceptions of this project; the docstring of each is the sentence its reader gets."""

from __future__ import annotations

import inspect


class EventStreamError(Exception):
    """Something went wrong in celery-eventstream."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or ""))


class SettingsError(EventStreamError):
    """A setting has a value that is not taken."""


class EventRefused(EventStreamError):
    """The event can't be published as it is."""


class MalformedCursor(EventStreamError):
    """A cursor is a Redis Stream id, such as 1718900000000-0."""


class RedisUnavailable(EventStreamError):
    """Redis can't be reached just now."""


class PostgresUnavailable(EventStreamError):
    """Postgres can't be reached just now."""


class MigrationError(EventStreamError):
    """The database schema can't be brought up to date."""


class MalformedMessageId(EventStreamError):
    """A message id is a UUID, such as 6f1c0b3e-8f0a-4d2b-9a57-3a1f0c5d7e21."""


class MessageTaken(EventStreamError):
    """There is a message of this id, and it is another user's."""


class MessageFinished(EventStreamError):
    """This answer is finished: an earlier attempt ended it, or nothing was heard of its writer."""


class MessageGone(EventStreamError):
    """This message was deleted: nothing more can be written to it."""


class TakenOver(EventStreamError):
    """This answer has another writer by now, or was ended as one whose writer is lost."""


class Stopped(EventStreamError):
    """This answer was asked to stop."""
