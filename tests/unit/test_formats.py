"""What text comes of which file, and what a user is told of one that has none."""

from __future__ import annotations

import codecs
import io

import pytest

from tests import samples
from worker.documents import formats
from worker.documents.errors import (
    EmptyFile,
    EncryptedPdf,
    NestedArchive,
    TextTooLong,
    UnreadablePdf,
    UnreadableText,
    UnsupportedType,
)
from worker.documents.formats import extract, join
from worker.documents.kinds import Kind
from worker.ingest import IngestError


def read(data: bytes, name: str) -> str:
    with extract(io.BytesIO(data), name) as extraction:
        return join(extraction.sections, extraction.kind)


def test_markdown_stays_as_it_is() -> None:
    assert read(samples.MARKDOWN, "herons.md") == samples.MARKDOWN.decode().strip()


def test_a_page_keeps_its_structure_and_title_and_loses_scripts_styles_and_addresses() -> None:
    text = read(samples.HTML, "birds.html")
    assert text.startswith("# Marsh birds\n\n# Bitterns")
    assert "They **boom** in reeds." in text
    assert "| snipe | drum |" in text
    for dropped in ("alert", "color", "example.org"):
        assert dropped not in text


def test_names_with_underscores_are_found_in_pages_as_written() -> None:
    assert "read_after * 2" in read(b"<html><p>read_after * 2</p></html>", "x.html")


def test_a_page_nested_deeper_than_the_stack_keeps_its_words() -> None:
    assert "deep" in read(b"<html>" + b"<div>" * 20_000 + b"deep", "x.html")


def test_a_pdf_is_read_page_by_page() -> None:
    data = samples.pdf("The first page.", "", "The third page.")
    with extract(io.BytesIO(data), "x.pdf") as extraction:
        assert (extraction.total, extraction.unit) == (3, "pages")
        assert next(extraction.sections) == "The first page."
    assert read(data, "x.pdf") == "The first page.\n\nThe third page."


def test_content_decides_before_the_name_does() -> None:
    assert "A page" in read(samples.pdf("A page"), "notes.txt")
    assert read(b"<!-- x -->\n<!DOCTYPE html><title>T</title><p>a</p>", "x.txt") == "# T\n\na"
    assert read(b"PDF files begin with\n%PDF-1.7", "about.md").startswith("PDF files")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Grüße".encode(), "Grüße"),
        (codecs.BOM_UTF8 + "Grüße".encode(), "Grüße"),
        ("Grüße, 数据".encode("utf-16"), "Grüße, 数据"),
        ("Grüße".encode("utf-32"), "Grüße"),
        ("Die Straße führt über die Brücke zum Fluß.\n".encode("cp1252") * 3, "über die Brücke"),
        ("Реки и озёра севера полны рыбы.\n".encode("cp1251") * 3, "озёра севера"),
        ("日本語の文章をここに書きます。\n".encode("shift_jis") * 3, "日本語の文章"),
        ("数据 ".encode() * 50 + b"\xff", "数据 数据"),
        (b"one\r\ntwo\x0cthree\x00\x1b[0m"[:12], "one\ntwo\nthr"),
    ],
)
def test_text_is_read_in_its_encoding(data: bytes, text: str) -> None:
    assert text in read(data, "x.txt")


@pytest.mark.parametrize(
    ("data", "name", "error", "sentence"),
    [
        (b"", "x.txt", EmptyFile, "This file is empty."),
        (b" \n\t ", "x.md", EmptyFile, "This file is empty."),
        (b"<html><script>1</script></html>", "x.html", EmptyFile, "no text"),
        (samples.pdf("", ""), "scan.pdf", EmptyFile, "scan"),
        (samples.BROKEN_PDF, "x.pdf", UnreadablePdf, "damaged"),
        (b"no PDF at all", "x.pdf", UnreadablePdf, "damaged"),
        (samples.pdf("x", password="secret"), "x.pdf", EncryptedPdf, "password"),
        (samples.zip_of({"a.txt": b"a"}), "x.zip", NestedArchive, "inside an archive"),
        (samples.zip_of({"a.xml": b"a"}), "x.docx", UnsupportedType, "can't be read"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "x.png", UnsupportedType, "can't be read"),
        (b"{\\rtf1 hello}", "x.rtf", UnsupportedType, "can't be read"),
        (bytes(range(128, 256)) * 9, "x.txt", UnreadableText, "UTF-8"),
    ],
)
def test_a_file_without_text_says_why(
    data: bytes, name: str, error: type[IngestError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        read(data, name)


def test_more_text_than_is_taken_is_refused_before_it_is_all_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(formats, "MAX_CHARACTERS", 100)
    sections = iter(["x" * 60, "x" * 60, "unread"])
    with pytest.raises(TextTooLong, match="100 characters"):
        join(sections, Kind.TEXT)
    assert list(sections) == ["unread"]
    with pytest.raises(TextTooLong):
        read(b"x" * 401, "x.txt")


def test_what_postgres_refuses_is_not_in_the_text() -> None:
    assert join(["a\x00b\ud800c\x01"], Kind.TEXT) == "ab\ufffdc"
