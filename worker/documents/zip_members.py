"""The files in a zip archive."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from functools import partial
from typing import IO

from worker.documents.errors import (
    DamagedFile,
    EncryptedFile,
    TooManyFiles,
    UnreadableArchive,
    UnsupportedType,
)
from worker.documents.members import DAMAGE, Budget, Guarded, Limits, Member, Refused

# LZMA is left out: a header can ask for gigabytes of memory.
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2})
_ENCRYPTED, _UTF8 = 0x1, 0x800
_DIRECTORY_ENTRY = b"PK\x01\x02"
_ENTRIES_PER_FILE = 10  # folders and links count too, and members may hold the same bytes
_PIECE_BYTES = 1024 * 1024
# Zip files that their users don't know as such, by a member that tells.
_PACKAGES = frozenset({"[Content_Types].xml", "mimetype", "AndroidManifest.xml"})


def zip_members(file: IO[bytes], name: str, limits: Limits) -> Iterator[Member]:
    """Yields its files; see `archives.members` for what is raised."""
    _refuse_endless_directory(file, limits)
    budget = Budget(limits.total_bytes)
    try:
        archive = zipfile.ZipFile(file)
    except DAMAGE as error:
        raise UnreadableArchive from error
    with archive:
        if not _PACKAGES.isdisjoint(archive.namelist()):
            raise UnsupportedType
        for info in archive.infolist():
            if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16):
                yield _member(archive, info, budget)


def _refuse_endless_directory(file: IO[bytes], limits: Limits) -> None:
    """ZipFile reads a whole directory, at some kilobyte an entry: count before it does."""
    most, count, tail = limits.files * _ENTRIES_PER_FILE, 0, b""
    while piece := file.read(_PIECE_BYTES):
        piece = tail + piece
        count += piece.count(_DIRECTORY_ENTRY)
        tail = piece[1 - len(_DIRECTORY_ENTRY) :]
        if count > most:
            raise TooManyFiles(f"This archive holds more than {limits.files:,} files.")
    file.seek(0)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> Member:
    name = _name(info)
    if info.flag_bits & _ENCRYPTED:
        return Member(name, Refused(EncryptedFile()))
    if info.compress_type not in _METHODS:
        return Member(name, Refused(UnsupportedType("It is packed in a way that can't be read.")))
    return Member(name, Guarded(partial(archive.open, info), budget, DamagedFile))


def _name(info: zipfile.ZipInfo) -> str:
    """Its name. Many archivers write UTF-8 without saying so; zipfile then reads cp437."""
    if info.flag_bits & _UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename
