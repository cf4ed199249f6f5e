"""Archives give their files and nothing else, whatever they claim."""

from __future__ import annotations

import gzip
import io
import zipfile

import pytest

from tests import samples
from worker.documents.archives import members
from worker.documents.errors import (
    ArchiveTooLarge,
    DamagedFile,
    EmptyArchive,
    EncryptedFile,
    TooManyFiles,
    UnreadableArchive,
    UnsupportedType,
)
from worker.documents.kinds import Kind, kind_of
from worker.documents.members import Limits
from worker.ingest import IngestError

FILES = {"a.txt": b"first", "folder/b.md": b"second" * 1000}
PACKED = [
    pytest.param(samples.zip_of(FILES), "x.zip", id="zip"),
    pytest.param(samples.tar_of(FILES), "x.tar", id="tar"),
    pytest.param(samples.tar_gz_of(FILES), "x.tar.gz", id="tar.gz"),
]


def unpack(data: bytes, name: str = "x.bin", limits: Limits | None = None) -> dict[str, bytes]:
    file = io.BytesIO(data)
    kind = kind_of(file, name)
    found = {}
    for member in members(file, name, kind, limits):
        found[member.name] = b""
        while part := member.stream.read(1000):
            found[member.name] += part
    return found


@pytest.mark.parametrize(("data", "name"), PACKED)
def test_files_come_out_and_folders_and_links_do_not(data: bytes, name: str) -> None:
    assert unpack(data, name) == FILES
    assert unpack(data, "no-known-ending") == FILES


def test_a_lone_gzipped_file_is_unpacked() -> None:
    assert unpack(gzip.compress(b"line\n"), "access.log.gz") == {"access.log": b"line\n"}


def test_names_are_labels_and_junk_is_left_out() -> None:
    names = [
        "../../etc/passwd",
        "/abs/x",
        "c:\\dir\\y",
        "__MACOSX/a",
        "b/.DS_Store",
        "._c",
        "数.txt",
    ]
    found = unpack(samples.zip_of({name: b"x" for name in names}))
    assert list(found) == ["etc/passwd", "abs/x", "c:/dir/y", "数.txt"]


def test_names_in_utf8_are_read_where_the_archive_does_not_say_so() -> None:
    assert list(unpack(samples.unflagged_zip("数.txt", b"x"))) == ["数.txt"]


@pytest.mark.parametrize(("data", "name"), PACKED)
def test_too_many_files_are_refused(data: bytes, name: str) -> None:
    with pytest.raises(TooManyFiles, match="more than 1 files"):
        unpack(data, name, Limits(files=1))


def test_a_directory_of_a_million_names_is_refused_before_it_is_read() -> None:
    data = samples.zip_of({f"{n}/": b"" for n in range(50)})
    with pytest.raises(TooManyFiles):
        unpack(data, limits=Limits(files=4))


@pytest.mark.parametrize("pack", [samples.zip_of, samples.tar_gz_of, samples.tar_of])
def test_bytes_are_counted_as_they_come_out(pack: type) -> None:
    bomb = pack({"a": b"\0" * 300_000, "b": b"\0" * 300_000})
    with pytest.raises(ArchiveTooLarge):
        unpack(bomb, limits=Limits(files=2, total_bytes=500_000))


def test_a_size_in_a_header_that_lies_does_not_help() -> None:
    data = bytearray(samples.zip_of({"a": b"\0" * 300_000}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises((ArchiveTooLarge, DamagedFile)):
        unpack(bytes(data), limits=Limits(total_bytes=100))


def test_members_that_are_skipped_count_in_a_gzipped_tar() -> None:
    data = samples.tar_gz_of({"a": b"\0" * 300_000, "b": b"x"})
    limits = Limits(files=1, total_bytes=100_000)
    with pytest.raises(ArchiveTooLarge):
        list(members(io.BytesIO(data), "x.tgz", Kind.TAR, limits))


def test_a_member_with_a_password_says_so() -> None:
    with pytest.raises(EncryptedFile, match="password"):
        unpack(samples.encrypted_zip("a.txt", b"x"))


def test_a_damaged_member_is_its_own_fault() -> None:
    data = samples.zip_of({"a": b"x" * 100, "b": b"whole"}, zipfile.ZIP_STORED)
    file = io.BytesIO(data.replace(b"xxxx", b"yyyy", 1))
    found = members(file, "x.zip", Kind.ZIP)
    with pytest.raises(DamagedFile):
        next(found).stream.read(1000)
    assert next(found).stream.read(1000) == b"whole"


@pytest.mark.parametrize(
    ("data", "name", "error"),
    [
        (b"PK\x03\x04 and then nothing", "x.zip", UnreadableArchive),
        (b"words", "x.zip", UnreadableArchive),
        (b"words", "x.tar", UnreadableArchive),
        (b"\x1f\x8bgarbage", "x.tgz", UnreadableArchive),
        (samples.tar_gz_of(FILES)[:150], "x.tgz", UnreadableArchive),
        (samples.tar_of(FILES)[:2600], "x.tar", UnreadableArchive),
        (samples.zip_of({}), "x.zip", EmptyArchive),
        (samples.zip_of({"__MACOSX/x": b""}), "x.zip", EmptyArchive),
        (samples.tar_of({}), "x.tar", EmptyArchive),
        (
            samples.zip_of({"[Content_Types].xml": b"", "word/document.xml": b""}),
            "x",
            UnsupportedType,
        ),
    ],
)
def test_what_is_no_good_archive_says_why(data: bytes, name: str, error: type[IngestError]) -> None:
    with pytest.raises(error):
        unpack(data, name)


def test_a_damaged_header_is_not_taken_for_the_end() -> None:
    data = bytearray(samples.tar_of({"a": b"x", "b": b"y"}))
    at = data.index(b"b\0\0\0\0")
    data[at : at + 4] = b"????"
    found = members(io.BytesIO(bytes(data)), "x.tar", Kind.TAR)
    assert next(found).name == "a"
    with pytest.raises(UnreadableArchive):
        next(found)
