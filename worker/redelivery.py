"""Whether a task's message comes again after its execution was lost, and how long that may take."""

from __future__ import annotations

from functools import cache
from typing import Any
from urllib.parse import urlsplit

from celery import Celery

from shared.settings import get_settings

# What a transport that hides messages needs, besides the timeout, to find them again.
SWEEP_SECONDS = 120
# A broker that knows of its connections gives messages back at once: time for a worker to be free.
AT_ONCE_SECONDS = 60
VISIBILITY_TIMEOUT_SECONDS = {"redis": 3600, "rediss": 3600, "sentinel": 3600, "sqs": 1800}


def after_worker(task: Any) -> bool:
    """Whether its message comes again when the whole worker is lost."""
    return bool(task.acks_late)


def after_time_limit(task: Any) -> bool:
    """Whether its message comes again after the hard time limit."""
    acks_on_timeout = getattr(task, "acks_on_timeout", None)
    if acks_on_timeout is None:
        acks_on_timeout = task.acks_on_failure_or_timeout
    return bool(task.acks_late) and not acks_on_timeout


def grace_ms(app: Celery) -> int:
    """For how long a message is waited for: `INGEST_REDELIVERY_GRACE_SECONDS`, or by the broker."""
    seconds = get_settings().ingest_redelivery_grace_seconds
    return int((_grace_seconds(app) if seconds is None else seconds) * 1000)


@cache
def _grace_seconds(app: Celery) -> float:
    url = app.conf.broker_read_url or app.conf.broker_url or ""
    scheme = urlsplit(url if isinstance(url, str) else url[0]).scheme.partition("+")[0]
    default = VISIBILITY_TIMEOUT_SECONDS.get(app.conf.broker_transport or scheme)
    if default is None:
        return AT_ONCE_SECONDS
    options = app.conf.broker_transport_options or {}
    return float(options.get("visibility_timeout") or default) + SWEEP_SECONDS
