"""What is said while documents are cut into chunks."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from worker.documents import indexing
from worker.documents.store import Document
from worker.ingest import Cancelled

TEXTS = {"one": "A heron stands still. " * 500, "two": "A reed. " * 100}
DOCUMENTS = [Document(name, f"{name}.txt", len(text), None, None) for name, text in TEXTS.items()]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(indexing, "postgres", nullcontext)
    monkeypatch.setattr(indexing, "_text", lambda connection, document: TEXTS[document.id])
    monkeypatch.setattr(indexing, "progress", lambda *numbers, unit: found.append((*numbers, unit)))
    return found


def test_the_bar_counts_characters_within_a_document_too(said: list[tuple[Any, ...]]) -> None:
    cut = list(indexing._cut(DOCUMENTS))
    assert [document for document, _ in cut] == DOCUMENTS
    total = sum(map(len, TEXTS.values()))
    done = [number for number, _, _ in said]
    assert len(done) == sum(len(found) for _, found in cut) > len(DOCUMENTS)
    assert done == sorted(done)
    assert total - done[-1] <= 1  # but for the space at its end
    assert {told[1:] for told in said} == {(total, "characters")}


def test_a_cancelled_run_is_cut_no_further(
    said: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "cancelled", lambda: len(said) == 2)
    with pytest.raises(Cancelled):
        list(indexing._cut(DOCUMENTS))
    assert len(said) == 2
