"""What a scenario works with: a user of its own, a client that watches, a queue to send to."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import redis
from celery import Celery

from tests.scenarios.app import MARKS, SIGNAL
from tests.scenarios.cases import Case, Seen
from tests.scenarios.client import Client
from tests.scenarios.meetings import Meetings

SOURCE = "source-1"
_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 40.0


class Bench:
    """One scenario's."""

    def __init__(
        self,
        case: Case,
        client: Client,
        app: Celery,
        queue: str,
        facts: redis.Redis,
        broker: redis.Redis,
        meetings: Meetings,
    ) -> None:
        self.case = case
        self.client = client
        self.app = app
        self.queue = queue
        self.broker = broker
        self._meetings = meetings
        self._facts = facts

    @property
    def user(self) -> str:
        return self.client.user

    @property
    def who(self) -> dict[str, str]:
        return {"user_id": self.user, "source_id": SOURCE}

    def task(self, name: str) -> Any:
        """A task of the scenario's acknowledgement."""
        return self.app.tasks[f"scenario.{name}" + (".late" if self.case.late else "")]

    def park(self, name: str, **arguments: Any) -> bytes:
        """A tracked task's message, which is in no queue; `deliver` takes it."""
        place = f"parked-{self.user}"
        self.send(name, {"queue": place}, **arguments)
        message = self.broker.lpop(place)
        assert isinstance(message, bytes)
        return message.replace(place.encode(), self.queue.encode())

    def deliver(self, message: bytes) -> None:
        """Puts a message into the scenario's queue, as the broker would."""
        self.broker.lpush(self.queue, message)

    def send(self, name: str, options: dict[str, Any] | None = None, **arguments: Any) -> Any:
        """Publishes a tracked task as a team's own code would."""
        kwargs = {**self.who, **arguments}
        return self.task(name).apply_async(
            kwargs=kwargs, **{"queue": self.queue, **(options or {})}
        )

    def send_canvas(self, canvas: Any) -> None:
        """Publishes a canvas to the scenario's queue."""
        canvas.apply_async(queue=self.queue)

    def see(self, *words: str) -> None:
        """Returns once the client saw these, in this order, whatever stands between them."""

        def saw(_: object) -> bool:
            rest = iter(self.client.words)
            return all(word in rest for word in words)

        assert self.client.wait_for(saw, _PATIENCE_SECONDS), f"not seen: {words}"

    def cancel(self) -> None:
        """Has the user cancel what runs of the source."""
        self.client.cancel(SOURCE)

    def strike(self) -> None:
        """Returns once the scenario's worker has ended."""
        self._meetings.strike(self.case)

    def outage(self) -> AbstractContextManager[None]:
        """The server that this scenario is without is away for the block."""
        return self._meetings.outage(self.case)

    def signal(self) -> None:
        """Lets the tasks go on that wait for it."""
        self._facts.set(SIGNAL + self.user, 1)

    @property
    def marks(self) -> list[str]:
        return self.marks_of(self.user)

    def marks_of(self, user: str) -> list[str]:
        found: Any = self._facts.lrange(MARKS + user, 0, -1)
        return [mark.decode() for mark in found]

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Returns once something holds that the client doesn't see."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"not in time: {what}"
            time.sleep(_POLL_SECONDS)

    def drop_connections(self) -> None:
        """Has the broker close every connection but this one."""
        self.broker.client_kill_filter(_type="normal", skipme=True)

    def close(self) -> None:
        self.client.join()
        self._facts.close()
        self.broker.close()

    def is_fetched(self) -> bool:
        """Whether a worker holds its message, and the broker knows it.

        Between the two, a worker that is killed takes the message with it.
        """
        held: Any = self.broker.hvals("unacked")
        return any(f"'user_id': '{self.user}'".encode() in message for message in held)

    def seen(self, trouble: str | None) -> Seen:
        return Seen(list(self.client.events), self.marks, trouble)
