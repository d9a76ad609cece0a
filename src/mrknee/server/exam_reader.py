"""Reads the exams of the work list, and serves their stacks by content hash.

Reading and compressing run in threads; everything else in the event loop.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mrknee.errors import MrkneeError, RequestError
from mrknee.exams import Stack, read_exam
from mrknee.exams.axes import Axes, refuse_other_axes, shape_in_order, shape_of
from mrknee.exams.lesions import mask_file, masks_folder, read_mask
from mrknee.exams.stackfile import read_shape
from mrknee.server.geometry import SeriesGeometry, geometry_of, read_records
from mrknee.server.lru import LeastRecentlyUsed
from mrknee.server.read_exam import ReadExam, Signature, with_digests
from mrknee.server.refusal import RefusalError, busy
from mrknee.server.request_queue import RETRY_SECONDS
from mrknee.server.uploads import refuse_large
from mrknee.server.worklist import Entry, Source, WorkList

KEPT_EXAM_BYTES, KEPT_PACKED_BYTES = 256_000_000, 128_000_000
"""Memory for exams that have been read, and for compressed answers."""

READING_THREADS, MAX_READING = 2, 64
"""Threads that read and compress, and the maximum number of requests that wait for them."""

Result = TypeVar("Result")


class ExamReader:
    """Reads exams, stacks and masks, and keeps what was used last.

    Args:
        work_list: the exams that may be read.
        axes: the order of axes that the user gave.
    """

    def __init__(self, work_list: WorkList, axes: Axes | None) -> None:
        self._work_list, self._axes = work_list, axes
        self._threads = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="files")
        self._pending = 0
        self._exams = LeastRecentlyUsed[ReadExam](KEPT_EXAM_BYTES, lambda read: read.size)
        self._packed = LeastRecentlyUsed[bytes](KEPT_PACKED_BYTES, len)
        self._stacks: dict[str, tuple[str, str]] = {}  # hash -> key of the exam, series
        self._records: dict[Source, Mapping[str, Any]] = {}

    async def run(self, work: Callable[[], Result]) -> Result:
        """Runs work that reads or compresses in a thread.

        Raises:
            RefusalError: too many requests wait.
        """
        if self._pending >= MAX_READING:
            expected = f"at most {MAX_READING} requests that wait for files"
            raise busy("too many files are being read", expected, RETRY_SECONDS)
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._pending -= 1

    async def read(self, entry: Entry, *, keep: bool = True) -> ReadExam:
        """Reads an exam, or returns it from the cache if its files haven't changed.

        Args:
            entry: the exam.
            keep: whether to keep it in the cache.

        Raises:
            RefusalError: its files can't be used, or it is too large.
        """
        found = self._exams.get(entry.key)
        if entry.uploaded is not None:
            found = entry.uploaded.read
            keep = False
        elif found is None or found.signature != _signature(entry):
            found = await self.run(partial(read_entry, entry, self._axes))
        if keep:
            self._exams.put(entry.key, found)
        for name, digest in found.digests.items():
            self._stacks.setdefault(digest, (entry.key, name))
        return found

    async def stack(self, digest: str) -> Stack:
        """Returns the stack with a hash.

        Raises:
            RefusalError: no exam that has been opened has such a stack, or its file was changed.
        """
        key, name = self._stacks.get(digest, ("", ""))
        entry = self._work_list.entries.get(key)
        if entry is not None:
            read = await self.read(entry)
            if read.digests.get(name) == digest:
                return read.exam.stacks[name]
            self._stacks.pop(digest, None)
        raise not_found("no exam has a stack with this hash", "a sha256 of GET /api/v1/exams/{key}")

    async def packed(self, name: str, content: Callable[[], bytes]) -> bytes:
        """Returns content compressed with gzip, from the cache if possible.

        Args:
            name: identifies the content.
            content: returns the content, in a thread.
        """
        found = self._packed.get(name)
        if found is None:
            found = await self.run(lambda: pack(content()))
            self._packed.put(name, found)
        return found

    async def masks(self, entry: Entry) -> Mapping[str, tuple[str, ...]]:
        """Returns, for each series of an exam, the findings that it has a mask of."""
        return await self.run(partial(_masks_of, entry))

    async def mask(self, entry: Entry, series: str, finding: str) -> Stack:
        """Reads a mask.

        Returns:
            1 in the lesion, else 0, in the shape of the stack.

        Raises:
            RefusalError: there is no such mask, or it can't be used.
        """
        if finding not in (await self.masks(entry)).get(series, ()):
            raise not_found("the exam has no such mask", "a series and a finding of its `masks`")
        assert entry.source is not None  # noqa: S101 - uploads have no masks
        exams, shape = entry.source.exams, (await self.read(entry)).exam.stacks[series].shape

        def read() -> Stack:
            try:
                return read_mask(exams, finding, series, entry.id, shape).astype(np.uint8)
            except MrkneeError as fault:
                raise RefusalError(422, fault) from None

        return await self.run(read)

    async def geometry(self, entry: Entry, read: ReadExam) -> Mapping[str, SeriesGeometry]:
        """Returns what is known of distances, directions and positions: series -> geometry.

        Args:
            entry: the exam.
            read: its stacks.
        """
        if entry.uploaded is not None:
            return entry.uploaded.geometry
        source = entry.source
        if source is None:
            return {}
        if source not in self._records:
            self._records[source] = await self.run(partial(read_records, source.exams.root))
        shapes = {name: shape_of(stack) for name, stack in read.exam.stacks.items()}
        record = self._records[source].get(entry.id)
        if not isinstance(record, dict) or record.get("split") != source.exams.split:
            return {}  # `mrknee import` writes no splits, `mrknee rsna` does
        return geometry_of(record, entry.declared, shapes)

    def forget(self, entry: Entry) -> None:
        """Drops an exam that was removed from the work list."""
        self._exams.remove(entry.key)
        read = None if entry.uploaded is None else entry.uploaded.read
        for digest in () if read is None else read.digests.values():
            if self._stacks.get(digest, ("", ""))[0] == entry.key:
                del self._stacks[digest]


def read_entry(entry: Entry, axes: Axes | None) -> ReadExam:
    """Reads an exam of a data set and checks its size.

    Args:
        entry: the exam; not an upload.
        axes: the order of axes that the user gave.

    Raises:
        RefusalError: its files can't be used, or it is too large.
    """
    assert entry.source is not None  # noqa: S101 - for the type checker
    exams = entry.source.exams
    signature = _signature(entry)
    try:
        files = {name: Path(file) for name, file in entry.files.items()}
        shapes = {
            name: shape_in_order(read_shape(file, entry.id), exams.axes)
            for name, file in files.items()
        }
        refuse_large(shapes)
        refuse_other_axes(
            {name: [shape] for name, shape in shapes.items()}, exam=entry.id, given=axes
        )
        labels = {name: label for name, label in (entry.labels or {}).items() if label is not None}
        exam = read_exam(files, entry.id, axes=exams.axes, labels=labels, series=exams.series)
    except MrkneeError as fault:
        raise RefusalError(422, fault) from None
    return with_digests(exam, signature)


def pack(content: bytes) -> bytes:
    """Compresses content with gzip, with runs of equal bytes and Huffman codes only.

    On slices of a knee, this is three times as fast as level 1 and saves as much (16 % of a
    synthetic stack), because their noise has no longer repetitions.
    """
    packing = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16, strategy=zlib.Z_RLE)
    return packing.compress(content) + packing.flush()


def not_found(what: str, expected: str) -> RefusalError:
    """Returns a 404 refusal.

    Args:
        what: what was not found.
        expected: what exists.
    """
    return RefusalError(404, RequestError(what, code="not-found", expected=expected))


def _signature(entry: Entry) -> Signature:
    found = []
    for name, file in entry.files.items():
        with suppress(OSError):  # reported when the file is read
            stat = Path(file).stat()
            found.append((name, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def _masks_of(entry: Entry) -> Mapping[str, tuple[str, ...]]:
    if entry.source is None:
        return {}
    exams = entry.source.exams
    folder = masks_folder(exams)
    findings = sorted(one.name for one in folder.iterdir()) if folder.is_dir() else []
    return {
        name: tuple(f for f in findings if mask_file(exams, f, name, entry.id).is_file())
        for name in entry.series
    }
