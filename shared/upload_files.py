"""The files of a run in Postgres: their bytes go in and come out as streams.

Bytes lie in pieces of 1 MiB, so that no file is ever held in memory. The files that were uploaded
belong to their source's latest run and outlive it; what came out of an archive does not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import IO, Any, Protocol

import psycopg

from shared.errors import EventStreamError
from shared.text import label

PIECE_BYTES = 1024 * 1024

Connection = psycopg.Connection[tuple[Any, ...]]


class UploadTooLarge(EventStreamError):
    """The upload is larger than is taken."""


class UploadGone(EventStreamError):
    """The uploaded bytes are no longer there."""


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Returns at most `size` bytes; none at the end."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a run. `member` is 0 for one as uploaded, else its place in an archive, from 1."""

    id: str
    source_id: str
    run_id: str
    position: int
    member: int
    name: str
    media_type: str
    size: int


def add(
    connection: Connection, file: StoredFile, stream: Readable, *, max_bytes: int
) -> StoredFile:
    """Stores one more file of a run; returns it with its id and size.

    Where the stream raises, nothing of the file stays, and the exception goes on.

    Raises:
        UploadTooLarge: the stream holds more than `max_bytes`.
    """
    with connection.transaction():
        row = connection.execute(
            "INSERT INTO upload_files (source_id, run_id, position, member, name, media_type)"
            " VALUES (%s, %s, %s, %s, %s, %s) RETURNING id::text, name, media_type",
            (
                file.source_id,
                file.run_id,
                file.position,
                file.member,
                label(file.name),
                label(file.media_type),
            ),
        ).fetchone()
        assert row is not None
        file_id, name, media_type = row
        size = _store_pieces(connection, file_id, stream, max_bytes)
        connection.execute("UPDATE upload_files SET size = %s WHERE id = %s", (size, file_id))
    return replace(file, id=file_id, name=name, media_type=media_type, size=size)


def _store_pieces(connection: Connection, file_id: str, stream: Readable, max_bytes: int) -> int:
    size = 0
    for number, piece in enumerate(_pieces(stream)):
        size += len(piece)
        if size > max_bytes:
            raise UploadTooLarge
        connection.execute(
            "INSERT INTO upload_chunks (file_id, number, data) VALUES (%s, %s, %b)",
            (file_id, number, piece),
        )
    return size


def _pieces(stream: Readable) -> Iterator[bytes]:
    """Cuts a stream into pieces of one size, also where `read` returns less than asked for."""
    piece = bytearray()
    while part := stream.read(PIECE_BYTES - len(piece)):
        piece += part
        if len(piece) == PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


_COLUMNS = "id::text, source_id::text, run_id, position, member, name, media_type, size"


def files(connection: Connection, run_id: str) -> list[StoredFile]:
    """Returns a run's files in order; an archive that was unpacked is left out for its members."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM upload_files AS file WHERE run_id = %s AND (member > 0 OR NOT"
        " EXISTS (SELECT FROM upload_files AS unpacked WHERE unpacked.run_id = file.run_id"
        " AND unpacked.position = file.position AND unpacked.member > 0))"
        " ORDER BY position, member",
        (run_id,),
    )
    return [StoredFile(*row) for row in rows]


def find(connection: Connection, file_id: str) -> StoredFile:
    """Returns one file.

    Raises:
        UploadGone: it is not there.
    """
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM upload_files WHERE id = %s", (file_id,)
    ).fetchone()
    if row is None:
        raise UploadGone
    return StoredFile(*row)


def head(connection: Connection, file_id: str, size: int) -> bytes:
    """Returns a file's first `size` bytes, 1 MiB at most, or what it has of them."""
    row = connection.execute(
        "SELECT substring(data FOR %s) FROM upload_chunks WHERE file_id = %s AND number = 0",
        (size, file_id),
        binary=True,
    ).fetchone()
    return bytes(row[0]) if row else b""


@contextmanager
def open_file(connection: Connection, file: StoredFile) -> Iterator[IO[bytes]]:
    """Lends a temporary copy of a file's bytes, at its start. One over 1 MiB lies on disk.

    Raises:
        UploadGone: not all of its bytes are there.
    """
    with tempfile.SpooledTemporaryFile(max_size=PIECE_BYTES) as copy:
        number = 0
        while row := connection.execute(
            "SELECT data FROM upload_chunks WHERE file_id = %s AND number = %s",
            (file.id, number),
            binary=True,
        ).fetchone():
            copy.write(row[0])
            number += 1
        if copy.tell() != file.size:
            raise UploadGone
        copy.seek(0)
        yield copy


def hand_over(connection: Connection, source_id: str, run_id: str) -> int:
    """Makes a source's uploaded files those of another run; returns how many.

    They are new files with the same bytes, which are not copied: who still reads the old ones
    finds them gone.
    """
    moved = connection.execute(
        "INSERT INTO upload_files (source_id, run_id, position, member, name, media_type, size)"
        " SELECT source_id, %s, position, member, name, media_type, size FROM upload_files"
        " WHERE source_id = %s AND member = 0",
        (run_id, source_id),
    ).rowcount
    connection.execute(
        "UPDATE upload_chunks SET file_id = new.id FROM upload_files AS old"
        " JOIN upload_files AS new ON new.run_id = %s AND new.position = old.position"
        " WHERE old.source_id = %s AND old.run_id <> %s AND old.member = 0 AND file_id = old.id",
        (run_id, source_id, run_id),
    )
    connection.execute(
        "DELETE FROM upload_files WHERE source_id = %s AND run_id <> %s", (source_id, run_id)
    )
    return moved


def delete_members(connection: Connection, run_id: str) -> None:
    """Deletes what came out of a run's archives."""
    connection.execute("DELETE FROM upload_files WHERE run_id = %s AND member > 0", (run_id,))


def delete_older(connection: Connection, run_id: str, age: timedelta) -> None:
    """Deletes a run's files, and their bytes, that have been there for longer than `age`."""
    connection.execute(
        "DELETE FROM upload_files WHERE run_id = %s AND created_at < now() - %s::interval",
        (run_id, age),
    )
