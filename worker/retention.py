"""Retention: beat has old days of the message journal removed, and the next ones made.

Several at once, of two beats or after a redelivery, do no harm, and one run catches up with what
was not done while beat was down.
"""

from __future__ import annotations

import logging
from datetime import date, timedelta

from celery import shared_task

from shared.message_days import make_days_ahead, session, today
from shared.message_pruning import Pruned, prune
from shared.settings import get_settings
from shared.signals import messages_pruned

log = logging.getLogger(__name__)


@shared_task(name="worker.retention.prune_messages", ignore_result=True)
def prune_messages() -> int:
    """Removes what is older than `MESSAGE_EVENTS_RETENTION_DAYS`; returns how many messages."""
    return run_retention().messages


def run_retention(before: date | None = None, *, dry_run: bool = False) -> Pruned:
    """Removes the days before `before`, makes the next ones, and tells of it.

    Args:
        before: by default as `MESSAGE_EVENTS_RETENTION_DAYS` says.
        dry_run: changes nothing.

    Raises:
        ValueError: `before` is later than today.
        PostgresUnavailable, psycopg.Error: it broke off; the next run goes on.
    """
    settings = get_settings()
    with session(settings.require_database_url()) as connection:
        if before is None:
            before = today(connection) - timedelta(days=settings.message_events_retention_days)
        if not dry_run:
            make_days_ahead(connection)
        pruned = prune(connection, before, dry_run=dry_run)
    if not (dry_run or pruned.is_elsewhere):
        _tell(pruned)
    return pruned


def _tell(pruned: Pruned) -> None:
    if pruned.removed or pruned.kept:
        log.info(
            "messages from before %s: %d of them removed, with %d events, in %d days; %d days kept",
            *(pruned.before, pruned.messages, pruned.events),
            *(len(pruned.removed), len(pruned.kept)),
        )
    messages_pruned.send("retention", pruned=pruned)
