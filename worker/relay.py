"""The relay's thread in a worker's main process, and only there: pool children have none."""

from __future__ import annotations

import logging
import threading
from typing import Any

from celery import Celery, signals

from shared.connections import app_redis
from shared.relay import Relay
from shared.settings import get_settings

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0
RESTART_SECONDS = 5.0


class RelayThread:
    """Runs a relay while the workers of one application are up."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._relay: Relay | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self, sender: Any, **_: Any) -> None:
        """worker_ready: the consumer is up, for the first time or after it lost the broker."""
        url = get_settings().database_url
        if sender.app is not self._app or url is None or self._thread is not None:
            return
        self._stopping = threading.Event()  # its own: one that is slow to stop must see the old one
        self._relay = Relay(url, app_redis)
        self._thread = threading.Thread(
            target=_run,
            args=(self._relay, self._stopping),
            name="eventstream-relay",
            daemon=True,
        )
        self._thread.start()

    def stop(self, **_: Any) -> None:
        """worker_shutdown: another relay may take over at once."""
        if self._relay is None or self._thread is None:
            return
        self._stopping.set()
        self._relay.stop()
        self._thread.join(STOP_SECONDS)
        self._relay = self._thread = None


def _run(relay: Relay, stopping: threading.Event) -> None:
    while not stopping.is_set():
        try:
            relay.run()
        except Exception:  # the thread's edge: events would wait until the next start
            log.exception("the relay failed, and starts again")
            stopping.wait(RESTART_SECONDS)


def install_relay(app: Celery) -> None:
    """Makes this application's workers relay the event outbox; one at a time is active."""
    thread = RelayThread(app)
    signals.worker_ready.connect(thread.start, weak=False, dispatch_uid="eventstream-relay-start")
    signals.worker_shutdown.connect(thread.stop, weak=False, dispatch_uid="eventstream-relay-stop")
