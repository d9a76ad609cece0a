"""Audit log: one line of JSON per exam sent to the service, without pixels.

A line is on the disk before the response is sent. The file is opened for each line, so logrotate
may rename it at any time.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mrknee.errors import OutputError
from mrknee.files import FULL_DISK
from mrknee.untrusted import require_regular_file

_BEGINNING = b'{"time": '  # of every line; a file that begins otherwise is not an audit log


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class Record:
    """One line of the audit log.

    Attributes:
        request_id: as in the response headers.
        path: /predict or /explain.
        model_digest: SHA-256 of the model, as in the response headers.
        mrknee: version of mrknee.
        time: time of the request, UTC.
        status: the HTTP status; 499 if the client disconnected before the response.
        fault: the error, or None.
        input: series -> SHA-256 of the uploaded file; empty if no exam could be read.
        result: finding -> probability; empty if there is no answer.
        remarks: codes of the remarks about the exam.
    """

    request_id: str
    path: str
    model_digest: str
    mrknee: str
    time: str = field(default_factory=_now)
    status: int = 0
    fault: str | None = None
    input: Mapping[str, str] = field(default_factory=dict)
    result: Mapping[str, float] = field(default_factory=dict)
    remarks: Sequence[str] = ()

    def line(self) -> bytes:
        """Returns the record as a line of JSON, `time` first."""
        content: dict[str, Any] = asdict(self)
        return json.dumps({"time": content.pop("time"), **content}).encode() + b"\n"


class AuditLog:
    """A file to which records are appended.

    Args:
        path: the file; created, readable by its owner only, if it does not exist.

    Raises:
        MrkneeError: the path is not a regular file, or holds something other than an audit log.
        OSError: the file can't be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._append(b"")

    def write(self, record: Record) -> None:
        """Appends a record; it is on the disk when this method returns.

        Raises:
            MrkneeError: the file was replaced by something else, or can't be written.
            OSError: the disk is full; no part of the record remains in the file.
        """
        try:
            self._append(record.line())
        except OSError as error:
            if error.errno in FULL_DISK:
                raise
            raise OutputError(
                "the audit log can't be written",
                code="audit-log",
                file=self._path,
                found=error.strerror or str(error),
                advice="see the standard error of the service for the path of the file",
            ) from error

    def _append(self, line: bytes) -> None:
        new = not self._path.exists()
        if not new:
            require_regular_file(self._path, "audit log")
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        file = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # several services may share the file
            size = os.fstat(file).st_size
            if size and os.pread(file, len(_BEGINNING), 0) != _BEGINNING:
                raise OutputError(
                    "the file is not an audit log",
                    code="audit-log",
                    file=self._path,
                    expected="a new or empty file, or an audit log of mrknee serve",
                    advice="choose another file for --audit-log",
                )
            if size and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line  # the last line is incomplete, e.g. after a power failure
            try:
                left = memoryview(line)
                while left:
                    left = left[os.write(file, left) :]
                os.fsync(file)
            except OSError:
                os.ftruncate(file, size)
                raise
        finally:
            os.close(file)
        if new:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
