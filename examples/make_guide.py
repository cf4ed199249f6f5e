"""Makes `guide.pdf` from `guide.md`: `.venv/bin/python examples/make_guide.py`.

The same text gives the same bytes, so that the PDF in the repository changes with its text alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from fpdf import FPDF
from fpdf.enums import XPos, YPos

HERE = Path(__file__).parent
MADE = datetime(2026, 1, 1, tzinfo=UTC)
_BLOCK = re.compile(r"```\n(?P<code>.*?)```|(?P<text>[^\n]+(?:\n(?!\n|```)[^\n]+)*)", re.DOTALL)


class Guide(FPDF):
    """Pages of A5, each with a number at its foot: small pages suit a screen."""

    def __init__(self) -> None:
        super().__init__(format=(148, 210))
        self.set_margins(16, 16)
        self.set_auto_page_break(True, margin=18)
        self.set_creation_date(MADE)
        self.add_page()

    def footer(self) -> None:
        """Writes the page's number."""
        self.set_y(-12)
        self.set_font("Helvetica", size=8)
        self.cell(0, 6, str(self.page_no()), align="C")

    def lines(self, text: str, height: float, indent: float = 0) -> None:
        """Writes lines, and leaves the position at the left of the next."""
        self.set_x(self.l_margin + indent)
        self.multi_cell(0, height, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    def heading(self, text: str, size: int) -> None:
        """Writes a heading that stays with what follows."""
        if self.will_page_break(36):
            self.add_page()
        self.ln(4)
        self.set_font("Helvetica", style="B", size=size)
        self.lines(text, size * 0.5)
        self.ln(2)

    def paragraph(self, text: str) -> None:
        """Writes a paragraph."""
        self.set_font("Helvetica", size=9.5)
        self.lines(text, 4.8)
        self.ln(2)

    def item(self, text: str) -> None:
        """Writes an item of a list."""
        self.set_font("Helvetica", size=9.5)
        self.lines(f"- {text}", 4.8, indent=4)

    def code(self, text: str) -> None:
        """Writes lines as they are."""
        if self.will_page_break(4 * (text.count("\n") + 1)):
            self.add_page()
        self.set_font("Courier", size=7)
        self.lines(text.rstrip("\n"), 3.6, indent=4)
        self.ln(3)


def blocks(markdown: str) -> Iterator[tuple[str, str]]:
    """Yields the parts of a text: what each is, and what it says."""
    for block in _BLOCK.finditer(markdown):
        text = block["text"]
        if text is None:
            yield "code", block["code"]
        elif text.startswith("#"):
            marks, _, title = text.partition(" ")
            yield f"h{len(marks)}", title
        elif text.startswith("- "):
            yield from (("item", line.removeprefix("- ")) for line in text.split("\n"))
            yield "gap", ""
        else:
            yield "paragraph", text


def make(markdown: str) -> bytes:
    """Returns the PDF of a text that uses headings, paragraphs, lists and code blocks."""
    guide = Guide()
    for kind, text in blocks(markdown):
        match kind:
            case "h1":
                guide.set_title(text)
                guide.heading(text, 18)
            case "h2":
                guide.heading(text, 13)
            case "item":
                guide.item(text)
            case "code":
                guide.code(text)
            case "gap":
                guide.ln(2)
            case _:
                guide.paragraph(text)
    return bytes(guide.output())


if __name__ == "__main__":
    (HERE / "guide.pdf").write_bytes(make((HERE / "guide.md").read_text(encoding="utf-8")))
