"""The size of the client in an application that bundles it: esbuild's, gzipped."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from minifyjs import bundle

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "web" / "static" / "eventstream.js"
GUIDE = ROOT / "docs" / "how-to" / "use-the-client.md"
LIMIT_KB = 6
SAID = re.compile(r"gzipped it has ([\d.]+) KB, and at\s+most 6\.")


@pytest.fixture(scope="module")
def size_kb(tmp_path_factory: pytest.TempPathFactory) -> float:
    made = tmp_path_factory.mktemp("minified") / CLIENT.name
    bundle([str(CLIENT)], outfile=str(made), format="esm")
    return len(gzip.compress(made.read_bytes(), compresslevel=9)) / 1000


def test_the_client_is_no_larger_than_was_promised(size_kb: float) -> None:
    assert 1 < size_kb <= LIMIT_KB


def test_the_guide_names_the_size_of_the_client(size_kb: float) -> None:
    said = SAID.search(GUIDE.read_text())
    assert said, f"{GUIDE.name} does not say what it has, or not what it has at most"
    assert size_kb == pytest.approx(float(said[1]), abs=0.1)
