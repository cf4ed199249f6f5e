"""A Redis Cluster of three primaries for tests, on loopback. It needs a redis-server of 7 or newer,
which no wheel brings: Debian's package has it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from shared import keys
from tests.commands import wait_until
from tests.servers import free_port
from worker.cli.children import Child, spawn, stop

SLOTS = 16_384
NODES = 3
VARIABLE = "EVENTSTREAM_REDIS_SERVER_7"


def program() -> str:
    """The redis-server to run; without one the test is skipped, on CI it fails."""
    named = os.environ.get(VARIABLE)
    # Not the first on PATH alone: a wheel may have put an older one before Debian's.
    found = [named] if named else [f"{place}/redis-server" for place in os.get_exec_path()]
    for path in filter(os.path.isfile, found):
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        version = re.search(r"v=(\d+)", said.stdout)
        if version is not None and int(version[1]) >= 7:
            return path
    message = f"No redis-server 7 here: install redis-server, or name one in {VARIABLE}."
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@dataclass
class Node:
    """One primary."""

    port: int
    command: list[str]
    child: Child

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, decode_responses=True)

    def ask(self, *command: object) -> Any:
        return self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    @property
    def node_id(self) -> str:
        return str(self.ask("CLUSTER MYID"))

    def subscribers(self) -> set[str]:
        """The ids of the connections that listen to a channel of this node."""
        return {each["id"] for each in self.client.client_list("pubsub")}

    def refusals(self, kind: str) -> int:
        """How often it has refused a command so."""
        errors: Any = self.client.info("errorstats")
        return int(errors.get(f"errorstat_{kind}", {"count": 0})["count"])

    def start_again(self) -> None:
        self.child = spawn(f"redis-{self.port}", self.command)
        wait_until(lambda: answers(self), "the node answers")


class Cluster:
    """Three primaries, each with a third of the slots."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        share = SLOTS // NODES + 1
        for number, node in enumerate(nodes):
            node.ask("CLUSTER ADDSLOTSRANGE", number * share, min(SLOTS, (number + 1) * share) - 1)
            node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER MEET", "127.0.0.1", nodes[0].port)
        wait_until(lambda: all(map(is_whole, nodes)), "the cluster is whole")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.nodes[0].port}/0"

    def home(self, user_id: str) -> Node:
        """The node that holds a user's keys."""
        port = redis.RedisCluster.from_url(self.url).get_node_from_key(keys.topic(user_id)).port  # type: ignore[no-untyped-call]
        return next(node for node in self.nodes if node.port == port)

    def move(self, user_id: str, target: Node) -> None:
        """Moves the slot of a user, with all its keys, as an operator's resharding does."""
        self.begin_move(user_id, target).finish()

    def begin_move(self, user_id: str, target: Node) -> Move:
        """Moves half of a user's slot: their journal, while their other keys stay."""
        move = Move(self, self.home(user_id), target, key_slot(keys.topic(user_id).encode()))
        target.ask("CLUSTER SETSLOT", move.slot, "IMPORTING", move.source.node_id)
        move.source.ask("CLUSTER SETSLOT", move.slot, "MIGRATING", target.node_id)
        move.carry(keys.stream(user_id))
        return move


@dataclass
class Move:
    """A slot on its way from one primary to another."""

    cluster: Cluster
    source: Node
    target: Node
    slot: int

    def carry(self, *names: str) -> None:
        """Carries some keys over."""
        self.source.ask("MIGRATE", "127.0.0.1", self.target.port, "", 0, 5000, "KEYS", *names)

    def finish(self) -> None:
        """Carries the rest, and tells every node whose the slot is."""
        while names := list(self.source.ask("CLUSTER GETKEYSINSLOT", self.slot, 100)):
            self.carry(*names)
        for node in (self.target, self.source, *self.cluster.nodes):
            node.ask("CLUSTER SETSLOT", self.slot, "NODE", self.target.node_id)


def answers(node: Node) -> bool:
    try:
        return bool(node.client.ping())
    except redis.RedisError:
        return False


def is_whole(node: Node) -> bool:
    """Whether the node knows the others, and that all slots are theirs."""
    is_ok = node.ask("CLUSTER INFO")["cluster_state"] == "ok"
    return is_ok and len(node.ask("CLUSTER NODES")) == NODES


@contextmanager
def redis_cluster(folder: Path) -> Iterator[Cluster]:
    """Runs a cluster with its data in a folder."""
    found = program()
    nodes: list[Node] = []
    try:
        for _ in range(NODES):
            port = low_port()
            data = folder / f"node-{port}"
            data.mkdir()
            command = [
                *(found, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(data)),
                *("--cluster-enabled", "yes", "--cluster-node-timeout", "2000"),
                *("--cluster-require-full-coverage", "no"),
                *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            ]
            nodes.append(Node(port, command, spawn(f"redis-{port}", command)))
        wait_until(lambda: all(map(answers, nodes)), "the nodes answer")
        yield Cluster(nodes)
    finally:
        stop([node.child for node in nodes], 5)


def low_port() -> int:
    """A free port with room above it: the cluster's own bus takes that plus 10,000."""
    while (port := free_port()) >= 55_000:
        continue
    return port
