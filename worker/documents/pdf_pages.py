"""PDF to text, page by page. PDFium is not thread-safe: one caller at a time."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pypdfium2
from pypdfium2.raw import FPDF_ERR_PASSWORD

from worker.documents.errors import EncryptedPdf, UnreadablePdf

_pdfium = threading.RLock()
# PDFium marks a hyphen at the end of a line, where a word goes on in the next.
_HYPHEN = re.compile("[\x02\ufffe\u00ad]\r?\n?")


@contextmanager
def pages(file: IO[bytes]) -> Iterator[tuple[int, Iterator[str]]]:
    """Opens a PDF; yields how many pages it has, and the text of each, read when asked for.

    Raises:
        EncryptedPdf: it takes a password to open.
        UnreadablePdf: it is damaged; when opened, or at the page in question.
    """
    with _pdfium:
        document = _open(file)
    try:
        with _pdfium:
            count = len(document)
        yield count, (_text(document, index) for index in range(count))
    finally:
        with _pdfium:
            document.close()


def _open(file: IO[bytes]) -> pypdfium2.PdfDocument:
    try:
        # From memory: an exception in a callback that reads a file would be lost in C.
        return pypdfium2.PdfDocument(file.read())
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == FPDF_ERR_PASSWORD:
            raise EncryptedPdf from error
        raise UnreadablePdf from error


def _text(document: pypdfium2.PdfDocument, index: int) -> str:
    with _pdfium:
        try:
            page = document[index]
            try:
                text: str = page.get_textpage().get_text_bounded()
            finally:
                page.close()
        except pypdfium2.PdfiumError as error:
            raise UnreadablePdf(f"Page {index + 1} of this PDF is damaged.") from error
    return _HYPHEN.sub("", text).strip()
