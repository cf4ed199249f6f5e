"""The built-in producer: the sentences that fit a question best, as they stand in the sources.

A stand-in that has no model to download, at the pace at which people read.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shared.search import Passage, content_words
from shared.settings import get_settings
from worker.chat.question import Piece, Question

MOST_SOURCES = 3
MOST_SENTENCES = 6
WORDS_AT_ONCE = 2
LONGEST_PIECE = 40  # characters: writing without spaces has no words to cut at
NOTHING = "Nothing in your sources answers this. Try other words, or add a document that does."

_ENDS = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n\s*\n|\n(?=[#*>|-])")  # noqa: RUF001
_MARKUP = re.compile(r"^[#*>|\s-]+|[*_`|]+")
SHORTEST_SENTENCE = 20


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence that is cited, by the number of its source."""

    source: int
    text: str


def produce(question: Question) -> Iterator[Piece]:
    """Says what it cites, then the sentences, a few words at a time."""
    words_per_second = get_settings().chat_words_per_second
    found = question.passages()
    cited, sentences = chosen(question.text, found)
    for number, passage in enumerate(cited, 1):
        yield question.source(number, passage)
    if not sentences:
        sentences = [Sentence(0, NOTHING)]
    text = "\n\n".join(_with_mark(sentence) for sentence in sentences)
    for piece in pieces(text):
        yield piece
        time.sleep(len(piece.split()) / words_per_second)


def chosen(question: str, found: Sequence[Passage]) -> tuple[list[Passage], list[Sentence]]:
    """The passages to cite, and their sentences that share most words with a question."""
    wanted = _stems(question)
    shared = [
        (words, sentence, passage)
        for passage in found
        for sentence in sentences_of(passage.text)
        if (words := wanted & _stems(sentence))
    ]
    seldom = Counter(word for words, _, _ in shared for word in words)
    shared.sort(key=lambda each: -sum(1 / seldom[word] for word in each[0]))  # else as found
    cited: list[Passage] = []
    taken: dict[str, Sentence] = {}
    for _, sentence, passage in shared:
        if sentence in taken or len(taken) == MOST_SENTENCES:  # neighbouring chunks overlap
            continue
        if passage not in cited and len(cited) < MOST_SOURCES:
            cited.append(passage)
        if passage in cited:
            taken[sentence] = Sentence(cited.index(passage) + 1, sentence)
    return cited, list(taken.values())


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, each on one line, without marks of Markdown."""
    parts = (" ".join(_MARKUP.sub("", part).split()) for part in _ENDS.split(text) if part)
    return [part for part in parts if len(part) >= SHORTEST_SENTENCE]


def pieces(text: str) -> Iterator[str]:
    """Cuts a text into pieces of a few words, which together are the text."""
    words = re.findall(rf"\s*\S{{1,{LONGEST_PIECE}}}\s*", text)
    for start in range(0, len(words), WORDS_AT_ONCE):
        yield "".join(words[start : start + WORDS_AT_ONCE])


def _with_mark(sentence: Sentence) -> str:
    return f"{sentence.text} [{sentence.source}]" if sentence.source else sentence.text


def _stems(text: str) -> set[str]:
    """The words of a text without what English adds to their ends: enough to compare a few."""
    words = content_words(text)
    return {re.sub(r"(ing|ed|es|s)$", "", word) if len(word) > 4 else word for word in words}
