"""A file in an archive, and how much may come out of one."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO
from zipfile import BadZipFile

from shared.upload_files import Readable
from worker.documents.errors import ArchiveTooLarge
from worker.ingest import IngestError

# What unpacking damaged bytes raises: OSError is bz2's and gzip's.
DAMAGE = (
    *(BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError),
    *(ValueError, NotImplementedError),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that an archive may unpack to. Sizes are in bytes."""

    files: int = 10_000
    file_bytes: int = 50 * 1024 * 1024
    total_bytes: int = 250 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive. Its name is a label."""

    name: str
    stream: Readable


@dataclass(slots=True)
class Budget:
    """How many bytes may still come out of an archive."""

    left_bytes: int

    def spend(self, size: int) -> None:
        """Counts bytes that came out.

        Raises:
            ArchiveTooLarge: they were too many.
        """
        self.left_bytes -= size
        if self.left_bytes < 0:
            raise ArchiveTooLarge


class Guarded:
    """A stream that is opened at the first read; its bytes are counted, its errors are ours."""

    def __init__(
        self,
        open_source: Callable[[], IO[bytes]],
        budget: Budget | None,
        damaged: type[IngestError],
    ) -> None:
        self._open = open_source
        self._source: IO[bytes] | None = None
        self._budget = budget
        self._damaged = damaged

    def read(self, size: int, /) -> bytes:
        """Reads on; raises `damaged` where the bytes can't be unpacked."""
        try:
            if self._source is None:
                self._source = self._open()
            data = self._source.read(size)
        except DAMAGE as error:
            raise self._damaged from error
        if self._budget is not None:
            self._budget.spend(len(data))
        return data


class Refused:
    """The stream of a member that can't be read at all: it raises the reason."""

    def __init__(self, reason: IngestError) -> None:
        self._reason = reason

    def read(self, size: int, /) -> bytes:
        """Raises the reason."""
        raise self._reason
