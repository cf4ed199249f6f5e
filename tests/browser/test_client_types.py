"""The client's type declarations: a TypeScript compiler holds them against their use and the code.

Deno brings the compiler along, and asks nothing of the network. `tests/types` is what an
application writes, as in the guides; `tests/client/declared.test.ts` looks at what modules have.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from deno import find_deno_bin

TESTS = Path(__file__).parents[1]
STATIC = TESTS.parent / "web" / "static"
ALONE = ["--no-remote", "--no-npm", "--no-lock", "--config", str(TESTS / "types" / "deno.json")]


def _deno(verb: str, *files: Path, kept: Path) -> subprocess.CompletedProcess[str]:
    """Runs deno, with what it keeps in a folder of its own."""
    own = {"DENO_DIR": str(kept), "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"}
    return subprocess.run(
        [find_deno_bin(), verb, *ALONE, *map(str, files)],
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_what_an_application_writes_compiles_and_its_faults_do_not(tmp_path: Path) -> None:
    written = sorted((TESTS / "types").glob("*.ts"))
    ran = _deno("check", *written, *STATIC.glob("*.d.ts"), kept=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr.count("Check ") >= len(written) > 0


def test_the_types_declare_what_the_modules_have_and_read(tmp_path: Path) -> None:
    ran = _deno("test", TESTS / "client" / "declared.test.ts", kept=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "5 passed" in ran.stdout, ran.stdout
