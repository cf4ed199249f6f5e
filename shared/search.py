"""Search in what a user's own sources hold: ranked chunks, with the words that matched marked.

Exact words of any language are found, and English words by their stem.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg

from shared.text import is_storable, storable

LONGEST_QUERY = 500
# Stored text has no control characters, so these can't be mistaken for it.
_START, _STOP, _SEPARATOR = "\x01", "\x02", "\x1f"
_HEADLINE = (
    f'StartSel="{_START}", StopSel="{_STOP}", MaxFragments=2, MinWords=12, MaxWords=35,'
    ' ShortWord=0, FragmentDelimiter=" … "'
)

# Both forms of a query are asked: 'the' is a word only in the exact one, and 'tasks' finds
# 'task' only in the English one. A chunk with the exact word matches both and ranks higher.
_SEARCH = """
WITH query AS (
    SELECT websearch_to_tsquery('simple', separate_words(%(query)s)) AS exact,
           websearch_to_tsquery('english', separate_words(%(query)s)) AS stemmed
), hits AS (
    SELECT source_id, document_id, number, text,
           (ts_rank_cd(words, exact, 1|32) + ts_rank_cd(stems, stemmed, 1|32)) / 2 AS rank
    FROM chunks, query
    WHERE user_id = %(user_id)s AND (words @@ exact OR stems @@ stemmed)
          AND document_id NOT IN (SELECT id FROM documents WHERE staged)
    ORDER BY rank DESC, document_id, number
    LIMIT %(limit)s
)
SELECT hits.source_id::text, sources.name, documents.name, hits.rank,
       CASE WHEN numnode(stemmed) > 0
            THEN ts_headline('english', separate_words(hits.text), exact || stemmed, %(options)s)
            ELSE ts_headline('simple', separate_words(hits.text), exact, %(options)s)
       END
FROM hits
JOIN sources ON sources.id = hits.source_id
JOIN documents ON documents.id = hits.document_id, query
ORDER BY hits.rank DESC, hits.document_id, hits.number
"""


_PASSAGES = """
WITH query AS (
    SELECT websearch_to_tsquery('simple', separate_words(%(query)s)) AS exact,
           websearch_to_tsquery('english', separate_words(%(query)s)) AS stemmed
)
SELECT chunks.source_id::text, sources.name, documents.name, chunks.text
FROM query, chunks
JOIN sources ON sources.id = chunks.source_id
JOIN documents ON documents.id = chunks.document_id
WHERE chunks.user_id = %(user_id)s AND (words @@ exact OR stems @@ stemmed) AND NOT documents.staged
ORDER BY ts_rank_cd(words, exact, 1|32) + ts_rank_cd(stems, stemmed, 1|32) DESC,
    chunks.document_id, chunks.number
LIMIT %(limit)s
"""
# Writing without spaces, as in `separate_words`.
_SPACELESS = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)
# Words that make a question and say nothing of what it is about.
_ASKING = frozenset(
    re.findall(
        r"\w+",
        "a about an and any are as at be been but by can could did do does for from had has have "
        "how i in is it its me my of on or our say says should so tell that the their them there "
        "these they this to us was we were what when where which who whom whose why will with "
        "would you your",
    )
)


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk of a source, whole."""

    source_id: str
    source_name: str
    document_name: str
    text: str


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of a snippet; `hit` where it matched."""

    text: str
    hit: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that matched. Ranks lie between 0 and 1 and compare within one answer only."""

    source_id: str
    source_name: str
    document_name: str
    rank: float
    snippet: list[Fragment]


def search(
    connection: psycopg.Connection[tuple[Any, ...]], user_id: str, query: str, limit: int = 20
) -> list[Hit]:
    """Returns the best matches in a user's own sources, best first.

    Args:
        connection: reads only.
        user_id: nobody else's sources are looked at.
        query: as typed, in any form: words, "a phrase", `or`, `-without`. What is no query finds
            nothing; what is longer than 500 characters is cut.
        limit: the most hits to return.
    """
    words = storable(query)[:LONGEST_QUERY].strip()
    if not words or not is_storable(user_id):  # such an id can own nothing
        return []
    parameters = {"query": words, "user_id": user_id, "limit": limit, "options": _HEADLINE}
    rows = connection.execute(_SEARCH, parameters).fetchall()
    return [Hit(r[0], r[1], r[2], r[3], fragments(r[4])) for r in rows]


def passages(
    connection: psycopg.Connection[tuple[Any, ...]], user_id: str, question: str, limit: int
) -> list[Passage]:
    """Returns the chunks of a user's own sources that fit a question best, best first.

    A question need not hold all its words: any of those that say what it is about will do.
    """
    query = " or ".join(f'"{word}"' for word in content_words(question)[:32])
    if not query or not is_storable(user_id):
        return []
    parameters = {"query": query, "user_id": user_id, "limit": limit}
    return [Passage(*row) for row in connection.execute(_PASSAGES, parameters)]


def content_words(question: str) -> list[str]:
    """The different words of a question that say what it is about, in lower case."""
    runs = re.findall(r"\w+", storable(question)[:LONGEST_QUERY].lower())
    words = (word for run in runs for word in (_pairs(run) if _SPACELESS.search(run) else [run]))
    return list(dict.fromkeys(word for word in words if word not in _ASKING))


def _pairs(run: str) -> list[str]:
    """Two characters each: nobody says where words of such writing end."""
    return [run[place : place + 2] for place in range(max(1, len(run) - 1))]


def fragments(headline: str) -> list[Fragment]:
    """Cuts a marked headline into what matched and what lies between; neighbours are joined."""
    text = headline.replace(_SEPARATOR, "").replace(_STOP + _START, "")
    found = []
    for index, part in enumerate(re.split(f"[{_START}{_STOP}]", text)):
        if part:
            found.append(Fragment(part, hit=index % 2 == 1))
    return found
