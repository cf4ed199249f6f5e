"""A file's text, Markdown-like, section by section: one driver for every kind that is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from shared.text import storable
from worker.documents.decoding import decode
from worker.documents.errors import (
    EmptyFile,
    NestedArchive,
    TextTooLong,
    UnsupportedType,
)
from worker.documents.kinds import ARCHIVES, Kind, kind_of
from worker.documents.pdf_pages import pages
from worker.documents.web_pages import to_markdown

MAX_CHARACTERS = 10_000_000
_SCAN = "This PDF has no text: it may be a scan. Run a text recognition (OCR) on it first."


@dataclass(frozen=True, slots=True)
class Extraction:
    """A file that is being read: its sections come as they are asked for."""

    kind: Kind
    total: int
    unit: str
    sections: Iterator[str]


@contextmanager
def extract(file: IO[bytes], name: str) -> Iterator[Extraction]:
    """Opens a file to read its text; decides its kind by its content first, then by its name.

    Raises:
        IngestError: one of `worker.documents.errors`, with a sentence for the user; also while
            the sections are read.
    """
    kind = kind_of(file, name)
    if kind is Kind.PDF:
        with pages(file) as (count, texts):
            yield Extraction(kind, count, "pages", texts)
        return
    _refuse(kind)
    text = to_markdown(file.read()) if kind is Kind.HTML else _text(file)
    yield Extraction(kind, 1, "files", iter([text]))


def _refuse(kind: Kind) -> None:
    if kind is Kind.EMPTY:
        raise EmptyFile("This file is empty.")
    if kind in ARCHIVES:
        raise NestedArchive
    if kind is Kind.UNKNOWN:
        raise UnsupportedType


def _text(file: IO[bytes]) -> str:
    data = file.read(4 * MAX_CHARACTERS + 1)  # UTF-8 takes up to four bytes a character
    if len(data) > 4 * MAX_CHARACTERS:
        raise _too_long()
    return decode(data)


def join(sections: Iterable[str], kind: Kind) -> str:
    """Joins sections to one text that can be stored.

    Raises:
        EmptyFile: there is no text in them.
        TextTooLong: there are more than `MAX_CHARACTERS`; what comes after is not read.
    """
    texts, characters = [], 0
    for section in sections:
        texts.append(storable(section))
        characters += len(section)
        if characters > MAX_CHARACTERS:
            raise _too_long()
    text = "\n\n".join(filter(None, texts)).strip()
    if not text:
        raise EmptyFile(_SCAN if kind is Kind.PDF else None)
    return text


def _too_long() -> TextTooLong:
    return TextTooLong(f"This file has more than {MAX_CHARACTERS:,} characters of text.")
