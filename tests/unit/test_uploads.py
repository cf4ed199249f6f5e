"""What the demo uploads, and how it counts what became of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worker.cli.ingestion import Tally
from worker.cli.uploads import NothingToUpload, default_uploads, upload_of


def test_a_file_is_one_source(tmp_path: Path) -> None:
    file = tmp_path / "guide.md"
    file.write_text("text")
    upload = upload_of(file)
    assert (upload.name, upload.root, list(upload.files)) == ("guide.md", tmp_path, [file])


def test_a_folder_is_one_source_of_all_its_files(tmp_path: Path) -> None:
    names = ("a.md", "deep/b.txt", ".hidden", ".git/config", "empty.md")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if "empty" in name else "text")
    upload = upload_of(tmp_path)
    assert upload.name == tmp_path.name
    assert [str(f.relative_to(upload.root)) for f in upload.files] == ["a.md", "deep/b.txt"]


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NothingToUpload, match="none does not exist"):
        upload_of(tmp_path / "none")


def test_a_folder_without_files_is_said(tmp_path: Path) -> None:
    with pytest.raises(NothingToUpload, match="holds no file"):
        upload_of(tmp_path)


def test_by_default_it_is_this_projects_documentation() -> None:
    assert default_uploads()


def ended(kind: str, run_id: str) -> str:
    error = {"code": "broken", "message": "The file is damaged.", "retryable": False}
    payload = {"run_id": run_id, "name": "guide.pdf", "error": error}
    return json.dumps({"type": f"source.ingest.{kind}", "payload": payload})


def test_an_end_may_be_learned_before_the_upload_is_answered() -> None:
    tally = Tally(2)
    tally.count(ended("completed", "r1"))
    tally.accept("r1")
    assert not tally.is_done()
    tally.accept("r2")
    assert not tally.is_done()
    tally.count(ended("failed", "r2"))
    assert tally.is_done()
    assert tally.summary(1.5) == "2 sources: 1 completed, 1 failed; 2 events in 1.5 s"
    assert tally.sentences == ["guide.pdf: The file is damaged."]


def test_a_refused_upload_is_a_failed_one_and_other_runs_count_for_nothing() -> None:
    tally = Tally(1)
    tally.count(ended("completed", "of somebody else"))
    tally.refused.append("too large")
    assert tally.is_done()
    assert tally.completed == 0


def test_an_end_that_is_said_once_more_is_counted_once() -> None:
    tally = Tally(1)
    tally.accept("r1")
    error = {"code": "broken", "message": "It is broken.", "retryable": False}
    payload = {"run_id": "r1", "name": "a", "error": error}
    for repeated in ({}, {"repeated": True}):
        tally.count(
            json.dumps({"type": "source.ingest.failed", "payload": {**payload, **repeated}})
        )
    assert tally.is_done()
    assert tally.sentences == ["a: It is broken."]
    assert tally.summary(1.0) == "1 source: 0 completed, 1 failed; 2 events in 1.0 s"
