"""The soak's Redis, beat, and workers that are killed and started again."""

from __future__ import annotations

import os
import random
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import redis

from benchmarks import soak_broker
from worker.cli.children import Child, ChildFailed, spawn, stop
from worker.cli.embedded import wait_until_answering
from worker.cli.redis_server import RedisServer

WORKERS = 2
PROCESSES = 2
STOP_SECONDS = 10.0


@contextmanager
def temporary_redis(folder: Path) -> Iterator[str]:
    server = RedisServer(folder, secrets.token_hex(16), durable=False)
    server.launch()
    try:
        wait_until_answering(server)
        yield server.url
    finally:
        stop([server.child], STOP_SECONDS)


class Crew:
    """The workers, of which one is killed every now and then, and beat."""

    def __init__(
        self, client: redis.Redis, env: Mapping[str, str], log: Path, dice: random.Random
    ) -> None:
        self._client, self._env, self._dice = client, env, dice
        self._log = log.open("a")
        self._workers = [self._worker(n) for n in range(WORKERS)]
        self._beat = self._start("beat", "beat", "--schedule", str(log.with_name("beat")))
        self.killed: Counter[str] = Counter()
        self._maimed: set[int] = set()  # lost a child since they started

    def _start(self, name: str, *arguments: str) -> Child:
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.soak_app", *arguments]
        env = {**self._env, soak_broker.WORKER: name}
        return spawn(name, [*command, "--loglevel", "WARNING"], env=env, sink=self._write)

    def _write(self, name: str, line: str) -> None:
        if not self._log.closed:
            self._log.write(f"{time.time():.3f} {name} {line}\n")

    def _worker(self, number: int) -> Child:
        name = f"worker{number}"
        options = ["--concurrency", str(PROCESSES), "-n", f"{name}@soak"]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        return self._start(name, "worker", *options, *quiet)

    def kill_one(self) -> None:
        """Kills a main process or a child; a main process is started again."""
        number = self._dice.randrange(WORKERS)
        worker = self._workers[number]
        children = psutil.Process(worker.pid).children() if worker.running else []
        if children and self._dice.random() < 0.5:
            self._maimed.add(number)
            self._kill("children", self._dice.choice(children).pid)
            return
        self._kill("mains", worker.pid)
        worker.kill()
        self._restart(number)

    def _restart(self, number: int) -> None:
        self._maimed.discard(number)
        soak_broker.give_back(self._client, f"worker{number}")
        self._workers[number] = self._worker(number)

    def _kill(self, what: str, pid: int) -> None:
        self._write("soak", f"kills {pid} of the {what}")
        self.killed[what] += 1
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            self.killed[what] -= 1

    def tend(self) -> None:
        """Starts a worker again that gave up since a child was killed while it started.

        Raises:
            ChildFailed: something ended for which nobody here is to blame.
        """
        for number, worker in enumerate(self._workers):
            if not worker.running and number in self._maimed:
                self._restart(number)
        for child in (*self._workers, self._beat):
            if not child.running:
                raise ChildFailed(child.ended())

    def stop(self) -> None:
        stop([*self._workers, self._beat], STOP_SECONDS)
        self._log.close()
