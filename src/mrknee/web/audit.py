"""The audit log: one line of JSON per exam that was asked about, without its pixels.

A line is on the disk before its answer is sent. The file is opened for each line, so that
logrotate may rename it at any time.
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
from mrknee.untrusted import refuse_unusual

_BEGINNING = b'{"time": '  # of every line: what doesn't begin so is another program's file


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class Record:
    """One line.

    Attributes:
        request_id: as in the answer's header.
        path: /predict or /explain.
        model_digest: of the model, as in the answer's header.
        mrknee: the program's version.
        time: when the request came, UTC.
        status: the HTTP status; 499 where the client went away before the answer.
        fault: what was wrong, or None.
        input: by series, the SHA-256 of the file as it came; empty where no exam could be read.
        result: by finding, the probability; empty where there is none.
        remarks: codes of what is unusual about the exam.
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
        """The record as JSON, the time first."""
        content: dict[str, Any] = asdict(self)
        return json.dumps({"time": content.pop("time"), **content}).encode() + b"\n"


class AuditLog:
    """A file that lines are appended to.

    Args:
        path: the file; made, for its owner only, where it isn't there.

    Raises:
        MrkneeError: it is no regular file, or holds something other than an audit log.
        OSError: it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._append(b"")

    def write(self, record: Record) -> None:
        """Appends a record; it is on the disk when this returns.

        Raises:
            MrkneeError: something else has taken the file's place, or the file can't be written.
            OSError: the disk is full; nothing of the record stays.
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
                advice="the service's standard error says which file",
            ) from error

    def _append(self, line: bytes) -> None:
        new = not self._path.exists()
        if not new:
            refuse_unusual(self._path, "audit log")
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        file = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # several services may share it
            size = os.fstat(file).st_size
            if size and os.pread(file, len(_BEGINNING), 0) != _BEGINNING:
                raise OutputError(
                    "the audit log's file holds something else",
                    code="audit-log",
                    file=self._path,
                    expected="a new or empty file, or an audit log of mrknee serve",
                    advice="choose another --audit-log",
                )
            if size and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line  # the last line was cut, by a power loss
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
