"""The state machine of runs on a real Redis, driven by a model of Celery: any canvas, in any order,
with whatever is lost, doubled, late or dead. `RUN_MODEL_EXAMPLES` asks for more than the gate's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from shared import keys, runs
from shared.facts import Accepted, Flush, Report, Revoked
from shared.runs import MANY
from shared.settings import get_settings
from tests.run_messages import GRACE_MS, Execution, Message
from tests.run_truth import may_be_refused
from tests.run_watch import Watcher
from tests.run_world import (
    CANVASES,
    DELIVERIES,
    LEASE_MS,
    QUEUE_MS,
    World,
)

USER = "u"
MOST_LOOKS = 12
MOST_AFTER = 3  # deeds after a run's end
# Moves every moment that a run remembers into the past.
AGE = """
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  local value = redis.call('HGET', KEYS[1], field)
  local function older(ms) return string.format('%.0f', math.max(1, ms - ARGV[1])) end
  if string.sub(field, 1, 5) == 'task:' then
    redis.call('HSET', KEYS[1], field, (string.gsub(value, '%S+$', older)))
  elseif (string.find(field, '_ms$') or field == 'idle') and (tonumber(value) or 0) > 0 then
    redis.call('HSET', KEYS[1], field, older(value))
  end
end
"""
TIMES_MS = [300, 300, 6_000, 11_000, LEASE_MS + 1000, 70_000]
ENDS = ["success"] * 8 + ["retry"] * 5 + ["replace"] * 3
ENDS += ["failure", "retry later", "ignore", "reject", "requeue"]
BREAKS = ["child", "worker", "worker", "requeued", "hard limit", "hard limit, comes again"]
BREAKS += ["cold stop", "after the result"]
INTERFERENCES = ["cancel", "revoke", "supersede", "forget", "lose next", "lose next"]
DROPS = ["expired", "unknown", "internal", "gone"]
T = TypeVar("T")
Draw = Callable[[st.SearchStrategy[Any]], Any]


def one_of(draw: Draw, things: Sequence[T]) -> T:
    """Draws by name, which a failure then shows."""
    names = [str(thing) for thing in things]
    return things[names.index(draw(st.sampled_from(names)))]


class RunMachine(RuleBasedStateMachine):
    """Whatever happens: one terminal, the right one, and a state that agrees with its events."""

    client: redis.Redis

    @initialize(
        canvas=st.sampled_from(sorted(CANVASES)),
        late=st.booleans(),
        staged=st.booleans(),
        planned=st.booleans(),
        told_late=st.integers(0, 9).map(lambda n: n == 0),
        abandon=st.booleans(),
        mishaps=st.integers(0, 5),
    )
    def dispatch(
        self,
        canvas: str,
        late: bool,
        staged: bool,
        planned: bool,
        told_late: bool,
        abandon: bool,
        mishaps: int,
    ) -> None:
        self.client.flushdb()
        shape = CANVASES[canvas]
        final = shape.finals[0] if len(shape.finals) == 1 else MANY
        ref = runs.new_run(USER, "source", "name", final=final)
        self.world = World(ref, shape, late, {"parse": 3, "index": 1} if staged else {})
        self.abandon, self.mishaps, self.deeds_after = abandon, mishaps, 0
        self.key = keys.run(USER, ref.run_id)
        self.age_ms = self.client.register_script(AGE)
        self.watcher = Watcher(self.client, self.world)
        number = len(shape.first) + len(shape.then)
        plan = {"parse": (3, number), "index": (1, number)} if staged else {"work": (1, number)}
        accepted = [
            Accepted(task=task, finals=shape.finals, stages=plan if planned else {}, unit="files")
            for task in shape.first
        ]
        self.world.dispatch(accepted, told_late)
        self.watcher.check()

    # What may happen

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        deeds = [deed for deed, number in self.possible() for _ in range(number)]
        getattr(self, data.draw(st.sampled_from(deeds)))(data.draw)
        self.watcher.check()

    def possible(self) -> list[tuple[str, int]]:
        """What can be done now, and how often it is to be drawn."""
        if self.watcher.is_over:
            self.deeds_after += 1
            if self.deeds_after > MOST_AFTER:
                return [("rest", 1)]
        waiting, alive, world = bool(self.waiting()), bool(self.alive()), self.world
        hidden = any(message.hidden for message in world.messages)
        away = any(process.cut for process in world.link.processes)
        mishap = self.mishaps > 0
        return [
            ("start", 6 * waiting),
            ("report", 5 * alive),
            ("finish", 4 * alive),
            ("pass_time", 3),
            ("look", 3),
            ("ask_again", 1),
            ("deliver_again", 4 * hidden),
            ("reach_redis_again", 4 * away),
            ("break_down", 4 * alive * mishap),
            ("deliver_twice", 2 * alive * mishap * world.late),
            ("lose_redis", 2 * mishap),
            ("drop", waiting * mishap),
            ("pass_long_time", mishap),
            ("interfere", waiting * mishap * bool(self.watcher.status)),
        ]

    def waiting(self) -> list[Message]:
        return [message for message in self.world.messages if not message.hidden]

    def alive(self) -> list[Execution]:
        return [execution for execution in self.world.executions if execution.alive]

    def rest(self, draw: Draw) -> None:
        """Nothing more is worth trying."""

    def start(self, draw: Draw) -> None:
        self.take(one_of(draw, self.waiting()))

    def take(self, message: Message) -> None:
        assert self.world.start(message) or may_be_refused(self.world, message), message

    def report(self, draw: Draw) -> None:
        stage, done = draw(st.sampled_from(["parse", "index", "work"])), draw(st.integers(0, 4))
        parts, complete = draw(st.sampled_from([None, None, None, 2])), done == 4
        report = Report(stage, done, 4, "pages", parts, complete and parts is None)
        self.world.report(one_of(draw, self.alive()), report)

    def finish(self, draw: Draw) -> None:
        self.world.finish(one_of(draw, self.alive()), draw(st.sampled_from(ENDS)))

    def deliver_again(self, draw: Draw) -> None:
        for message in self.world.messages:
            message.hidden = False

    def reach_redis_again(self, draw: Draw) -> None:
        process = next(process for process in self.world.link.processes if process.cut)
        self.world.link.mend(process, reply_lost=draw(st.booleans()))

    def pass_time(self, draw: Draw) -> None:
        self.age(draw(st.sampled_from(TIMES_MS)))

    def age(self, ms: int) -> None:
        self.age_ms(keys=[self.key], args=[ms])
        self.world.advance(ms)

    def look(self, draw: Draw) -> None:
        match draw(st.sampled_from(["reaper", "reaper", "reaper", "reader", "flush"])):
            case "reaper":
                self.world.look()
            case "reader":
                runs.lapse(self.world.link.ref, "show")
            case "flush":
                self.world.link.apply(Flush())

    def ask_again(self, draw: Draw) -> None:
        """Somebody asks for the same once more, or for another run only where none is open."""
        ref = self.world.link.ref
        if not self.watcher.status:
            return
        assert runs.accept(ref, Accepted(repeat_state=True)).verdict == "duplicate"
        if not self.watcher.is_over:
            another = runs.new_run(USER, ref.source_id, "another", final="other")
            assert runs.accept(another, Accepted(exclusive=True)).verdict == "running"

    # What goes wrong

    def break_down(self, draw: Draw) -> None:
        self.mishaps -= 1
        self.world.break_down(one_of(draw, self.alive()), draw(st.sampled_from(BREAKS)))

    def deliver_twice(self, draw: Draw) -> None:
        self.mishaps -= 1
        copy = self.world.copy(one_of(draw, self.alive()))
        if draw(st.booleans()):
            self.take(copy)

    def lose_redis(self, draw: Draw) -> None:
        self.mishaps -= 1
        one_of(draw, self.world.link.processes).cut = True

    def drop(self, draw: Draw) -> None:
        self.mishaps -= 1
        self.world.drop(one_of(draw, self.waiting()), draw(st.sampled_from(DROPS)))

    def pass_long_time(self, draw: Draw) -> None:
        self.mishaps -= 1
        self.age(draw(st.sampled_from([GRACE_MS + 1000, QUEUE_MS + 1000])))

    def interfere(self, draw: Draw) -> None:
        self.mishaps -= 1
        ref = self.world.link.ref
        match draw(st.sampled_from(INTERFERENCES)):
            case "cancel":
                self.watcher.may_be_cancelled = True
                runs.end(ref)
            case "supersede":
                self.watcher.may_be_cancelled = True
                runs.accept(runs.new_run(USER, ref.source_id, "another", final="other"))
            case "forget":
                self.watcher.forget()
            case "revoke":
                self.watcher.may_be_cancelled = True
                self.world.link.apply(Revoked(task=self.waiting()[0].task, expired=False))
            case "lose next":
                self.world.loses_next = True

    # How it ends

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        for process in self.world.link.processes:
            self.world.link.mend(process, reply_lost=False)
        self.watcher.check()
        for number in range(MOST_LOOKS):
            if not self.watcher.status or self.watcher.is_over:
                return
            if self.abandon:
                self.abandon_all()
            else:
                self.do_all()
            self.age(QUEUE_MS + 1000 if self.abandon or number > MOST_LOOKS / 2 else 11_000)
            self.world.look()
            self.watcher.check()
        assert self.watcher.is_over, "a run stays open"

    def abandon_all(self) -> None:
        self.world.link.lost_facts = True
        self.world.messages.clear()
        for execution in self.alive():
            execution.alive = False

    def do_all(self) -> None:
        for message in self.world.messages:
            message.hidden = False
        for message in self.waiting():
            self.take(message)
            self.watcher.check()
        for execution in self.alive():
            self.world.finish(execution, "success")
            self.watcher.check()


def test_whatever_happens_a_run_ends_once_and_rightly(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("INGEST_MAX_DELIVERIES", str(DELIVERIES))
    monkeypatch.setenv("INGEST_LEASE_SECONDS", str(LEASE_MS // 1000))
    monkeypatch.setenv("INGEST_QUEUE_TIMEOUT_SECONDS", str(QUEUE_MS // 1000))
    get_settings.cache_clear()
    more = int(os.environ.get("RUN_MODEL_EXAMPLES", "0"))
    profile = settings(
        max_examples=more or 60,
        stateful_step_count=40,
        deadline=None,
        derandomize=not more,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    with redis.Redis.from_url(redis_url) as client:
        machine = type("BoundRunMachine", (RunMachine,), {"client": client})
        run_state_machine_as_test(machine, settings=profile)
