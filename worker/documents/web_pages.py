"""HTML to Markdown: headings, lists and tables stay; scripts, styles and addresses go."""

from __future__ import annotations

import re

from bs4 import BeautifulSoup
from markdownify import MarkdownConverter

from worker.documents.errors import TextTooLong

MAX_HTML_BYTES = 5 * 1024 * 1024  # its tree takes some thirty times as much memory

_INVISIBLE = ["head", "title", "script", "style", "template", "noscript", "svg", "iframe", "object"]
_XML_DECLARATION = re.compile(rb"^\s*<\?xml[^>]*\?>")  # read as HTML all the same


def to_markdown(data: bytes) -> str:
    """Returns a page as Markdown, its title as the first heading.

    Raises:
        TextTooLong: it has more than `MAX_HTML_BYTES`.
    """
    if len(data) > MAX_HTML_BYTES:
        raise TextTooLong("This page is larger than 5 MB. Split it up, or save it as text.")
    soup = BeautifulSoup(_XML_DECLARATION.sub(b"", data), "html.parser")
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    for element in soup(_INVISIBLE):
        element.decompose()
    for image in soup("img"):
        image.replace_with(str(image.get("alt") or ""))
    return _with_title(title, _markdown(soup))


def _markdown(soup: BeautifulSoup) -> str:
    # Escapes would keep a search for snake_case from finding snake\_case.
    converter = MarkdownConverter(
        heading_style="ATX",
        strip=["a"],
        escape_asterisks=False,
        escape_underscores=False,
        escape_misc=False,
    )
    try:
        markdown: str = converter.convert_soup(soup)
    except RecursionError:  # nested thousands deep: the words without the structure
        markdown = soup.get_text("\n", strip=True)
    return re.sub(r"\n{3,}", "\n\n", markdown).strip()


def _with_title(title: str, markdown: str) -> str:
    if not title or title in markdown.partition("\n")[0]:
        return markdown
    return f"# {title}\n\n{markdown}".strip()
