"""Where a topic's Redis is: on a cluster, the shard that holds its user's keys.

One link to each primary. redis-py knows which node holds what; it is asked again whenever a link
is lost, a node says that something moved, or a subscription is ended by the server.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import redis
from redis.asyncio.connection import AbstractConnection

from shared.connections import ClusterClient, cluster_client, connect_link
from shared.errors import RedisUnavailable
from web.link import ANSWER_SECONDS, Link
from web.servers import Listener

log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 0.25


class Shards:
    """The links to a cluster's primaries, and the subscriptions on them."""

    def __init__(self, url: str, listener: Listener) -> None:
        self._url = url
        self._listener = listener
        self._client: ClusterClient | None = None
        self._links: dict[str, Link] = {}
        self._homes: dict[str, str | None] = {}  # the node of each topic, as far as it is known
        self._doubt = asyncio.Event()
        self._doubt.set()
        self._known = asyncio.Event()
        self._task = asyncio.ensure_future(self._keep_up())

    async def ready(self) -> None:
        """Returns once the shards are known.

        Raises:
            RedisUnavailable: no node of the cluster answers.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._known.wait()
        except TimeoutError as error:
            raise RedisUnavailable from error

    def link(self, topic: str) -> Link:
        """The link to the shard that holds a topic's keys.

        Raises:
            RedisUnavailable: no shard does, just now.
        """
        name = self._homes[topic] if topic in self._homes else self._home(topic)
        if name is None:
            self._doubt.set()
            raise RedisUnavailable
        return self._link_to(name)

    def subscribe(self, topic: str) -> None:
        """Subscribes, now and whenever the link was lost or the topic moved."""
        self._homes[topic] = name = self._home(topic)
        if name is not None:
            self._link_to(name).push("SSUBSCRIBE", topic)

    def unsubscribe(self, topic: str) -> None:
        """Ends a subscription."""
        name = self._homes.pop(topic)
        if name is not None:
            self._link_to(name).push("SUNSUBSCRIBE", topic)

    async def aclose(self) -> None:
        """Ends the links."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*[link.aclose() for link in self._links.values()])

    def _home(self, topic: str) -> str | None:
        if self._client is None:
            return None
        try:
            return str(self._client.get_node_from_key(topic).name)  # type: ignore[no-untyped-call]
        except redis.exceptions.RedisClusterException:
            return None  # nobody covers its slot

    def _link_to(self, name: str) -> Link:
        if name not in self._links:
            self._links[name] = Link(
                partial(self._connect, name),
                on_push=self._listener.take_announcement,
                on_pause=self._listener.flush,
                on_up=partial(self._subscribe_all, name),
                on_down=partial(self._lose, name),
                on_moved=partial(self._moved, name),
            )
        return self._links[name]

    async def _connect(self, name: str) -> AbstractConnection:
        host, _, port = name.rpartition(":")
        try:
            return await connect_link(self._url, host=host, port=int(port))
        except (redis.RedisError, OSError):
            self._doubt.set()
            raise

    def _topics_at(self, name: str) -> list[str]:
        return [topic for topic, home in self._homes.items() if home == name]

    def _subscribe_all(self, name: str) -> None:
        for topic in self._topics_at(name):  # one each: they are of different slots
            self._links[name].push("SSUBSCRIBE", topic)

    def _lose(self, name: str) -> None:
        self._doubt.set()
        self._listener.lose(self._topics_at(name))

    def _moved(self, name: str, channel: bytes | None) -> None:
        if channel is None:
            self._doubt.set()
        elif self._homes.get(channel.decode()) == name:  # not asked for by us
            self._homes[channel.decode()] = None
            self._doubt.set()
            self._listener.lose([channel.decode()])

    async def _keep_up(self) -> None:
        """Asks for the shards whenever there is doubt, and moves subscriptions after them."""
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            try:
                self._client = await asyncio.to_thread(self._ask)
            except (redis.RedisError, redis.exceptions.RedisClusterException, OSError) as error:
                log.warning("the shards of the Redis Cluster are not known (%s)", error)
                self._doubt.set()
            except Exception:  # the task's edge
                log.exception("the shards of the Redis Cluster can't be looked up")
                self._doubt.set()
            else:
                self._relocate(self._client)
                self._known.set()
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    def _ask(self) -> ClusterClient:
        if self._client is None:
            return cluster_client(self._url)
        self._client.nodes_manager.initialize()
        return self._client

    def _relocate(self, client: ClusterClient) -> None:
        moved = []
        for topic, before in list(self._homes.items()):
            self._homes[topic] = now = self._home(topic)
            if now == before:
                continue
            moved.append(topic)
            if before is not None:
                self._link_to(before).push("SUNSUBSCRIBE", topic)
            if now is not None:
                self._link_to(now).push("SSUBSCRIBE", topic)
        self._listener.lose(moved)
        primaries = {node.name for node in client.get_primaries()}  # type: ignore[no-untyped-call]
        for name in self._links.keys() - primaries:
            self._links.pop(name).close()
