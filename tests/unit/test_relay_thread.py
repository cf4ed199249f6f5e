"""The relay's thread: when it starts, and that each one ends."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from worker import relay
from worker.relay import RelayThread


class HangingRelay:
    """A relay that is slow to stop, until it is let go."""

    def __init__(self, *_: object) -> None:
        self.let_go = threading.Event()

    def run(self) -> None:
        self.let_go.wait()

    def stop(self) -> None:
        pass


def test_a_thread_that_was_slow_to_stop_ends_although_another_was_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/none")
    monkeypatch.setattr(relay, "Relay", HangingRelay)
    monkeypatch.setattr(relay, "STOP_SECONDS", 0.0)
    app = Celery()
    thread, sender = RelayThread(app), SimpleNamespace(app=app)
    thread.start(sender)
    old: Any = thread._relay
    old_thread = thread._thread
    thread.stop()
    thread.start(sender)
    new: Any = thread._relay
    old.let_go.set()
    assert old_thread is not None
    old_thread.join(10)
    assert not old_thread.is_alive()
    thread.stop()
    new.let_go.set()
