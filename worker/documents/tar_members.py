"""The files in a tar archive, plain or gzipped; also a lone gzipped file.

Read as a stream from front to back, so that every unpacked byte passes the count, also those of
members that are skipped.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from typing import IO, cast

from worker.documents.errors import TooManyFiles, UnreadableArchive
from worker.documents.members import DAMAGE, Budget, Guarded, Limits, Member

_GZIP = b"\x1f\x8b"
_ENTRIES_PER_FILE = 10  # folders and links count too


# typeshed leaves these public names out.
_DAMAGED_HEADER: tuple[type[Exception], ...] = (
    tarfile.InvalidHeaderError,  # type: ignore[attr-defined]
    tarfile.TruncatedHeaderError,  # type: ignore[attr-defined]
)


class _StrictEntry(tarfile.TarInfo):
    """A header. tarfile takes a damaged one for the end of the archive; here it is an error."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> _StrictEntry:
        try:
            return super().fromtarfile(tarfile)
        except _DAMAGED_HEADER as error:
            raise UnreadableArchive from error


def tar_members(file: IO[bytes], name: str, limits: Limits) -> Iterator[Member]:
    """Yields its files; see `archives.members` for what is raised."""
    zipped = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    source = cast(IO[bytes], gzip.GzipFile(fileobj=file, mode="rb")) if zipped else file
    # Headers and padding pass the count too.
    budget = Budget(limits.total_bytes + limits.files * tarfile.BLOCKSIZE * 4)
    if zipped and not _is_tar(source, name):
        yield Member(name.removesuffix(".gz"), Guarded(lambda: source, budget, UnreadableArchive))
        return
    stream = Guarded(lambda: source, budget, UnreadableArchive)
    try:
        yield from _files(cast(IO[bytes], stream), limits)
    except DAMAGE as error:
        raise UnreadableArchive from error


def _is_tar(source: IO[bytes], name: str) -> bool:
    try:
        head = source.read(tarfile.BLOCKSIZE)
        source.seek(0)
    except DAMAGE as error:
        raise UnreadableArchive from error
    return head[257:262] == b"ustar" or name.lower().endswith((".tgz", ".tar.gz"))


def _files(stream: IO[bytes], limits: Limits) -> Iterator[Member]:
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictEntry) as archive:
        for number, entry in enumerate(archive):
            if number > limits.files * _ENTRIES_PER_FILE:
                raise TooManyFiles(f"This archive holds more than {limits.files:,} files.")
            contents = archive.extractfile(entry) if entry.isreg() else None
            if contents is not None:
                yield Member(entry.name, _guarded(contents))


def _guarded(contents: IO[bytes]) -> Guarded:
    """Its bytes are counted as the archive's already; a fault in them is the whole archive's."""
    return Guarded(lambda: contents, None, UnreadableArchive)
