"""Many streams, a publisher that never stops, and everything that can happen to Redis meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import redis

from shared.outbox import outbox
from shared.publisher import publish_user_event
from tests.commands import wait_until
from tests.conftest import RunningRedis
from tests.followers import Deviation, Follower, deviation, following, journal
from tests.proxy import proxied
from tests.servers import WebServer, web_server
from tests.signing import SECRET

SIGNED_IN = {"AUTH_TYPE": "jwt", "JWT_SECRET_KEY": SECRET}
EVENTS_PER_SECOND = 500
FEW_PER_SECOND = 100  # so few that the journal keeps them all
ALL_KINDS = [*["cut"] * 3, "restart", *["cut"] * 4, "restart", *["cut"] * 3]


class Publisher:
    """Publishes to some users in turn, at a steady rate, on a thread of its own."""

    def __init__(
        self, users: Sequence[str], total: int | None = None, per_second: int = FEW_PER_SECOND
    ) -> None:
        self.published = 0
        self._users = users
        self._per_second = per_second
        self._total = total
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher")

    def _run(self) -> None:
        began = time.monotonic()
        while self.published != self._total:
            due = began + self.published / self._per_second
            if self._stopped.wait(max(0.0, due - time.monotonic())):
                return
            turn, user = divmod(self.published, len(self._users))
            publish_user_event(self._users[user], "test.event", {"n": turn})
            self.published += 1

    def wait_for(self, number: int) -> None:
        """Waits until so many more were published."""
        self.wait_until_published(self.published + number)

    def wait_until_published(self, number: int) -> None:
        """Waits until so many were published in all."""
        wait_until(lambda: self.published >= number, f"{number} events")

    def finish(self) -> None:
        """Waits for the last event, or stops if there is none, until all are delivered."""
        if self._total is None:
            self._stopped.set()
        self._thread.join()
        wait_until(lambda: outbox().flush() == 0, "an empty outbox")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Publishes for the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self._thread.join()


def names(number: int) -> list[str]:
    return [f"user {n}" for n in range(number)]


def journals(client: redis.Redis, users: Sequence[str]) -> dict[str, list[str]]:
    return {user: journal(client, user) for user in users}


def wait_for_all(followers: Sequence[Follower], expected: dict[str, list[str]]) -> None:
    """Waits until each follower is at its journal's end."""
    ends = {user: ids[-1] for user, ids in expected.items()}
    wait_until(lambda: all(f.cursor == ends[f.user] for f in followers), "everybody at the end")


def cut_subscriptions(client: redis.Redis) -> None:
    """Kills every connection that is subscribed, once there is one."""
    wait_until(lambda: client.client_kill_filter(_type="pubsub"), "a connection to cut")


def test_two_hundred_streams_get_everything_once_and_in_order_through_restarts_and_cuts(
    client: redis.Redis, redis_server: RunningRedis
) -> None:
    users, total = names(40), 12 * EVENTS_PER_SECOND
    with redis_server.syncing(), web_server("asgi", redis_server.url, **SIGNED_IN) as web:
        followers = [Follower(web.url, user) for user in users for _ in range(5)]
        publisher = Publisher(users, total, EVENTS_PER_SECOND)
        with following(followers):
            wait_until(lambda: all(follower.open for follower in followers), "200 streams")
            with publisher.running():
                for number, kind in enumerate(ALL_KINDS, 1):
                    publisher.wait_until_published(number * total // (len(ALL_KINDS) + 1))
                    if kind == "cut":
                        cut_subscriptions(client)
                    else:
                        redis_server.stop()
                        redis_server.start()
                publisher.finish()
            expected = journals(client, users)
            wait_for_all(followers, expected)
    received = sum(len(follower.ids) for follower in followers)
    found = deviation(followers, expected)
    print(f"\n{total} events to {len(followers)} streams: {received} received, {found}")
    assert [len(ids) for ids in expected.values()] == [total // 40] * 40
    assert found == Deviation()
    assert all(follower.numbers == list(range(total // 40)) for follower in followers)
    assert {follower.answers[200] for follower in followers} == {1}, "none was ended"


@contextmanager
def some_streams(
    server: RunningRedis, url: str | None = None, **settings: str
) -> Iterator[tuple[WebServer, list[Follower], Publisher]]:
    """Ten streams of two users that are open, and a publisher that runs."""
    users = names(2)
    with web_server("asgi", url or server.url, **SIGNED_IN, **settings) as web:
        followers = [Follower(web.url, user) for user in users for _ in range(5)]
        publisher = Publisher(users)
        with following(followers):
            wait_until(lambda: all(follower.open for follower in followers), "ten streams")
            with publisher.running():
                publisher.wait_for(50)
                yield web, followers, publisher


def assert_all_received(
    client: redis.Redis, followers: Sequence[Follower], publisher: Publisher
) -> None:
    publisher.finish()
    expected = journals(client, names(2))
    assert sum(map(len, expected.values())) == publisher.published
    wait_for_all(followers, expected)
    assert deviation(followers, expected) == Deviation()
    assert {follower.answers[200] for follower in followers} == {1}, "none was ended"


def test_a_redis_that_stands_still_for_a_while_costs_no_event(
    client: redis.Redis, redis_server: RunningRedis
) -> None:
    # So short a keepalive that its silence is noticed, and reads fail meanwhile.
    with some_streams(redis_server, SSE_KEEPALIVE_SECONDS="0.5") as (_, followers, publisher):
        os.kill(redis_server.pid, signal.SIGSTOP)
        try:
            publisher.wait_for(3 * FEW_PER_SECOND)
        finally:
            os.kill(redis_server.pid, signal.SIGCONT)
        publisher.wait_for(50)
        assert_all_received(client, followers, publisher)


def test_a_connection_to_redis_that_only_looks_open_is_given_up(
    client: redis.Redis, redis_server: RunningRedis
) -> None:
    with (
        proxied(redis_server.url) as (proxy, url),
        some_streams(redis_server, url, SSE_KEEPALIVE_SECONDS="60") as (_, followers, publisher),
    ):
        proxy.silent = True
        before = proxy.accepted
        wait_until(lambda: proxy.accepted > before, "another try to connect")
        proxy.silent = False
        assert_all_received(client, followers, publisher)


def test_a_failover_costs_no_event(client: redis.Redis, redis_server: RunningRedis) -> None:
    with (
        proxied(redis_server.url) as (proxy, url),
        some_streams(redis_server, url, SSE_KEEPALIVE_SECONDS="0.5") as (_, followers, publisher),
    ):
        before = proxy.accepted
        client.replicaof("127.0.0.1", "1")
        try:
            wait_until(lambda: proxy.accepted > before, "another try, maybe at the new master")
            wait_until(lambda: len(outbox()) > 2 * FEW_PER_SECOND, "events that wait")
        finally:
            client.replicaof("NO", "ONE")
        assert_all_received(client, followers, publisher)


def crash(server: RunningRedis) -> None:
    server.kill()
    server.start()


def empty(server: RunningRedis) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


@pytest.mark.parametrize("lose", [crash, empty])
def test_what_redis_loses_is_said_to_every_open_stream(
    client: redis.Redis, redis_server: RunningRedis, lose: Callable[[RunningRedis], None]
) -> None:
    with some_streams(redis_server, SSE_KEEPALIVE_SECONDS="0.5") as (_, followers, publisher):
        client.config_set("appendonly", "no")  # what comes now is in memory alone
        publisher.wait_for(50)
        publisher.finish()
        before = journals(client, names(2))
        wait_for_all(followers, before)
        lose(redis_server)
        again = Publisher(names(2), 100)
        with again.running():
            again.finish()
        retained = journals(client, names(2))
        wait_for_all(followers, retained)
        client.config_set("appendonly", "yes")
    for follower in followers:
        told = follower.ids.index("journal_reset")
        assert follower.ids[:told] == before[follower.user]
        assert follower.ids[told + 1 :] == retained[follower.user]
        assert len(follower.notices) == 1
