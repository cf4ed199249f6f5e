"""The Celery application and its beat schedule. Its settings are read when they are first used."""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery, _state, signals

from shared.errors import SettingsError
from shared.settings import get_settings
from worker.chat.question import load_producer
from worker.lifecycle import install
from worker.relay import install_relay

OWN_TASKS = ("worker.documents.tasks", "worker.chat.tasks", "worker.retention")
VISIBILITY_TIMEOUT_SECONDS = 3600
SOFT_SHUTDOWN_SECONDS = 10
SWEEP_EVERY_SECONDS = 60


def configuration() -> dict[str, Any]:
    """Celery's settings, from this process's environment; each has its reason."""
    settings = get_settings()
    return {
        "broker_url": settings.broker_url,
        "broker_connection_retry_on_startup": True,  # servers may come up later
        "result_backend": settings.result_backend,  # chords and the reaper need one
        "result_expires": 86_400,  # longer than a redelivery takes, after which the reaper asks
        "include": [*OWN_TASKS, *settings.worker_import_names],
        # A killed worker's message comes again; INGEST_MAX_DELIVERIES ends a deadly one.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # Redis gives a message again after that long, also of a task that is still running: it
        # must be longer than the longest task and the longest countdown.
        "broker_transport_options": {"visibility_timeout": VISIBILITY_TIMEOUT_SECONDS},
        "worker_consumer": "worker.consumer:Consumer",  # Celery's may end with its Redis
        "worker_prefetch_multiplier": 1,  # a long task must not hold messages others could run
        # A child is replaced between two tasks: by KiB, since parsers leak and fragment, and by
        # number, for what leaks besides memory.
        "worker_max_memory_per_child": 512 * 1024,
        "worker_max_tasks_per_child": 1000,
        # Asked to stop at once (SIGQUIT), it lets short tasks finish before it gives back the rest.
        "worker_soft_shutdown_timeout": SOFT_SHUTDOWN_SECONDS,
        "worker_send_task_events": False,  # our own events say it, to the user
        "worker_log_format": "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s%(run)s",
        "worker_task_log_format": "[%(asctime)s: %(levelname)s/%(processName)s] "
        "%(task_name)s[%(task_id)s]: %(message)s%(run)s",
        "task_serializer": "json",  # a message is data: pickle would run what it says
        "accept_content": ["json"],
        "beat_schedule": {
            "sweep-uploads": {
                "task": "worker.documents.sweep",
                "schedule": SWEEP_EVERY_SECONDS,
                "options": {"expires": SWEEP_EVERY_SECONDS},
            },
            "prune-messages": {
                "task": "worker.retention.prune_messages",
                "schedule": settings.message_prune_every_seconds,
                "options": {"expires": settings.message_prune_every_seconds},
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


def require_producer(instance: Any = None, **_: Any) -> None:
    """Ends a worker whose producer of answers can't be had, before it takes a question."""
    if getattr(instance, "app", app) is not app:
        return
    try:
        load_producer(get_settings().chat_producer)
    except SettingsError as error:
        sys.exit(f"error: {error}")


# Where a team's own application came first, it stays the current one: its tasks are its own.
app = Celery("worker", set_as_current=getattr(_state, "_tls").current_app is None)  # noqa: B009
app.add_defaults(configuration)
install(app)
install_relay(app)
signals.celeryd_init.connect(require_settings, weak=False, dispatch_uid="eventstream-settings")
signals.celeryd_init.connect(require_producer, weak=False, dispatch_uid="eventstream-producer")
signals.beat_init.connect(require_settings, weak=False, dispatch_uid="eventstream-settings")
