"""The files in a zip or tar archive, one by one, from hands that nobody knows.

What a header says is never believed: bytes are counted as they are unpacked. Names are labels;
nothing is written by name, and links and devices are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO

from worker.documents.errors import EmptyArchive, TooManyFiles
from worker.documents.kinds import Kind
from worker.documents.members import Limits, Member
from worker.documents.tar_members import tar_members
from worker.documents.zip_members import zip_members

_READERS: dict[Kind, Callable[[IO[bytes], str, Limits], Iterator[Member]]] = {
    Kind.ZIP: zip_members,
    Kind.TAR: tar_members,
}
_JUNK_FOLDERS = frozenset({"__MACOSX", ".git", ".svn"})
_JUNK_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})


def members(
    file: IO[bytes], name: str, kind: Kind, limits: Limits | None = None
) -> Iterator[Member]:
    """Yields the files of an archive in its order, without what systems leave in them.

    A member is to be read before the next one is asked for. Its stream raises an IngestError
    that is about this member alone, or ArchiveTooLarge.

    Raises:
        ArchiveTooLarge: more bytes came out than the limits allow.
        EmptyArchive: there are no files in it.
        TooManyFiles: there are more than the limits allow.
        UnreadableArchive: it is damaged from here on.
        UnsupportedType: it is an office document or the like.
    """
    limits = limits or Limits()
    count = 0
    for member in _READERS[kind](file, name, limits):
        parts = [part for part in _parts(member.name) if part not in ("", ".", "..")]
        if not parts or _is_junk(parts):
            continue
        count += 1
        if count > limits.files:
            raise TooManyFiles(f"This archive holds more than {limits.files:,} files.")
        yield Member("/".join(parts), member.stream)
    if not count:
        raise EmptyArchive


def _parts(name: str) -> list[str]:
    return name.replace("\\", "/").split("/")


def _is_junk(parts: list[str]) -> bool:
    last = parts[-1]
    return last in _JUNK_FILES or last.startswith("._") or not _JUNK_FOLDERS.isdisjoint(parts[:-1])
