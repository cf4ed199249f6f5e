"""What must be true of a run after every step, by its events and by its state in Redis."""

from __future__ import annotations

import json
from typing import Any

import redis

from shared import keys
from shared.runs import TERMINAL
from tests.run_truth import may_fail, works_undoubted
from tests.run_world import World

MILLION = 1_000_000  # a share of a stage is counted in millionths
STATUS = {"started": "running", "progress": "running"}  # by the events that mean another one


class Watcher:
    """Reads what is new and checks it. `status` is what a client makes of the events so far."""

    def __init__(self, client: redis.Redis, world: World) -> None:
        self._client, self._world = client, world
        ref = world.link.ref
        self._run, self._stream = keys.run(ref.user_id, ref.run_id), keys.stream(ref.user_id)
        self._last_id = "-"
        self._last: dict[str, Any] | None = None  # the newest event's payload
        self.status = ""
        self.may_be_cancelled = False

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.status in TERMINAL

    def forget(self) -> None:
        """Redis loses the run: from here on it is as good as new."""
        self._client.delete(self._run)
        self._world.link.forget()
        self._world.link.lost_facts = True
        self._last, self.status = None, ""

    def check(self) -> None:
        """Raises AssertionError where something is not as it must be."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hgetall(self._run)
        pipeline.xrange(self._stream, self._last_id, "+")
        pairs, rows = pipeline.execute()
        for row_id, row in rows:
            self._last_id = f"({row_id.decode()}"
            event = json.loads(row[b"e"])
            if event["payload"]["run_id"] == self._world.link.ref.run_id:
                self._check_event(event["type"].removeprefix("source.ingest."), event["payload"])
        state = {name.decode(): value.decode() for name, value in pairs.items()}
        assert state.get("status", "") == self.status
        if self.is_over:
            assert not [name for name in state if ":" in name], "more than a list shows"
        elif state:
            check_counters(state)
            check_shares(state)

    def _check_event(self, kind: str, payload: dict[str, Any]) -> None:
        status, last = STATUS.get(kind, kind), self._last
        if payload.get("repeated"):
            assert last is not None and status == self.status
            assert payload["percent"] >= last["percent"]
            return
        assert not self.is_over, f"{kind} after {self.status}"
        assert (kind == "queued") == (last is None)
        if last is not None:
            assert payload["attempt"] >= last["attempt"]
            assert payload["percent"] >= last["percent"] or payload["attempt"] > last["attempt"]
        self._check_truth(kind, payload)
        self._last, self.status = payload, status

    def _check_truth(self, kind: str, payload: dict[str, Any]) -> None:
        world = self._world
        match kind:
            case "completed":
                assert world.link.told.intersection(world.canvas.finals) <= world.succeeded
            case "failed":
                assert may_fail(world), payload["error"]
            case "cancelled":
                assert self.may_be_cancelled
            case "stalled":
                assert not works_undoubted(world)


def check_counters(state: dict[str, str]) -> None:
    """What a run has counted is what its tasks' records say."""
    tasks = [value.split() for name, value in state.items() if name.startswith("task:")]
    is_open = [task for task in tasks if task[3] == "open"]
    alive = [t for t in is_open if t[2] == "2" and t[4] != "-" and t[-2] == "-"]
    finals = [name for name in state if name.startswith("final:")]
    assert int(state.get("open", 0)) == len(is_open)
    assert int(state.get("alive", 0)) == len(alive)
    assert int(state.get("finals", 0)) == len(finals)
    assert (int(state.get("idle", 0)) > 0) == (not is_open)


def check_shares(state: dict[str, str]) -> None:
    """What a stage has counted is what its tasks have done, each once."""
    for stage in (name.removeprefix("sum:") for name in state if name.startswith("sum:")):
        shares = [
            int(share)
            for name, share in state.items()
            if name.startswith("part:") and name.endswith(f":{stage}")
        ]
        assert int(state[f"sum:{stage}"]) == sum(shares)
        assert int(state.get(f"finished:{stage}", 0)) == shares.count(MILLION)
