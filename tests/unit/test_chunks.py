"""Where text is cut."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.documents import chunks
from worker.documents.chunks import CHUNK_CHARACTERS, OVERLAP_CHARACTERS, spans

PARAGRAPH = "A heron stands still in the reeds until a fish comes by. " * 8


def test_a_short_text_is_one_chunk() -> None:
    assert list(spans("# Title\n\nWords.")) == [(0, 15)]


def test_a_heading_stays_with_what_follows() -> None:
    text = "".join(f"# Part {n}\n\n{PARAGRAPH}\n\n" for n in range(9))
    starts = [text[start : start + 6] for start, _ in spans(text)]
    assert set(starts) == {"# Part"}


def test_neighbours_overlap_where_there_is_no_better_cut() -> None:
    found = list(spans("word " * 1000))
    assert len(found) > 4
    for (_, end), (start, _) in pairwise(found):
        assert 0 < end - start <= OVERLAP_CHARACTERS


def test_a_long_text_is_cut_piece_by_piece_at_a_heading(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"# Part {n}\n\n{PARAGRAPH}\n\n" for n in range(50))
    whole = list(spans(text))
    monkeypatch.setattr(chunks, "PIECE_CHARACTERS", 3000)
    assert [text[start:end].strip() for start, end in spans(text)] == [
        text[start:end].strip() for start, end in whole
    ]


@pytest.mark.timeout(60)  # at once it would take some ten minutes
def test_megabytes_without_a_break_are_cut_too() -> None:
    found = list(spans("x" * 4_000_000))
    assert found[-1][1] == 4_000_000


@pytest.mark.parametrize("piece", [chunks.PIECE_CHARACTERS, 40])
@given(text=st.text(max_size=4000))
def test_chunks_are_short_ascending_and_lose_nothing_but_space(piece: int, text: str) -> None:
    reached = 0
    with patch.object(chunks, "PIECE_CHARACTERS", piece):
        for start, end in spans(text):
            assert 0 < end - start <= CHUNK_CHARACTERS
            assert not text[reached:start].strip()
            reached = end
    assert not text[reached:].strip()
