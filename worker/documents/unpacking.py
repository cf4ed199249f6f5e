"""The archives of an upload become files of its run, each in its archive's place.

An archive itself is kept, so that a later run of the source can unpack it again.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

from shared import upload_files
from shared.connections import postgres
from shared.upload_files import Connection, StoredFile, UploadGone, UploadTooLarge
from worker.documents import store
from worker.documents.archives import members
from worker.documents.errors import (
    DamagedFile,
    EncryptedFile,
    FileGone,
    FileTooLarge,
    UnreadableArchive,
    UnsupportedType,
)
from worker.documents.kinds import ARCHIVES, HEAD_BYTES, Kind, kind_of
from worker.documents.members import Limits, Member
from worker.ingest import IngestError, stage, track


def unpack(run_id: str, limits: Limits | None = None) -> list[StoredFile]:
    """Unpacks what is an archive; returns all files of the run, in order.

    Its members take an archive's place in one transaction, so a second call finds nothing left to
    do. What can't be unpacked becomes a document with its error.

    Raises:
        FileGone: the run has no files, or their bytes are gone.
    """
    with postgres() as connection:
        found = upload_files.files(connection, run_id)
        if found:
            store.forget_leftovers(connection, found[0].source_id, run_id)
        archives = [(file, kind) for file in found if (kind := _archive(connection, file))]
    if not found:
        raise FileGone
    if not archives:
        return found
    with stage("unpack"):
        for file, kind in track(archives, unit="archives"):
            _unpack(file, kind, limits or Limits())
    with postgres() as connection:
        return upload_files.files(connection, run_id)


def _archive(connection: Connection, file: StoredFile) -> Kind | None:
    """Its kind, if it is an archive that was uploaded as such and not dealt with yet."""
    if file.member or store.find(connection, file.id):
        return None
    kind = kind_of(io.BytesIO(upload_files.head(connection, file.id, HEAD_BYTES)), file.name)
    return kind if kind in ARCHIVES else None


def _unpack(file: StoredFile, kind: Kind, limits: Limits) -> None:
    with ExitStack() as held, postgres() as connection:
        try:
            copy = held.enter_context(upload_files.open_file(connection, file))
        except UploadGone as error:
            raise FileGone from error
        try:
            with connection.transaction():
                _add_all(connection, file, track(members(copy, file.name, kind, limits)), limits)
        except IngestError as error:  # nothing of it stays
            store.keep_error(connection, file.id, error)


def _add_all(
    connection: Connection, archive: StoredFile, contents: Iterator[Member], limits: Limits
) -> None:
    count = 0
    try:
        for member in contents:
            name = f"{archive.name}/{member.name}"
            _add(connection, replace(archive, member=count + 1, name=name), member, limits)
            count += 1
    except UnreadableArchive:
        if not count:
            raise
        # Beside its members it is told of as the file that failed.
        files = "1 file" if count == 1 else f"{count:,} files"
        lost = UnreadableArchive(f"This archive is damaged: only {files} could be unpacked.")
        store.keep_error(connection, archive.id, lost)


def _add(connection: Connection, file: StoredFile, member: Member, limits: Limits) -> None:
    error: IngestError
    try:
        upload_files.add(connection, file, member.stream, max_bytes=limits.file_bytes)
        return
    except UploadTooLarge:
        error = FileTooLarge(
            f"This file is larger than {limits.file_bytes / 1024 / 1024:g} MiB when unpacked."
        )
    except (DamagedFile, EncryptedFile, UnsupportedType) as caught:
        error = caught
    unread = upload_files.add(connection, file, io.BytesIO(), max_bytes=0)
    store.keep_error(connection, unread.id, error)
