"""Answers on a Redis Cluster: each message's channel is on a shard of its own, not its user's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from shared import keys
from shared.connections import ClusterClient, cluster_client
from tests.answers import Writing, text_of
from tests.cluster import Cluster, redis_cluster
from tests.servers import web_server
from tests.sse import watch

MESSAGES = 12
SETTINGS = {
    "REDIS_CLUSTER": "true",
    "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
    "CELERY_RESULT_BACKEND": "redis://127.0.0.1:1/0",
    "SSE_MAX_CONCURRENT_PER_USER": "0",
    "SSE_KEEPALIVE_SECONDS": "60",  # so that what arrives was announced
}


class Announcing:
    """Publishes within the shard of a channel."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client

    def publish(self, channel: str, message: bytes) -> Any:
        return self._client.execute_command("SPUBLISH", channel, message)


@pytest.fixture(scope="module")
def cluster(server_folder: Path) -> Iterator[Cluster]:
    folder = server_folder / "answers-cluster"
    folder.mkdir()
    with redis_cluster(folder) as cluster:
        yield cluster


def test_answers_are_live_on_every_shard(cluster: Cluster, database_url: str) -> None:
    announcing = Announcing(cluster_client(cluster.url))
    answers = [Writing(database_url, announcing) for _ in range(MESSAGES)]
    names = [keys.message(answer.id) for answer in answers]
    client = cluster_client(cluster.url)
    homes = {client.get_node_from_key(name).name for name in names}  # type: ignore[no-untyped-call]
    assert len(homes) > 1
    with (
        web_server("asgi", cluster.url, database_url, **SETTINGS) as server,
        ExitStack() as streams,
    ):
        for answer in answers:
            answer.begin()
            answer.say("a")
        readers = [streams.enter_context(watch(server.url, path=a.path)) for a in answers]
        for reader in readers:
            assert text_of(reader.events(1)) == "a"
        for answer in answers:
            answer.say("b")
            answer.end()
        for reader in readers:
            blocks = reader.rest()
            assert [b.event["type"] for b in blocks if b.event] == ["answer", "end"]
            assert ": polling" not in [block.raw for block in blocks]
