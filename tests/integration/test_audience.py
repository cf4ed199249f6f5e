"""Whose streams an operator sees where many have some open."""

from __future__ import annotations

from typing import Any

import redis

from shared import keys
from tests.commands import wait_until
from web.audience import AT_ONCE, Audiences

FUTURE_MS = 4_000_000_000_000


def watch(client: redis.Redis, user: str, *processes: str, lags: bool = False) -> None:
    """Has an open stream of this user's in each of these processes."""
    for process in processes:
        client.zadd(keys.watchers(keys.shard_of(user)), {f"{process} {user}": FUTURE_MS})
        client.zadd(keys.connections(user), {process: FUTURE_MS})
        about = '{"since": "2026-01-01T00:00:00Z", "address": "", "user_agent": ""}'
        at = f"1718900000001-0 {int(lags)}"
        client.hset(keys.connection_details(user), mapping={process: about, f"{process}.at": at})


def test_where_all_are_looked_at_their_number_is_exact(client: redis.Redis) -> None:
    for number in range(30):
        watch(client, f"user-{number}", "one", "two")
    client.zadd(keys.watchers(0), {"one somebody who has left": FUTURE_MS})
    found = Audiences().read()
    assert (found.users, found.more, len(found.watching)) == (30, False, 30)


def test_who_lags_is_found_among_many_and_is_looked_at_from_then_on(client: redis.Redis) -> None:
    for number in range(400):
        watch(client, f"user-{number}", "one")
    watch(client, "zoe", "one", lags=True)
    audiences = Audiences()
    wait_until(lambda: audiences.read().watching[0].user_id == "zoe", "found by chance")
    seen = set()
    for _ in range(10):
        found = audiences.read()
        assert (found.users, found.more, len(found.watching)) == (401, True, 200)
        assert found.watching[0].user_id == "zoe"
        seen |= {each.user_id for each in found.watching}
    assert len(seen) > 250, "the others are others each time"


def test_of_an_index_that_is_not_read_whole_the_number_is_an_estimate(client: redis.Redis) -> None:
    for number in range(16 * 400):
        user = f"user-{number}"
        client.zadd(keys.watchers(keys.shard_of(user)), {f"one {user}": FUTURE_MS})
    found = Audiences().read()
    assert found.users == 16 * 400 - 200
    assert found.more


def test_redis_serves_others_between_the_users(client: redis.Redis) -> None:
    for number in range(3 * AT_ONCE):
        watch(client, f"user-{number}", "one", lags=True)
    client.config_resetstat()
    Audiences().read()
    stats: Any = client.info("commandstats")
    loads = [each["calls"] for name, each in stats.items() if name.startswith("cmdstat_script")]
    assert loads == [3], "one for each round trip"
    assert "cmdstat_xrange" not in stats, "no entries are read"
