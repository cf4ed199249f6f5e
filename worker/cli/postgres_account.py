"""Under whose account an embedded PostgreSQL runs: it refuses to run as root.

Root runs it as `nobody` where that account can reach both the data and the programs, else under
an ordinary uid in a user namespace of its own. No folder's mode is ever changed.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from shared.errors import EventStreamError
from worker.cli.children import Account, ChildFailed, spawn, wait

_ANSWER_SECONDS = 10


class NoAccountForPostgres(EventStreamError):
    """PostgreSQL does not run as root, and no other account can be used here.

    Run this as an ordinary user; or put the data folder and this installation below folders that
    every account may enter (mode o+x); or set DATABASE_URL to a PostgreSQL that runs.
    """


@dataclass(frozen=True, slots=True)
class PostgresAccount:
    """An account that can run PostgreSQL, and the major version that it found."""

    kind: Account
    major_version: str

    def own(self, path: Path) -> None:
        """Makes a file or a whole folder this account's, where it is not yet."""
        if os.geteuid() != 0:
            return
        uid, gid = 0, 0  # a namespace maps its uid to root
        if self.kind is Account.NOBODY:
            entry = pwd.getpwnam("nobody")
            uid, gid = entry.pw_uid, entry.pw_gid
        if path.stat().st_uid == uid:
            return
        for parent, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(Path(parent, name), uid, gid, follow_symlinks=False)
        os.chown(path, uid, gid)  # last: it says that all below is done


def choose_account(folder: Path, postgres: Path) -> PostgresAccount:
    """Returns an account that can reach the data folder and run the program `postgres`.

    Raises:
        NoAccountForPostgres: this is root, and neither way works.
        ChildFailed: the program does not run.
    """
    if os.geteuid() != 0:
        return PostgresAccount(Account.SELF, _major_version(Account.SELF, postgres))
    candidates = [Account.NAMESPACE] if sys.platform == "linux" else []
    if others_may_enter(folder) and others_may_enter(postgres):
        candidates.insert(0, Account.NOBODY)
    for kind in candidates:
        try:
            return PostgresAccount(kind, _major_version(kind, postgres))
        except ChildFailed:
            continue
    raise NoAccountForPostgres


def others_may_enter(path: Path) -> bool:
    """Whether every account may pass through a path and all folders above it."""
    real = path.resolve()
    return all(place.stat().st_mode & stat.S_IXOTH for place in (real, *real.parents))


def _major_version(kind: Account, postgres: Path) -> str:
    asked = spawn("postgres", [postgres, "--version"], account=kind, cwd=Path("/"))
    wait(asked, _ANSWER_SECONDS)
    answer = asked.last_lines()
    if match := re.search(r"\) (\d+)", answer):
        return match[1]
    raise ChildFailed(f"{postgres} --version answered {answer!r}.")
