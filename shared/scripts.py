"""The Lua steps: each file under `shared/lua` is one atomic step, documented at its top.

A line `-- include: name` in a file's head puts another file before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

from shared.connections import AnyRedis, ask, ask_each

INCLUDE = "-- include: "


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua step: its whole text and the SHA-1 that Redis knows it by."""

    text: str
    sha: str

    def run(self, client: AnyRedis, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Runs the step in one round trip; the very first time on a server takes two."""
        try:
            return ask(client, "EVALSHA", self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return client.eval(self.text, len(keys), *keys, *args)

    def run_each(
        self, client: AnyRedis, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]
    ) -> list[Any]:
        """Runs the step once for each of these keys and arguments; returns the replies.

        On a single server that is one round trip for all.
        """
        if not isinstance(client, Redis):
            return [self.run(client, keys, args) for keys, args in calls]
        runs = [("EVALSHA", self.sha, len(keys), *keys, *args) for keys, args in calls]
        return ask_each(client, [("SCRIPT", "LOAD", self.text), *runs])[1:]


@cache
def script(name: str) -> Script:
    """Returns the step in `shared/lua/<name>.lua`, with what it includes."""
    text = _read(name)
    included = [line[len(INCLUDE) :] for line in text.splitlines() if line.startswith(INCLUDE)]
    whole = "\n".join([_read(other) for other in included] + [text])
    return Script(whole, hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest())


def _read(name: str) -> str:
    return (files("shared") / "lua" / f"{name}.lua").read_text(encoding="utf-8")
