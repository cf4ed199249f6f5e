"""What removing a day of the message journal costs: by dropping its table, and by DELETE."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import psycopg

from shared.message_days import session, today
from shared.message_pruning import prune

EVENTS_OF_AN_ANSWER = 2000
AGE_DAYS = 40
SHARE = 100  # of the smaller day: so many times fewer rows


class Watch:
    """Looks for a day's messages all the while, and knows when they were gone."""

    def __init__(self, url: str, day: date) -> None:
        self.gone: float | None = None
        self._url, self._day = url, day
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        self._ready.wait()

    def stop(self) -> float:
        """Returns when they were gone."""
        self._thread.join()
        assert self.gone is not None
        return self.gone

    def _look(self) -> None:
        """Asks as a reader would, for one of its messages."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            row = connection.execute(
                "SELECT id FROM messages WHERE day = %s LIMIT 1", (self._day,)
            ).fetchone()
            query = (
                "SELECT 1 FROM messages WHERE id = %(id)s UNION ALL SELECT 1 FROM message_events"
                " WHERE day = %(day)s AND message_id = %(id)s AND sequence_no = 0"
            )
            values = {"day": self._day, "id": row[0] if row else None}
            while connection.execute(query, values).fetchone():
                self._ready.set()
                time.sleep(0.0005)
            self.gone = time.perf_counter()


def prune_cost(url: str, rows: int, folder: Path, say: Callable[[str], None]) -> dict[str, float]:
    """A day of so many rows, and one of a hundredth."""
    with session(url) as connection:
        before = today(connection) - timedelta(days=AGE_DAYS - 1)
        day = before - timedelta(days=1)
        _fill(connection, day, rows, say)
        began = time.perf_counter()
        connection.execute("DELETE FROM message_events WHERE day = %s", (day,))
        connection.execute("DELETE FROM messages WHERE day = %s", (day,))
        delete_s = time.perf_counter() - began
        prune(connection, before)
        figures = {"prune.rows": float(rows), "prune.delete_s": delete_s}
        for name, number in (("hundredth_", rows // SHARE), ("", rows)):
            _fill(connection, day, number, say)
            watch = Watch(url, day)
            began = time.perf_counter()
            (removed,) = prune(connection, before).removed
            figures[f"prune.{name}s"] = time.perf_counter() - began
            figures[f"prune.{name}gone_ms"] = 1000 * (watch.stop() - began)
    figures["prune.gone_times"] = figures["prune.gone_ms"] / figures["prune.hundredth_gone_ms"]
    return figures | {"prune.file_s": _file_s(folder, removed.bytes)}


def _file_s(folder: Path, size: int) -> float:
    """What the file system takes to give back as much as the day had."""
    path = folder / "file"
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.fsync(file.fileno())
        began = time.perf_counter()
        file.truncate(0)
        seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def _fill(
    connection: psycopg.Connection[tuple[object, ...]],
    day: date,
    rows: int,
    say: Callable[[str], None],
) -> None:
    """Makes a day of finished answers, in order, as they are written."""
    began = time.perf_counter()
    answers = max(1, rows // EVENTS_OF_AN_ANSWER)
    connection.execute("SELECT make_message_day(%s)", (day,))
    # An old day has long been vacuumed; a pruning would wait a second for one that is at it.
    connection.execute(f"ALTER TABLE message_events_{day:%Y%m%d} SET (autovacuum_enabled = false)")
    connection.execute(
        "INSERT INTO messages (id, user_id, day, status, last_sequence, finished_at)"
        " SELECT gen_random_uuid(), 'benchmark', %s, 'finished', %s, now()"
        " FROM generate_series(1, %s)",
        (day, rows // answers - 1, answers),
    )
    connection.execute(
        "INSERT INTO message_events (day, message_id, sequence_no, event_type, payload)"
        ' SELECT day, id, n, \'answer\', \'{"type":"answer","answer":"word by word"}\''
        " FROM messages, generate_series(0, last_sequence) n WHERE day = %s",
        (day,),
    )
    connection.execute("CHECKPOINT")
    say(f"a day of {rows:,} rows made in {time.perf_counter() - began:.1f} s")
