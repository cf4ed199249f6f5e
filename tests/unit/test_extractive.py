from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.search import Passage, content_words
from shared.settings import get_settings
from worker.app import require_producer
from worker.chat import extractive
from worker.chat.question import Question, load_producer

HERONS = Passage(
    "1",
    "Birds",
    "heron.md",
    "# Herons\n\nA heron stands still in the water for hours. It eats fish and frogs.\n\n"
    "- Its nest is high up in a *tree*, near others.",
)
OWLS = Passage("2", "Birds", "owl.md", "An owl hunts at night. Herons sleep in trees at night.")


def test_sentences_that_share_words_with_the_question_come_with_their_source() -> None:
    cited, sentences = extractive.chosen("Where does a heron build its nest?", [HERONS, OWLS])
    assert sentences[0].text == "Its nest is high up in a tree, near others."
    assert cited[sentences[0].source - 1] == HERONS
    assert all("hunts" not in sentence.text for sentence in sentences)


def test_a_sentence_in_two_neighbouring_chunks_is_said_once() -> None:
    cited, sentences = extractive.chosen("heron water", [HERONS, HERONS])
    texts = [sentence.text for sentence in sentences]
    assert len(set(texts)) == len(texts)
    assert cited == [HERONS]


def test_what_nothing_answers_cites_nothing() -> None:
    assert extractive.chosen("volcanoes", [HERONS]) == ([], [])
    assert extractive.chosen("heron", []) == ([], [])


@given(st.text())
def test_pieces_make_the_text_again_from_its_first_word_on(text: str) -> None:
    assert "".join(extractive.pieces(text)) == (text if text.strip() else "")


def test_a_question_is_known_by_the_words_that_say_what_it_is_about() -> None:
    assert content_words("What does the heron eat, and where?") == ["heron", "eat"]
    assert content_words("数据库在哪里") == ["数据", "据库", "库在", "在哪", "哪里"]
    assert content_words("is it \x00 \ud800 ?") == []


def test_the_event_of_a_source_has_no_more_of_it_than_an_excerpt() -> None:
    event = Question.source(2, Passage("1", "Birds", "a.txt", "word " * 1000))
    assert event.type == "source"
    assert event.payload["number"] == 2
    assert len(event.payload["excerpt"]) == 300
    assert "text" not in event.payload


def test_a_worker_says_at_its_start_that_its_producer_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require_producer()
    monkeypatch.setenv("CHAT_PRODUCER", "nowhere:produce")
    get_settings.cache_clear()
    with pytest.raises(SystemExit, match=r"^error: CHAT_PRODUCER is wrong: 'nowhere:produce'"):
        require_producer()


@pytest.mark.parametrize("name", ["nowhere:produce", "worker.chat:nothing", "worker.chat:__all__"])
def test_a_producer_that_is_not_there_is_a_wrong_setting(name: str) -> None:
    with pytest.raises(SettingsError, match="CHAT_PRODUCER is wrong"):
        load_producer(name)
