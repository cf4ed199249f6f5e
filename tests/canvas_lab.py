"""A team's producer, and what the streams of its users hold, for the tests of canvases."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import redis
from celery import Celery
from celery.canvas import Signature

from shared import keys
from worker.lifecycle import install
from worker.pipeline import StartedRun, start_ingest

DEADLINE_SECONDS = 40.0
TERMINAL = {"completed", "failed", "cancelled"}
POOLS = {
    "prefork": ("--pool", "prefork", "--concurrency", "2"),
    "threads": ("--pool", "threads", "--concurrency", "2"),
    "solo": ("--pool", "solo"),
}


class CanvasLab:
    """One user with one source, new for each test, so that none sees another's."""

    def __init__(self, url: str, backend: str | None = None) -> None:
        import tests.canvas_tasks  # noqa: F401

        self.user, self.source = f"user-{uuid4()}", f"source-{uuid4()}"
        self.client = redis.Redis.from_url(url)
        self.app = Celery("team", broker=url, backend=backend or url, set_as_current=False)
        install(self.app)

    def close(self) -> None:
        self.app.close()
        self.client.close()

    def _task(self, name: str) -> Any:
        return self.app.tasks[f"canvas.{name}"]

    def tracked(self, name: str, label: str, **more: Any) -> Any:
        """The signature of a task that has the option."""
        who = {"user_id": self.user, "source_id": self.source}
        make = self._task(name).s if name == "gather" else self._task(name).si
        return make(**who, label=label, **more)

    def untracked(self, name: str, label: str) -> Any:
        """The signature of a task that has not."""
        return self._task(name).si(source_id=self.source, label=label)

    def step(self, label: str) -> Any:
        return self.tracked("step", label)

    def plain(self, label: str) -> Any:
        return self.untracked("plain", label)

    def start(self, canvas: Signature, **more: Any) -> StartedRun:
        return start_ingest(canvas, user_id=self.user, source_id=self.source, **more)

    def events(self) -> list[dict[str, Any]]:
        rows: Any = self.client.xrange(keys.stream(self.user))
        return [json.loads(fields[b"e"]) for _, fields in rows]

    def kinds(self) -> list[str]:
        return [e["type"].removeprefix("source.ingest.") for e in self.events()]

    def ran(self) -> list[str]:
        """The labels of the bodies that ran, in order."""
        found: Any = self.client.lrange(f"ran:{self.source}", 0, -1)
        return [label.decode() for label in found]

    def wait_for(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, (self.kinds(), self.ran())
            time.sleep(0.02)

    def told(self) -> list[str]:
        """The types of events, progress left out, once the run has ended and workers are idle.

        There is one run, it ends once, and nothing follows the end; its bar never goes back.
        """
        self.wait_for(lambda: set(self.kinds()) & TERMINAL)
        self.settle()
        kinds, payloads = self.kinds(), [e["payload"] for e in self.events()]
        assert len({p["run_id"] for p in payloads}) == 1, kinds
        assert sum(kind in TERMINAL for kind in kinds) == 1 and kinds[-1] in TERMINAL, kinds
        percents = [p["percent"] for p in payloads]
        assert percents == sorted(percents)
        return [kind for kind in kinds if kind != "progress"]

    def bar(self) -> list[tuple[int, int]]:
        """The done and the total of what was shown."""
        shown = [e["payload"] for e in self.events() if e["type"].endswith("progress")]
        return [(p["done"], p["total"]) for p in shown]

    def settle(self) -> None:
        """Returns when the workers have nothing more to do, as several looks in a row say."""
        idle = 0
        while idle < 8:
            busy = self.client.llen("celery") or self.client.hlen("unacked")
            idle = 0 if busy else idle + 1
            time.sleep(0.02)

    @property
    def last(self) -> dict[str, Any]:
        payload: dict[str, Any] = self.events()[-1]["payload"]
        return payload
