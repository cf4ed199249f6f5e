"""Cutting text into chunks: by headings, paragraphs and sentences, as even as they allow."""

from __future__ import annotations

from semantic_text_splitter import MarkdownSplitter

CHUNK_CHARACTERS = 1000
OVERLAP_CHARACTERS = 100

_splitter = MarkdownSplitter(CHUNK_CHARACTERS, overlap=OVERLAP_CHARACTERS)


def spans(text: str) -> list[tuple[int, int]]:
    """Returns where each chunk begins and ends, in characters.

    A chunk has at most 1,000 characters, and up to 100 in common with the one before. Spans
    instead of texts, so that the chunks of a large source need no second copy in memory.
    """
    return [(start, start + len(chunk)) for start, chunk in _splitter.chunk_indices(text)]
