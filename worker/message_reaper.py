"""The reaper of messages: a thread of beat that ends answers whose writer is lost.

It waits for nobody: not for the runs' reaper, nor that one for Postgres. Any number may run side
by side, and readers do the same for the message that they read: the statement ends each one once.
"""

from __future__ import annotations

import logging
import time

import psycopg

from shared.connections import postgres
from shared.errors import PostgresUnavailable
from shared.message_announcer import Announcer, told_of_ended
from shared.messages import end_stale
from shared.settings import get_settings

LOOK_EVERY_SECONDS = 10.0

log = logging.getLogger(__name__)


class MessageReaper:
    """Looks at open messages. Where `DATABASE_URL` is not set, there are none."""

    def __init__(self) -> None:
        self._announcer = Announcer()
        self._is_away = False

    def run(self) -> None:
        """Looks every ten seconds, or as often as a writer may be silent."""
        while True:
            time.sleep(min(LOOK_EVERY_SECONDS, get_settings().message_stale_seconds))
            try:
                self.reap()
                self._is_away = False
            except (PostgresUnavailable, psycopg.Error) as error:
                if not self._is_away:
                    log.warning("the reaper of messages waits for Postgres: %s", error)
                self._is_away = True
            except Exception:  # the thread's edge: answers would stay open
                log.exception("the reaper of messages failed, and looks again")

    def reap(self) -> int:
        """Ends the messages whose writer is lost, and returns how many.

        Raises:
            PostgresUnavailable, psycopg.Error: Postgres did not do it.
        """
        settings = get_settings()
        if settings.database_url is None:
            return 0
        count = 0
        while True:
            with postgres() as connection:
                ended = end_stale(connection, settings.message_stale_seconds)
            if not ended:
                return count
            count += len(ended)
            log.warning("nothing is heard of the writers of %d messages: they have failed", count)
            self._announcer.announce(told_of_ended(ended))
