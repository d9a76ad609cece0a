"""Readers' notes: what a person thinks of a result, in an SQLite file.

A note that was acknowledged survives a crash of the service and a loss of power: the file is in WAL
mode, and each change is synced to the disk (`synchronous=FULL`).
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from mrknee.errors import OutputError, PlatformError
from mrknee.exams.ids import FORMULA
from mrknee.server.refusal import RefusalError, busy
from mrknee.server.worklist import Entry
from mrknee.untrusted import require_regular_file

APPLICATION_ID = 0x6D726B6E
"""Identifies the file as one of mrknee's (SQLite's `application_id`)."""

MIGRATIONS = (
    """
    CREATE TABLE notes (
        exam TEXT NOT NULL, finding TEXT NOT NULL, data_set TEXT NOT NULL, split TEXT,
        id TEXT NOT NULL, agree INTEGER, comment TEXT NOT NULL, series TEXT, slice INTEGER,
        changed TEXT NOT NULL, model_digest TEXT NOT NULL, PRIMARY KEY (exam, finding)
    )
    """,
)
"""Statements that bring the file from each version (SQLite's `user_version`) to the next."""

COLUMNS = (
    *("exam", "data_set", "split", "id", "finding", "agree", "comment", "series", "slice"),
    *("changed", "model_digest"),
)

BUSY_SECONDS = 5.0
"""Time to wait for another process that writes to the file."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Note:
    """What a reader noted about one finding of an exam.

    Attributes:
        agree: whether the reader agrees with the model; None: not stated.
        comment: any text; empty: none.
        series: series of the marked slice, or None.
        slice: index of the marked slice, from 0, or None.
        changed: time of the last change, UTC; None if there is no note.
    """

    agree: bool | None = None
    comment: str = ""
    series: str | None = None
    slice: int | None = None
    changed: str | None = None


@dataclass(frozen=True)
class Counts:
    """Numbers of findings of an exam with a note.

    Attributes:
        agree: with agreement.
        disagree: with disagreement.
        comments: with a comment.
    """

    agree: int
    disagree: int
    comments: int


class Notes:
    """The notes in a file; used from one event loop.

    Args:
        path: the file; created, readable by its owner only, if it does not exist.
        model_digest: digest of the model whose results the readers see.

    Raises:
        MrkneeError: the file is not a file of notes, is from a later version, or can't be written.
    """

    def __init__(self, path: Path, model_digest: str) -> None:
        self._path, self._digest = path, model_digest
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="notes")
        if path.exists():
            require_regular_file(path, "file of notes")
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._file = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._migrate()
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")
        except (OSError, sqlite3.Error) as error:
            raise OutputError(
                "the file of notes can't be used",
                code="notes",
                file=path,
                expected="a new file, or one that mrknee serve has written",
                found=getattr(error, "strerror", None) or str(error),
                advice="choose another file for --notes",
            ) from None

    def _migrate(self) -> None:
        (version,) = self._file.execute("PRAGMA user_version").fetchone()
        (owner,) = self._file.execute("PRAGMA application_id").fetchone()
        (tables,) = self._file.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if (tables and owner != APPLICATION_ID) or version > len(MIGRATIONS):
            raise OutputError(
                "the file is not a file of notes that this version can use",
                code="notes",
                file=self._path,
                expected=f"a new file, or notes of version {len(MIGRATIONS)} or earlier",
                found=f"notes of version {version}" if owner == APPLICATION_ID else "another file",
                advice="choose another file for --notes, or use a later version of mrknee",
            )
        for number in range(version, len(MIGRATIONS)):
            with self._transaction():
                self._file.execute(MIGRATIONS[number])
                self._file.execute(f"PRAGMA user_version = {number + 1}")
                self._file.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._file.execute("ROLLBACK")
            raise
        self._file.execute("COMMIT")

    async def get(self, entry: Entry, finding: str) -> Note:
        """Returns the note about a finding of an exam; without content if there is none."""
        return await self._run(partial(self._get, entry.key, finding))

    async def put(self, entry: Entry, finding: str, note: Note) -> Note:
        """Stores a note; it is on the disk when this method returns.

        A note without content removes the stored one.

        Returns:
            The stored note, with the time.

        Raises:
            RefusalError: the disk is full, or another process writes to the file.
        """
        return await self._run(partial(self._put, entry, finding, note))

    async def counts(self, keys: Sequence[str]) -> dict[str, Counts]:
        """Counts the notes of exams: key -> counts, for those that have notes."""
        return await self._run(partial(self._counts, keys))

    async def csv(self) -> str:
        """Returns all notes as CSV.

        Text that a spreadsheet would take for a formula begins with an apostrophe.
        """
        return await self._run(self._csv)

    def close(self) -> None:
        """Ends the thread and closes the file."""
        self._thread.shutdown()
        self._file.close()

    async def _run(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.OperationalError as error:
            raise _refusal(error) from error

    def _get(self, key: str, finding: str) -> Note:
        row = self._file.execute(
            "SELECT agree, comment, series, slice, changed FROM notes "
            "WHERE exam = ? AND finding = ?",
            (key, finding),
        ).fetchone()
        if row is None:
            return Note()
        agree, comment, series, index, changed = row
        return Note(None if agree is None else bool(agree), comment, series, index, changed)

    def _put(self, entry: Entry, finding: str, note: Note) -> Note:
        if (note.agree, note.comment, note.series) == (None, "", None):
            self._file.execute(
                "DELETE FROM notes WHERE exam = ? AND finding = ?", (entry.key, finding)
            )
            return Note()
        self._file.execute(
            "INSERT OR REPLACE INTO notes (exam, finding, data_set, split, id, agree, comment, "
            "series, slice, changed, model_digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(entry.key, finding, entry.data_set, entry.split, entry.id),
                *(note.agree, note.comment, note.series, note.slice),
                *(datetime.now(UTC).isoformat(timespec="microseconds"), self._digest),
            ),
        )
        return self._get(entry.key, finding)

    def _counts(self, keys: Sequence[str]) -> dict[str, Counts]:
        rows = self._file.execute(
            "SELECT exam, SUM(agree IS 1), SUM(agree IS 0), SUM(comment <> '') FROM notes "
            "WHERE exam IN (SELECT value FROM json_each(?)) GROUP BY exam",
            (json.dumps(keys),),
        )
        return {key: Counts(*numbers) for key, *numbers in rows}

    def _csv(self) -> str:
        rows = self._file.execute(
            "SELECT exam, data_set, split, id, finding, agree, comment, series, slice, changed, "
            "model_digest FROM notes ORDER BY exam, finding"
        )
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        for row in rows:
            table.writerow([_cell(value) for value in row])
        return text.getvalue()


def _cell(value: str | int | None) -> str | int | None:
    """Returns a value that no spreadsheet takes for a formula."""
    if isinstance(value, str) and value.lstrip()[:1] in (*FORMULA, "\t", "\r") and value.strip():
        return "'" + value
    return value


def _refusal(error: sqlite3.OperationalError) -> RefusalError:
    if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        fault = PlatformError(
            "there is no disk space left for the note",
            code="no-space",
            found="a full disk",
            advice="free disk space for the file given to --notes",
        )
        return RefusalError(507, fault)
    if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return busy("another process writes to the file of notes", "one writer", int(BUSY_SECONDS))
    fault = PlatformError("the note can't be written", code="notes", found=error.sqlite_errorname)
    return RefusalError(500, fault)
