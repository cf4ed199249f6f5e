"""The Celery application and its beat schedule. Its settings are read when they are first used."""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery, _state, signals

from shared.errors import SettingsError
from shared.settings import get_settings
from worker.lifecycle import install
from worker.relay import install_relay

VISIBILITY_TIMEOUT_SECONDS = 3600
REAP_EVERY_SECONDS = 10
SWEEP_EVERY_SECONDS = 60


def configuration() -> dict[str, Any]:
    """Celery's settings, from this process's environment; each has its reason."""
    settings = get_settings()
    return {
        "broker_url": settings.broker_url,
        "result_backend": settings.result_backend,  # chords and the reaper need one
        "result_expires": 86_400,
        "include": ["worker.documents.tasks", "worker.reaper", *settings.worker_import_names],
        # A killed worker's message comes again; INGEST_MAX_DELIVERIES ends a deadly one.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "broker_transport_options": {"visibility_timeout": VISIBILITY_TIMEOUT_SECONDS},
        "worker_prefetch_multiplier": 1,  # a long task must not hold messages others could run
        "worker_max_memory_per_child": 512 * 1024,  # KiB; a parser that leaks is replaced
        "worker_send_task_events": False,  # our own events say it, to the user
        "broker_connection_retry_on_startup": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "beat_schedule": {
            "reap": {
                "task": "worker.reap",
                "schedule": REAP_EVERY_SECONDS,
                "options": {"expires": REAP_EVERY_SECONDS},
            },
            "sweep-uploads": {
                "task": "worker.documents.sweep",
                "schedule": SWEEP_EVERY_SECONDS,
                "options": {"expires": SWEEP_EVERY_SECONDS},
            },
        },
    }


def require_settings(sender: Any = None, instance: Any = None, **_: Any) -> None:
    """Ends a worker or beat that lacks a setting, with a sentence.

    Not asked for earlier: a task's body can be called, and tested, without any server. A team's
    own application has servers of its own, and needs of ours only Redis.
    """
    try:
        settings = get_settings()
        settings.require_redis_url()
        if getattr(instance or sender, "app", app) is not app:
            return
        settings.require_celery_urls()
        settings.require_database_url()
    except SettingsError as error:
        sys.exit(f"error: {error}")


# Where a team's own application came first, it stays the current one: its tasks are its own.
app = Celery("worker", set_as_current=getattr(_state, "_tls").current_app is None)  # noqa: B009
app.add_defaults(configuration)
install(app)
install_relay(app)
signals.celeryd_init.connect(require_settings, weak=False, dispatch_uid="eventstream-settings")
signals.beat_init.connect(require_settings, weak=False, dispatch_uid="eventstream-settings")
