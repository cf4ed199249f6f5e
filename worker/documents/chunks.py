"""Cutting text into chunks: by headings, paragraphs and sentences, as even as they allow."""

from __future__ import annotations

from collections.abc import Iterator

from semantic_text_splitter import MarkdownSplitter

CHUNK_CHARACTERS = 1000
OVERLAP_CHARACTERS = 100
# The splitter takes minutes for a long text without breaks: longer than linear in what it is given.
PIECE_CHARACTERS = 50_000
_BREAKS = ("\n# ", "\n\n", "\n", " ")  # where a piece ends best comes first

_splitter = MarkdownSplitter(CHUNK_CHARACTERS, overlap=OVERLAP_CHARACTERS)


def spans(text: str) -> Iterator[tuple[int, int]]:
    """Yields where each chunk begins and ends, in characters.

    A chunk has at most 1,000 characters, and up to 100 in common with the one before. Spans
    instead of texts, so that the chunks of a large source need no second copy in memory.
    """
    for begin, end in _pieces(text):
        for start, chunk in _splitter.chunk_indices(text[begin:end]):
            yield begin + start, begin + start + len(chunk)


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    begin = 0
    while len(text) - begin > PIECE_CHARACTERS:
        end = _break_before(text, begin + PIECE_CHARACTERS)
        yield begin, end
        begin = end
    yield begin, len(text)


def _break_before(text: str, limit: int) -> int:
    """The best place to cut in the last half of a piece that ends at `limit` at the latest."""
    for mark in _BREAKS:
        found = text.rfind(mark, limit - PIECE_CHARACTERS // 2, limit)
        if found >= 0:
            return found
    return limit
