"""The Celery application of a team, as its producer, its workers and beat load it."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from typing import Any

import redis
from celery import Celery, signals
from kombu.serialization import register

from worker import reaper
from worker.lifecycle import install

WIRING_VARIABLE = "SCENARIO_WIRING"
MARKS, SIGNAL = (
    "scenario-marks:",
    "scenario-signal:",
)  # with a user's id: what tasks leave and wait for
UNDECODABLE, NO_MAPPING = "scenario-undecodable", "scenario-no-mapping"
_SWEEP_SECONDS = 0.5
_REAP_EVERY_SECONDS = 0.5
_ENDLESS_SECONDS = 60.0


@dataclass(frozen=True)
class Wiring:
    """Where an application's servers are, and for how long a message is hidden."""

    broker: str
    backend: str
    queue: str = "main"
    visibility_timeout: float = 60
    soft_shutdown_timeout: float = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def make_app(wiring: Wiring, *, is_current: bool = False) -> Celery:
    """An application with the toolkit installed, quick to notice that a server is away."""
    app = Celery("scenarios", set_as_current=is_current, include=["tests.scenarios.tasks"])
    app.conf.update(
        broker_url=wiring.broker,
        broker_transport_options={
            "visibility_timeout": wiring.visibility_timeout,
            "unacked_restore_interval": _SWEEP_SECONDS,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": 1,
        },
        broker_connection_retry_on_startup=True,
        result_backend=wiring.backend,
        result_backend_thread_safe=True,  # one for all threads, which can be closed
        result_backend_transport_options={
            "retry_policy": {"max_retries": 1, "interval_start": 0.1, "interval_max": 0.1},
        },
        redis_socket_connect_timeout=0.5,
        redis_retry_on_timeout=False,
        task_publish_retry=False,
        task_default_queue=wiring.queue,
        worker_prefetch_multiplier=1,
        worker_soft_shutdown_timeout=wiring.soft_shutdown_timeout,
    )
    install(app)
    return app


def _undecodable(body: Any) -> str:
    return "this is no JSON"


def _no_mapping(body: Any) -> str:
    args, _, embed = body
    return json.dumps([args, ["no", "mapping"], embed])


# Messages that something other than Celery might write; they say that they are JSON.
register(UNDECODABLE, _undecodable, json.loads, "application/json", "utf-8")
register(NO_MAPPING, _no_mapping, json.loads, "application/json", "utf-8")


def _after_ours(sender: Any = None, kwargs: Any = None, **_: Any) -> None:
    """A receiver of the team's own, called after the toolkit's."""
    if sender.name.startswith(("scenario.die_after_ok", "scenario.die_after_retry")):
        os.kill(os.getpid(), signal.SIGKILL)
    if sender.name.startswith("scenario.linger"):
        time.sleep(_ENDLESS_SECONDS)
    if sender.name.startswith(("scenario.wait_and_fail", "scenario.retry_when_told")):
        redis.Redis.from_url(os.environ["REDIS_URL"]).rpush(f"{MARKS}{kwargs['user_id']}", "over")
    if sender.name.startswith("scenario.trip"):
        raise RuntimeError("a receiver's own defect")


if WIRING_VARIABLE in os.environ:
    reaper.REAP_EVERY_SECONDS = _REAP_EVERY_SECONDS  # type: ignore[assignment]
    app = make_app(Wiring(**json.loads(os.environ[WIRING_VARIABLE])), is_current=True)
    signals.task_postrun.connect(_after_ours, weak=False, dispatch_uid="scenario-postrun")
    signals.task_retry.connect(_after_ours, weak=False, dispatch_uid="scenario-retry")
