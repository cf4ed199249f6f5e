"""The channel on a Redis Cluster: each user on a shard; shards that end, and slots that move."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from celery import Celery
from click.testing import CliRunner

from shared import keys
from shared.connections import app_redis
from shared.encoding import to_json
from shared.errors import RedisUnavailable
from shared.event_counts import event_counts
from shared.outbox import outbox
from shared.pages import Page
from shared.publisher import NewEvent, publish_user_event, publish_user_events
from shared.run_states import run_status
from shared.runs import accept, new_run
from shared.settings import get_settings
from tests.cluster import Cluster, Node, redis_cluster
from tests.commands import wait_until
from tests.servers import WebServer, web_server
from tests.signing import SECRET, bearer
from tests.sse import Reader, watch
from web.delivery import Delivery
from web.hub import Hub
from web.link import Link
from web.topic import Topic
from web.user_journal import UserJournal
from worker.cli.following import follow_journal
from worker.cli.main import main
from worker.reaper import Reaper

# Celery has no transport for a cluster, and its servers are not used here.
SETTINGS = {
    "REDIS_CLUSTER": "true",
    "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
    "CELERY_RESULT_BACKEND": "redis://127.0.0.1:1/0",
}
USERS = [f"user-{number}" for number in range(9)]


@pytest.fixture(scope="module")
def shards(server_folder: Path) -> Iterator[Cluster]:
    folder = server_folder / "cluster"
    folder.mkdir()
    with redis_cluster(folder) as cluster:
        yield cluster


@pytest.fixture
def cluster(shards: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("REDIS_URL", shards.url)
    monkeypatch.setenv("REDIS_CLUSTER", "true")
    get_settings.cache_clear()
    for node in shards.nodes:
        node.client.flushall()
    return shards


@pytest.fixture
def server(cluster: Cluster) -> Iterator[WebServer]:
    settings = {**SETTINGS, "AUTH_TYPE": "jwt", "JWT_SECRET_KEY": SECRET}
    with web_server("asgi", cluster.url, SSE_KEEPALIVE_SECONDS="0.5", **settings) as server:
        yield server


def open_all(streams: ExitStack, server: WebServer) -> dict[str, Reader]:
    return {user: streams.enter_context(watch(server.url, "0", **bearer(user))) for user in USERS}


def publish(user: str, *numbers: int) -> None:
    for n in numbers:
        publish_user_event(user, "test.event", {"n": n})
    wait_until(lambda: outbox().flush() == 0, "delivered")


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["payload"]["n"] for event in events]


def test_every_user_is_served_from_their_shard(cluster: Cluster, server: WebServer) -> None:
    assert len({cluster.home(user).port for user in USERS}) == 3
    for user in USERS:
        publish(user, 0, 1)
    with ExitStack() as streams:
        readers = open_all(streams, server)
        for user in USERS:
            publish(user, 2)
            publish_user_events(user, [NewEvent("test.event", {"n": n}) for n in (3, 4)])
        for reader in readers.values():
            assert numbers(reader.events(5)) == [0, 1, 2, 3, 4]
        client = app_redis()
        assert all(client.zcard(keys.connections(user)) == 1 for user in USERS)
    wait_until(lambda: not any(client.exists(keys.connections(u)) for u in USERS), "given back")


def test_an_operator_sees_the_users_and_the_runs_of_all_shards(
    cluster: Cluster, server: WebServer
) -> None:
    def look(what: str) -> dict[str, Any]:
        headers = bearer("olga", operator=True)
        url = f"{server.url}/api/operator/{what}"
        answer = httpx.get(url, headers=headers, timeout=10, trust_env=False)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    for user in USERS:
        publish(user, 0)
        accept(new_run(user, f"source of {user}", "a.pdf", final=f"task of {user}"))
    with ExitStack() as streams:
        readers = open_all(streams, server)
        for user in USERS:
            readers[user].events(1)
        wait_until(lambda: {w["user_id"] for w in look("streams")["watching"]} == set(USERS), "all")
    wait_until(lambda: look("streams")["users"] == 0, "all are gone")
    wait_until(lambda: {r["user_id"] for r in look("runs")["runs"]} == set(USERS), "all runs")
    event_counts().flush()
    wait_until(lambda: len(look("events")["types"]) == 2, "counted")
    assert [each["last_minute"] for each in look("events")["types"]] == [len(USERS)] * 2


def test_the_commands_find_a_users_shard(cluster: Cluster) -> None:
    for user in USERS:
        done = CliRunner().invoke(main, ["publish", user, "test.event", '{"n": 7}'])
        assert done.exit_code == 0, done.output
        line = next(follow_journal(cluster.url, user, "0-0"))
        assert json.loads(line)["payload"] == {"n": 7}


def test_a_run_is_accepted_on_its_users_shard(cluster: Cluster) -> None:
    for user in USERS:
        run = new_run(user, "source", "a source", final="task")
        assert accept(run).verdict == "ok"
        rows: Any = app_redis().xrange(keys.stream(user))
        assert b"source.ingest.queued" in rows[0][1][b"e"]


def test_the_reaper_looks_at_the_runs_of_every_shard(cluster: Cluster) -> None:
    runs = [new_run(user, "source", "a source", final=f"task-{user}") for user in USERS]
    for run in runs:
        accept(run)
        key, field = keys.run(run.user_id, run.run_id), f"task:{run.final}"
        words: Any = app_redis().hget(key, field)
        app_redis().hset(key, field, b" ".join([*words.split()[:-1], b"1"]))
        shard = keys.open_runs(run.run_id)
        app_redis().zadd(shard, {to_json(run.to_header()): 1})
    Reaper(Celery(backend="disabled://", set_as_current=False)).reap()
    assert {run_status(run.user_id, run.run_id) for run in runs} == {"failed"}


def test_streams_outlive_a_shard_that_is_killed_and_comes_back(
    cluster: Cluster, server: WebServer
) -> None:
    with ExitStack() as streams:
        readers = open_all(streams, server)
        for user in USERS:
            publish(user, 0)
        assert all(numbers(reader.events(1)) == [0] for reader in readers.values())
        node = cluster.home(USERS[0])
        node.child.kill()
        elsewhere = [user for user in USERS if cluster_home_is_not(cluster, user, node.port)]
        for user in elsewhere:
            publish_user_event(user, "test.event", {"n": 1})
        node.start_again()
        for user in USERS:
            publish(user, 2)
        for user, reader in readers.items():
            expected = [1, 2] if user in elsewhere else [2]
            assert numbers(reader.events(len(expected))) == expected


def cluster_home_is_not(cluster: Cluster, user: str, port: int) -> bool:
    client: Any = app_redis()
    return bool(client.get_node_from_key(keys.topic(user)).port != port)


def test_streams_follow_a_slot_that_moves(cluster: Cluster, server: WebServer) -> None:
    with ExitStack() as streams:
        readers = open_all(streams, server)
        for user in USERS:
            publish(user, 0)
        assert all(numbers(reader.events(1)) == [0] for reader in readers.values())
        moving = USERS[0]
        source = cluster.home(moving)
        target = next(node for node in cluster.nodes if node.port != source.port)
        cluster.move(moving, target)
        assert cluster.home(moving).port == target.port
        for user in USERS:
            publish(user, 1, 2)
        for reader in readers.values():
            assert numbers(reader.events(2)) == [1, 2]


def neighbours(cluster: Cluster) -> tuple[str, str, Node, Node]:
    """Two users of one node, that node, and another one."""
    at: dict[int, list[str]] = {}
    for user in USERS:
        at.setdefault(cluster.home(user).port, []).append(user)
    moving, other = max(at.values(), key=len)[:2]
    source = cluster.home(moving)
    return moving, other, source, next(node for node in cluster.nodes if node.port != source.port)


def test_a_slot_that_is_half_moved_stops_none_of_the_shards_other_streams(
    cluster: Cluster, server: WebServer
) -> None:
    moving, other, source, target = neighbours(cluster)
    with ExitStack() as streams:
        readers = open_all(streams, server)
        for user in (moving, other):
            publish(user, 0)
            assert numbers(readers[user].events(1)) == [0]
        wait_until(lambda: len(source.subscribers()) == 1, "the server's link, alone")
        listening, refused = source.subscribers(), source.refusals("TRYAGAIN")
        move = cluster.begin_move(moving, target)
        wait_until(lambda: source.refusals("TRYAGAIN") > refused, "a lease can't be renewed")
        publish(moving, 1)
        for n in (1, 2, 3):
            publish(other, n)
            assert numbers(readers[other].events(1)) == [n]
        with watch(server.url, "0", **bearer(moving)) as late:
            assert late.response.status_code == 503, "never a part of what there is"
        assert source.subscribers() == listening
        move.finish()
        publish(moving, 2)
        assert numbers(readers[moving].events(2)) == [1, 2]
        publish(other, 4)
        assert numbers(readers[other].events(1)) == [4]
        assert source.subscribers() == listening


async def another_link(hub: Hub, user: str, link: Link) -> Link:
    """The link to a user's new home, once it is known."""
    home = link
    async with asyncio.timeout(30):
        while home is link:
            await asyncio.sleep(0.01)
            with suppress(RedisUnavailable):  # just now there is none
                home = hub.link(keys.topic(user))
    return home


async def until_listening(node: Node) -> None:
    await asyncio.to_thread(wait_until, lambda: len(node.subscribers()) == 1, "one link alone")


def test_a_slot_that_moves_is_followed_where_nobody_asks_for_anything(cluster: Cluster) -> None:
    moving, _, source, target = neighbours(cluster)

    async def check() -> None:
        delivery = Delivery(get_settings())
        hub = delivery.hub
        await hub.ready()
        hub.enter(UserJournal(hub, moving))
        await until_listening(source)
        link = hub.link(keys.topic(moving))
        cluster.move(moving, target)
        await another_link(hub, moving, link)
        await until_listening(target)
        await delivery.aclose()

    asyncio.run(check())


def test_a_command_that_finds_its_slot_moved_costs_the_shards_other_users_nothing(
    cluster: Cluster,
) -> None:
    moving, other, source, target = neighbours(cluster)
    for user in (moving, other):
        publish(user, 0)

    async def read(hub: Hub, user: str) -> Page:
        journal = UserJournal(hub, user)
        return await journal.read_after("0-0", 10, Topic(journal))

    async def check() -> None:
        delivery = Delivery(get_settings())
        hub = delivery.hub
        await hub.ready()
        for user in (moving, other):
            hub.enter(UserJournal(hub, user))
        link = hub.link(keys.topic(moving))
        assert (await read(hub, moving)).number == 1
        await until_listening(source)
        listening, refused = source.subscribers(), source.refusals("MOVED")
        cluster.move(moving, target)
        with pytest.raises(RedisUnavailable):
            await read(hub, moving)
        assert source.refusals("MOVED") > refused
        assert (await read(hub, other)).number == 1
        assert source.subscribers() == listening
        await another_link(hub, moving, link)
        assert (await read(hub, moving)).number == 1
        assert source.subscribers() == listening
        await delivery.aclose()

    asyncio.run(check())


def test_a_cluster_that_is_away_is_never_an_empty_success() -> None:
    with (
        web_server("asgi", "redis://127.0.0.1:1/0", **SETTINGS) as server,
        watch(server.url) as reader,
    ):
        reader.response.read()
        assert reader.response.status_code == 503
        assert reader.response.headers["retry-after"] == "2"


def test_nothing_is_published_twice_where_a_reply_is_lost(cluster: Cluster) -> None:
    assert isinstance(app_redis(), redis.RedisCluster)
    home = cluster.home(USERS[0])
    for n in range(20):
        publish_user_event(USERS[0], "test.event", {"n": n})
        if n % 5 == 0:
            home.client.client_kill_filter(_type="normal", skipme=True)
    wait_until(lambda: outbox().flush() == 0, "delivered")
    rows: Any = app_redis().xrange(keys.stream(USERS[0]))
    assert len(rows) == 20
