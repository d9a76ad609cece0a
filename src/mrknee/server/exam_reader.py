"""Reads the exams of the work list, and serves their stacks by content hash.

Reading and compressing run in threads; everything else in the event loop.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mrknee.errors import MrkneeError, RequestError
from mrknee.exams import Exam, Stack, read_exam
from mrknee.exams.axes import Axes, refuse_other_axes, shape_in_order
from mrknee.exams.lesions import mask_file, masks_folder, read_mask
from mrknee.exams.stackfile import read_shape
from mrknee.server.lru import LeastRecentlyUsed
from mrknee.server.refusal import RefusalError, busy
from mrknee.server.request_queue import RETRY_SECONDS
from mrknee.server.uploads import refuse_large
from mrknee.server.worklist import Entry, Source, WorkList
from mrknee.untrusted import read_json

KEPT_EXAM_BYTES, KEPT_PACKED_BYTES = 256_000_000, 128_000_000
"""Memory for exams that have been read, and for compressed answers."""

READING_THREADS, MAX_READING = 2, 64
"""Threads that read and compress, and the maximum number of requests that wait for them."""

_RECORD_BYTES = 64_000_000  # of import.json; its tables of candidates have about 5 kB per exam

Result = TypeVar("Result")
Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class ReadExam:
    """An exam and the hashes of its stacks.

    Attributes:
        exam: the exam.
        digests: series -> SHA-256 of the stack, see `stack_digest`.
        signature: sizes and times of the files that it was read from.
    """

    exam: Exam
    digests: Mapping[str, str]
    signature: Signature = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the names and hashes of all stacks."""
        lines = "".join(f"{name} {digest}\n" for name, digest in self.digests.items())
        return sha256(lines.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all stacks."""
        return sum(stack.nbytes for stack in self.exam.stacks.values())


@dataclass(frozen=True)
class SeriesGeometry:
    """What `import.json` of a data set states about a series.

    Attributes:
        spacing: distance in mm of slices, rows and columns.
        edges: letters of the directions at the left, right, top and bottom edge.
    """

    spacing: tuple[float, float, float] | None = None
    edges: tuple[str, str, str, str] | None = None


def stack_digest(stack: Stack) -> str:
    """Returns the SHA-256 of a stack: of its shape as `34 256 256` and a line break, and its bytes.

    Args:
        stack: the stack.
    """
    digest = sha256(" ".join(map(str, stack.shape)).encode() + b"\n")
    digest.update(np.ascontiguousarray(stack).data)
    return digest.hexdigest()


def with_digests(exam: Exam, signature: Signature = ()) -> ReadExam:
    """Computes the hashes of an exam's stacks."""
    return ReadExam(exam, {n: stack_digest(s) for n, s in exam.stacks.items()}, signature)


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
        self._geometry: dict[Source, Mapping[str, Any]] = {}

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
            if found is None or found.exam is not entry.uploaded:
                found = await self.run(partial(with_digests, entry.uploaded))
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

    async def geometry(self, entry: Entry, series: str, shape: tuple[int, ...]) -> SeriesGeometry:
        """Returns what the data set's `import.json` states about a series of an exam.

        Args:
            entry: the exam.
            series: the series.
            shape: shape of its stack, which must be the one that the import wrote.
        """
        source = entry.source
        if source is None or source.exams.split is not None:
            return SeriesGeometry()
        if source not in self._geometry:
            self._geometry[source] = await self.run(partial(_import_record, source.exams.root))
        record = self._geometry[source].get(entry.id)
        plane = str(entry.declared.planes[series])
        return _series_geometry(record, series, plane, shape)


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


def _import_record(root: Path) -> Mapping[str, Any]:
    """Returns the entry `exams` of a data set's `import.json`; empty if there is none."""
    try:
        content = read_json(root / "import.json", "record of an import", at_most=_RECORD_BYTES)
    except MrkneeError:  # not written by `mrknee import`
        return {}
    exams = content.get("exams") if isinstance(content, dict) else None
    return exams if isinstance(exams, dict) else {}


_EDGES: Mapping[str, tuple[str, str, str, str]] = {
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}
"""Plane -> directions at the left, right, top and bottom edge after `mrknee import`
(docs/reference/import-rules.md, Orientation)."""


def _series_geometry(
    record: object, series: str, plane: str, shape: tuple[int, ...]
) -> SeriesGeometry:
    planes = record.get("planes") if isinstance(record, dict) else None
    one = planes.get(series) if isinstance(planes, dict) else None
    if not isinstance(record, dict) or not isinstance(one, dict):
        return SeriesGeometry()
    if (one.get("slices"), one.get("size"), one.get("size")) != shape:
        return SeriesGeometry()  # the stack was replaced
    left, right, top, bottom = _EDGES[plane]
    if record.get("mirrored") is True and left == "R":
        left, right = right, left
    pixel, between = one.get("pixel_mm"), one.get("spacing_mm")
    spacing = None
    if isinstance(pixel, int | float) and isinstance(between, int | float):
        spacing = (float(between), float(pixel), float(pixel))
    return SeriesGeometry(spacing, (left, right, top, bottom))
