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
