"""Uploads to the work list: files per series, a zip in MRNet's layout, or a zip of DICOM files.

Uploaded exams stay in memory. What is written to the folder for temporary files is removed before
the request is answered.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import BinaryIO, TypeVar, cast

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect

from mrknee.errors import DataError, MrkneeError, RequestError
from mrknee.exams import Exam, ExamSide, Remark, SeriesList, read_exam, read_sides
from mrknee.exams.axes import shape_of
from mrknee.exams.ids import refuse_id
from mrknee.server.arrivals import Arrivals
from mrknee.server.dicom_import import import_archive
from mrknee.server.exam_reader import ExamReader
from mrknee.server.geometry import geometry_of, read_records
from mrknee.server.read_exam import with_digests
from mrknee.server.refusal import RefusalError, busy
from mrknee.server.request_queue import RETRY_SECONDS
from mrknee.server.service import Service
from mrknee.server.uploads import (
    MAX_PIXELS,
    check_head,
    files_of,
    parsed_form,
    read_files,
    refuse_large,
)
from mrknee.server.worklist import Entry, UploadedExam, WorkList
from mrknee.sources.clinical.archives import ZIP_ERRORS, ZipArchive

ARCHIVE = "archive"
"""Field of the form that contains a zip."""

MAX_UPLOADS, MAX_UPLOADED_BYTES = 32, 400_000_000
"""Maximum number of uploaded exams in memory, and of bytes of their stacks; the oldest are dropped.
One upload adds at most as many."""

MAX_IMPORTS, IMPORT_RETRY_SECONDS = 4, 20
"""Maximum number of DICOM archives that are imported or wait, and `Retry-After` of others."""

_MAX_STACK_BYTES = 8 * MAX_PIXELS + 10_000  # float64, and the header

MAX_PROBLEMS = 50
"""Maximum number of problems per answer."""


Result = TypeVar("Result")


@dataclass(frozen=True)
class FileProblem:
    """A part of an upload that can't be used.

    Attributes:
        file: name of the file or of the exam in the upload; None: the complete upload.
        fault: what is wrong.
        field: the series concerned, or None.
    """

    file: str | None
    fault: MrkneeError
    field: str | None = None


@dataclass
class Uploaded:
    """The result of an upload.

    Attributes:
        exams: the exams that can be used.
        problems: what can't be used.
        left_out: number of further problems.
    """

    exams: list[UploadedExam] = field(default_factory=list)
    problems: list[FileProblem] = field(default_factory=list)
    left_out: int = 0

    def add(self, name: str, exam: UploadedExam) -> None:
        """Adds an exam, or a problem if the service doesn't keep as many bytes.

        Args:
            name: its name for the problem.
            exam: the exam.
        """
        if self._bytes + exam.read.size > MAX_UPLOADED_BYTES:
            self.add_problem(FileProblem(name, _too_many()))
        else:
            self.exams.append(exam)

    def add_problem(self, problem: FileProblem) -> None:
        """Adds a problem, up to `MAX_PROBLEMS`."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        else:
            self.left_out += 1

    @property
    def full(self) -> bool:
        """Whether no further exam is read."""
        return len(self.exams) >= MAX_UPLOADS or self._bytes >= MAX_UPLOADED_BYTES

    @property
    def _bytes(self) -> int:
        return sum(one.read.size for one in self.exams)


class ExamUploads:
    """Receives uploads, and keeps the exams of the work list that were uploaded.

    At most `ServiceLimits.max_waiting` uploads that have been received wait or are read; one is
    read at a time.

    Args:
        service: the model, and how files are read.
        work_list: receives the exams.
        reader: reads files in threads.
        arrivals: receives the bodies.
    """

    def __init__(
        self, service: Service, work_list: WorkList, reader: ExamReader, arrivals: Arrivals
    ) -> None:
        self._service, self._work_list, self._reader = service, work_list, reader
        self._arrivals = arrivals
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="uploads")
        self._reading, self._importing = asyncio.Lock(), asyncio.Lock()
        self._received = self._imports = 0

    async def receive(self, request: Request) -> tuple[list[Entry], Uploaded]:
        """Receives an upload and adds its exams to the work list.

        Returns:
            The exams, and the result with its problems.

        Raises:
            RefusalError: no exam of the upload can be used.
            ClientDisconnect: the client disconnected.
        """
        content_type = check_head(request, self._arrivals.limits)
        self._refuse_if_full()
        async with self._arrivals.body(request) as body:
            with self._place(), TemporaryDirectory(prefix="mrknee-") as folder:
                uploaded = await self._read(request, body, content_type, Path(folder))
        if not uploaded.exams:
            raise _nothing_usable(uploaded)
        entries = [self._work_list.add_upload(one) for one in uploaded.exams]
        self._drop_oldest()
        return entries, uploaded

    def _refuse_if_full(self) -> None:
        places = self._arrivals.limits.max_waiting
        if self._received >= places:
            expected = f"at most {places} uploads waiting or being read"
            raise busy("too many uploads are waiting", expected, RETRY_SECONDS)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Counts an upload that has been received completely, until it has been read."""
        self._refuse_if_full()
        self._received += 1
        try:
            yield
        finally:
            self._received -= 1

    def _drop_oldest(self) -> None:
        kept = [one for one in self._work_list.entries.values() if one.uploaded is not None]
        sizes = {one.key: one.uploaded.read.size for one in kept if one.uploaded is not None}
        while len(kept) > MAX_UPLOADS or sum(sizes[one.key] for one in kept) > MAX_UPLOADED_BYTES:
            oldest = kept.pop(0)
            self._work_list.remove(oldest.key)
            self._reader.forget(oldest)

    async def _read(
        self, request: Request, body: BinaryIO, content_type: str, folder: Path
    ) -> Uploaded:
        async with self._reading:
            await _refuse_abandoned(request)
            unpack = partial(self._read_form, body, content_type, folder / "archive.zip")
            uploaded = await self._in_thread(unpack)
        if uploaded is not None:
            return uploaded
        if self._imports >= MAX_IMPORTS:
            expected = f"at most {MAX_IMPORTS} archives that are imported or wait"
            raise busy("too many archives are being imported", expected, IMPORT_RETRY_SECONDS)
        self._imports += 1
        try:
            async with self._importing:
                await _refuse_abandoned(request)
                series, out = self._service.model.series, folder / "exams"
                left = bool(self._service.model.provenance.get("canonical_sides"))
                await import_archive(
                    folder / "archive.zip", out, series, self._arrivals.limits, left=left
                )
                return await self._in_thread(partial(read_imported, out, series))
        finally:
            self._imports -= 1

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _read_form(self, body: BinaryIO, content_type: str, archive: Path) -> Uploaded | None:
        """Reads the exams of a form; returns None for an archive without stacks."""
        series, service = self._service.model.series, self._service
        with parsed_form(body, content_type, len(series) + 1) as form:
            file = _archive_of(form)
            if file is None:
                files = files_of(form, series, service.required_series)
                read = with_digests(read_files(files, series, service.axes).exam)
                # not named after its files: their names may contain a patient's name
                named = replace(read.exam, id=f"{read.exam.id}-{read.digest[:4]}")
                return Uploaded([UploadedExam(replace(read, exam=named))])
            with archive.open("xb") as copy:
                shutil.copyfileobj(file, copy)
        return self._read_archive(archive)

    def _read_archive(self, file: Path) -> Uploaded | None:
        try:
            archive = ZipArchive(file, file.stat().st_size)
        except MrkneeError as fault:
            raise RefusalError(422, fault, field=ARCHIVE) from None
        try:
            if not any(name.lower().endswith(".npy") for name in archive.names):
                return None
            total = sum(archive.size(name) for name in archive.names)
            limits = self._arrivals.limits
            if total > limits.unpacked_bytes:
                too_large = RequestError(
                    "the archive is larger than the service accepts when unpacked",
                    code="too-large",
                    expected=f"at most {limits.unpacked_bytes:,} bytes",
                    found=f"{total:,} bytes",
                )
                raise RefusalError(422, too_large, field=ARCHIVE)
            return self._read_stacks(archive)
        finally:
            archive.close()

    def _read_stacks(self, archive: ZipArchive) -> Uploaded:
        """Reads the exams of an archive in MRNet's layout."""
        series, service = self._service.model.series, self._service
        uploaded = Uploaded()
        exams: dict[tuple[PurePosixPath, str], dict[str, str]] = {}
        for name in archive.names:
            path = PurePosixPath(name.replace("\\", "/"))
            one = series.named(path.parent.name)
            if path.suffix.lower() != ".npy":
                continue
            if one is None:
                uploaded.add_problem(FileProblem(name, _no_series(series)))
            else:
                exams.setdefault((path.parent.parent, path.stem), {})[one.name] = name
        for (folder, exam_id), members in exams.items():
            shown = str(folder / exam_id)
            if uploaded.full:
                uploaded.add_problem(FileProblem(shown, _too_many()))
                continue
            try:
                refuse_id(exam_id)
                _refuse_members(archive, members, service.required_series)
                with _opened(archive, members) as files:
                    exam = read_files(files, series, service.axes, exam_id).exam
                uploaded.add(shown, UploadedExam(with_digests(exam)))
            except RefusalError as refusal:
                uploaded.add_problem(FileProblem(shown, refusal.fault, refusal.field))
            except MrkneeError as fault:
                uploaded.add_problem(FileProblem(shown, fault))
            except ZIP_ERRORS:
                broken = DataError("a member of the zip is damaged", code="archive")
                uploaded.add_problem(FileProblem(shown, broken))
        return uploaded


async def _refuse_abandoned(request: Request) -> None:
    """Raises ClientDisconnect if the client of a received upload has disconnected."""
    if await request.is_disconnected():
        raise ClientDisconnect


def read_imported(out: Path, series: SeriesList) -> Uploaded:
    """Reads the exams that an import wrote, and the reasons why others were refused.

    Args:
        out: the folder of the import.
        series: the series that the exams may have.
    """
    records, sides, uploaded = read_records(out), read_sides(out) or {}, Uploaded()
    for exam_id, record in records.items():
        if not record["imported"]:
            fault = RequestError("a study can't be used", code="import", found=record["reason"])
            uploaded.add_problem(FileProblem(f"study {exam_id}", fault))
        elif uploaded.full:
            uploaded.add_problem(FileProblem(f"study {exam_id}", _too_many()))
        else:
            try:
                texts = [*record["warnings"], *record["incomplete"]]
                exam = _imported_exam(out, exam_id, series, texts)
            except RefusalError as refusal:
                uploaded.add_problem(FileProblem(f"study {exam_id}", refusal.fault))
                continue
            shapes = {name: shape_of(stack) for name, stack in exam.stacks.items()}
            side = sides.get(exam_id, ExamSide(record["side"], mirrored=False))
            geometry = geometry_of(record, series, shapes)
            uploaded.add(f"study {exam_id}", UploadedExam(with_digests(exam), side, geometry))
    return uploaded


def _imported_exam(out: Path, exam_id: str, series: SeriesList, texts: Sequence[str]) -> Exam:
    files = {n: f for n in series.names if (f := out / n / f"{exam_id}.npy").is_file()}
    try:
        exam = read_exam(files, exam_id, series=series)
    except MrkneeError as fault:
        raise RefusalError(422, fault) from None
    refuse_large({name: shape_of(stack) for name, stack in exam.stacks.items()})
    remarks = (*exam.remarks, *(Remark("import", None, text) for text in texts))
    return Exam(exam_id, exam.stacks, remarks=remarks, series=series)


def _archive_of(form: FormData) -> BinaryIO | None:
    """Returns the archive of a form; None if it has another field."""
    given = form.multi_items()
    if not any(name == ARCHIVE for name, _ in given):
        return None
    value = given[0][1]
    if len(given) > 1 or not isinstance(value, UploadFile):
        fault = RequestError(
            "an archive must be the only part of the form",
            code="form",
            expected=f"one file in the field {ARCHIVE}, or one file per series",
            found=", ".join(name[:100] for name, _ in given),
        )
        raise RefusalError(422, fault, field=ARCHIVE)
    return value.file


def _refuse_members(
    archive: ZipArchive, members: Mapping[str, str], required: Sequence[str]
) -> None:
    """Refuses an exam that lacks series, or whose files are too large to be unpacked."""
    if not set(required) <= set(members):
        raise DataError(
            "the exam lacks a series",
            code="missing-plane",
            expected="the folders " + ", ".join(required),
            found=", ".join(members),
            advice="start the service with --allow-missing-plane",
        )
    for name, member in members.items():
        if archive.size(member) > _MAX_STACK_BYTES:
            raise DataError(
                f"the {name} stack is too large",
                code="too-large",
                expected=f"at most {_MAX_STACK_BYTES:,} bytes",
                found=f"{archive.size(member):,} bytes",
            )


@contextmanager
def _opened(archive: ZipArchive, members: Mapping[str, str]) -> Iterator[dict[str, BinaryIO]]:
    with ExitStack() as stack:
        yield {
            name: cast(BinaryIO, stack.enter_context(archive.open(member)))
            for name, member in members.items()
        }


def _no_series(series: SeriesList) -> MrkneeError:
    return RequestError(
        "a file is not in the folder of a series",
        code="series-name",
        expected="folders named " + ", ".join(series.names),
    )


def _too_many() -> MrkneeError:
    return RequestError(
        "the upload has more exams than the service keeps",
        code="too-many",
        expected=f"at most {MAX_UPLOADS} exams and {MAX_UPLOADED_BYTES:,} bytes of stacks",
        advice="upload fewer exams, or start the service with --exams",
    )


def _nothing_usable(uploaded: Uploaded) -> RefusalError:
    """Returns the refusal of an upload without a usable exam."""
    if len(uploaded.problems) == 1:
        (problem,) = uploaded.problems
        return RefusalError(422, problem.fault, field=problem.field or problem.file)
    lines = [f"{one.file}: {one.fault.what}" for one in uploaded.problems]
    fault = RequestError(
        "no exam of the upload can be used",
        code="no-exams",
        expected="a zip in MRNet's layout (axial/0001.npy, ...) or of DICOM files",
        found="; ".join(lines) or "nothing that is an exam",
    )
    return RefusalError(422, fault, field=ARCHIVE)
