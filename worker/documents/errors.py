"""Why a file could not be taken: a code for programs, a sentence for the user who sent it."""

from __future__ import annotations

from worker.ingest import IngestError


class UnsupportedType(IngestError):
    """Files of this kind can't be read: text, Markdown, HTML, PDF, zip and tar can."""

    code = "unsupported_type"


class EmptyFile(IngestError):
    """This file has no text."""

    code = "empty"


class UnreadableText(IngestError):
    """This text is in an encoding that could not be made out. Save it as UTF-8."""

    code = "unreadable_text"


class UnreadablePdf(IngestError):
    """This PDF is damaged and can't be opened."""

    code = "unreadable_pdf"


class EncryptedPdf(IngestError):
    """This PDF is protected by a password. Remove the password and upload it again."""

    code = "encrypted_pdf"


class UnreadableFile(IngestError):
    """This file could not be read. It may be damaged."""

    code = "unreadable_file"


class TextTooLong(IngestError):
    """This file holds more text than is taken."""

    code = "text_too_long"


class TookTooLong(IngestError):
    """Reading this file took too long and was stopped."""

    code = "took_too_long"


class FileGone(IngestError):
    """The uploaded file is no longer here. Please upload it again."""

    code = "file_gone"


class FileTooLarge(IngestError):
    """This file is larger than is taken from an archive."""

    code = "file_too_large"


class EncryptedFile(IngestError):
    """This file is protected by a password. Pack it without one."""

    code = "encrypted_file"


class NestedArchive(IngestError):
    """An archive inside an archive is not unpacked. Upload it by itself."""

    code = "nested_archive"


class UnreadableArchive(IngestError):
    """This archive is damaged and can't be unpacked."""

    code = "unreadable_archive"


class DamagedFile(IngestError):
    """This file is damaged inside its archive."""

    code = "unreadable_archive"


class EmptyArchive(IngestError):
    """This archive holds no files."""

    code = "empty_archive"


class TooManyFiles(IngestError):
    """This archive holds more files than are taken."""

    code = "too_many_files"


class ArchiveTooLarge(IngestError):
    """This archive is larger than is taken when it is unpacked."""

    code = "archive_too_large"


class NoFileSurvived(IngestError):
    """None of the files could be read."""

    code = "no_file_survived"
