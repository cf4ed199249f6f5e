"""What a search finds, in whose sources, and how it marks it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared import search as searching
from shared.search import Fragment, Hit
from shared.settings import get_settings
from shared.upload_files import Connection
from tests.ingested import ingest


@pytest.fixture
def connection(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    get_settings.cache_clear()
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


def names(connection: Connection, query: str, user: str = "alice") -> list[str]:
    return [hit.document_name for hit in searching.search(connection, user, query)]


def marked(hit: Hit) -> list[str]:
    return [fragment.text for fragment in hit.snippet if fragment.hit]


BIRDS = {
    "heron.md": b"# Herons\n\nA heron waits for fishes. It fishes alone.",
    "osprey.txt": "Der Fischadler jagt über dem Fluß. Ospreys dive.".encode(),
    "标题.txt": "我们使用数据库来保存事件。鳥は空を飛びます。".encode(),
    "code.txt": b"Call read_after(cursor) on e-mail x@example.org, not 42.5 times.",
}


def test_words_are_found_exactly_and_english_ones_by_stem(connection: Connection) -> None:
    ingest(BIRDS)
    assert names(connection, "Herons") == ["heron.md"]
    assert names(connection, "fishing") == ["heron.md"]
    assert names(connection, "Fischadler") == names(connection, "fluß") == ["osprey.txt"]
    assert names(connection, "osprey") == ["osprey.txt"]
    assert names(connection, "Fisch") == []
    for query in ("read_after", "cursor", "e-mail", "mail", "example", "x@example.org", "42.5"):
        assert names(connection, query) == ["code.txt"], query
    assert names(connection, "org.example") == []


def test_words_are_found_in_scripts_without_spaces(connection: Connection) -> None:
    ingest(BIRDS)
    for query in ("数据库", "保存事件", "鳥", '"使用数据"', "我们 事件"):
        assert names(connection, query) == ["标题.txt"], query
    assert names(connection, "库数据") == []
    assert names(connection, "数据库 -事件") == []
    (hit,) = searching.search(connection, "alice", "数据库")
    assert marked(hit) == ["数据库"]
    assert "我们使用" in hit.snippet[0].text


def test_queries_take_phrases_or_and_without(connection: Connection) -> None:
    ingest(BIRDS)
    assert names(connection, '"waits for"') == ["heron.md"]
    assert names(connection, '"fishes waits"') == []
    assert names(connection, '"alone herons"') == []  # the last word is not before the first
    assert sorted(names(connection, "heron or ospreys")) == ["heron.md", "osprey.txt"]
    assert names(connection, "dive -fischadler") == []


def test_a_hit_says_where_it_is_and_marks_what_matched(connection: Connection) -> None:
    ingest(BIRDS, name="Marsh")
    (hit,) = searching.search(connection, "alice", "herons")
    assert (hit.source_name, hit.document_name) == ("Marsh", "heron.md")
    assert 0 < hit.rank < 1
    assert marked(hit) == ["Herons", "heron"]
    text = "".join(fragment.text for fragment in hit.snippet)
    assert text.startswith("# Herons") or text.startswith("Herons")


def test_stop_words_alone_are_words_too(connection: Connection) -> None:
    ingest({"a.txt": b"The Who played."})
    (hit,) = searching.search(connection, "alice", "the who")
    assert marked(hit) == ["The", "Who"]


def test_markup_in_a_text_is_text(connection: Connection) -> None:
    ingest({"x<script>.txt": b"egret <script>alert(1)</script> & <b>egret</b>"})
    (hit,) = searching.search(connection, "alice", "egret")
    assert "<script>" in "".join(fragment.text for fragment in hit.snippet)
    assert marked(hit) == ["egret", "egret"]
    assert names(connection, "script") == ["x<script>.txt"]


def test_more_and_nearer_matches_rank_higher(connection: Connection) -> None:
    ingest(
        {
            "far.txt": b"heron " + b"and so on " * 60 + b"reeds",
            "near.txt": b"The heron in the reeds " + b"and so on " * 60,
        }
    )
    assert names(connection, "heron reeds") == ["near.txt", "far.txt"]


def test_only_one_s_own_sources_are_searched(connection: Connection) -> None:
    ingest(BIRDS, user="alice")
    ingest({"b.txt": b"heron of bob"}, user="bob")
    assert names(connection, "heron", "bob") == ["b.txt"]
    assert names(connection, "heron", "carol") == []
    assert names(connection, "heron", "bob\x00") == []


def test_at_most_the_limit_comes_back(connection: Connection) -> None:
    ingest({f"{n}.txt": b"heron" for n in range(5)})
    assert len(searching.search(connection, "alice", "heron", limit=3)) == 3


@pytest.mark.parametrize(
    "query",
    [
        *(
            "",
            " ",
            "\x00",
            '"',
            "''",
            "-",
            "!",
            "&|!():*<->",
            "a:*b",
            "\\",
            "%",
            "or",
            "-or-",
            '-"',
        ),
        *("heron\x00", "\ud800", "'; DROP TABLE chunks; --", "x" * 10_000, "-a " * 3000),
        *("(" * 10_000, '"a ' * 3000, "数" * 10_000, "\x01\x02\x1f", "the", "<script>", '-"'),
    ],
)
def test_odd_queries_find_nothing_or_something(connection: Connection, query: str) -> None:
    ingest({"a.txt": b"heron"})
    assert len(searching.search(connection, "alice", query)) <= 1


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(query=st.text(alphabet=st.sampled_from("aä数 \"'-!&|()<>:*\\\x00\x01\ud800or"), max_size=40))
def test_no_query_is_an_error(connection: Connection, query: str) -> None:
    searching.search(connection, "alice", query)


def test_a_headline_is_cut_at_its_marks() -> None:
    headline = "a \x01b\x02\x1f\x01c\x02 d"
    assert searching.fragments(headline) == [
        Fragment("a ", hit=False),
        Fragment("bc", hit=True),
        Fragment(" d", hit=False),
    ]
