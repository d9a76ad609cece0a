"""Conversion of a request body to an exam, with limits at every step.

Nothing of the upload remains on the disk. starlette spools the files of the form to unnamed
temporary files, which the system removes at the latest when the process ends. They have names, in a
temporary folder, only while they are read.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from mrknee.errors import MrkneeError, RequestError
from mrknee.exams import Exam, SeriesList
from mrknee.exams.axes import AXES, Axes, Shape, refuse_other_axes, shape_of
from mrknee.exams.remark import Remark
from mrknee.exams.stackfile import read_stack
from mrknee.server.arrivals import too_large
from mrknee.server.limits import ServiceLimits
from mrknee.server.refusal import RefusalError

MAX_SLICES, MAX_SIDE = 160, 1024
"""Maximum number of slices per series, and of rows and columns; MRNet's series have up to 61 slices
of 256 x 256. All slices of a series are processed together, so memory grows with them."""

MAX_PIXELS = 24_000_000
"""Maximum number of pixels per exam, all series together; 3 x 61 slices of 256 x 256 have 12
million, 90 of 512 x 512 have 23.6 million."""

_MORE_PARTS = 7  # parts beyond the expected ones that are parsed, to name them in the error
_READ_BYTES = 1_048_576
_MAX_TEXT_BYTES = 65_536  # per text field, which is named in the error too

_EPILOGUE_BYTES = 1_024
"""Maximum size of the ignored text after the end of the form (RFC 2046, 5.1.1), such as line
breaks."""

ADVICE = "curl -F axial=@0001.npy -F coronal=@... -F sagittal=@..., including the @"


@dataclass(frozen=True)
class Received:
    """An uploaded exam.

    Attributes:
        exam: the exam; its id is `upload`.
        digests: series -> SHA-256 of the uploaded file, in hexadecimal.
    """

    exam: Exam
    digests: Mapping[str, str]


def check_head(request: Request, limits: ServiceLimits) -> str:
    """Checks the headers of a request before its body is received.

    Returns:
        The header `Content-Type`, which contains the boundary of the form's parts.

    Raises:
        RefusalError: the body is not a multipart form, is compressed, or has a Content-Length above
            the limit.
    """
    content_type = request.headers.get("content-type", "nothing")
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise RefusalError(
            415,
            RequestError(
                "the request is not a form with files",
                code="form",
                expected="multipart/form-data",
                found=kind,
                advice=ADVICE,
            ),
        )
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise RefusalError(
            415,
            RequestError(
                "the request's body is compressed",
                code="form",
                expected="an uncompressed body, without Content-Encoding",
                found=f"Content-Encoding: {coding[:100]}",
                advice="send the form without compression",
            ),
        )
    if not parse_options_header(content_type)[1].get(b"boundary"):
        raise _unreadable("no boundary in the header Content-Type")
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated[:20]) > limits.body_bytes:
        raise too_large(limits)
    return content_type


def read_body(
    body: BinaryIO,
    content_type: str,
    series: SeriesList,
    *,
    required: Collection[str],
    axes: Axes | None = None,
) -> Received:
    """Parses a complete request body into an exam.

    Blocks: must be called outside the event loop.

    Args:
        body: a multipart form with one file per series, open at its beginning.
        content_type: the header `Content-Type`.
        series: series of the model, which name the fields of the form.
        required: the series that may not be missing.
        axes: order of the axes in the files; None expects (slices, rows, cols) and refuses stacks
            that seem to be in another order.

    Raises:
        RefusalError: the form is malformed or has other fields, a file is not a readable stack, or
            the exam is too large.
    """
    with parsed_form(body, content_type, len(series)) as form:
        files = files_of(form, series, required)
        return read_files(files, series, axes)


@contextmanager
def parsed_form(body: BinaryIO, content_type: str, wanted: int) -> Iterator[FormData]:
    """Parses a complete request body; its files are removed when the context ends.

    Args:
        body: a multipart form, open at its beginning.
        content_type: the header `Content-Type`.
        wanted: number of parts that are expected.

    Raises:
        RefusalError: the form is malformed.
    """
    _refuse_incomplete(body, content_type)
    form = asyncio.run(_parsed(body, content_type, wanted))
    try:
        yield form
    finally:
        asyncio.run(form.close())


async def _parsed(body: BinaryIO, content_type: str, wanted: int) -> FormData:
    async def parts() -> AsyncGenerator[bytes, None]:
        while part := body.read(_READ_BYTES):
            yield part

    boundary = parse_options_header(content_type)[1][b"boundary"]
    quoted = boundary.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    kind = b'multipart/form-data; boundary="' + quoted + b'"'
    parser = MultiPartParser(
        # without the client's charset, by which starlette would decode names: they are UTF-8
        Headers(raw=[(b"content-type", kind)]),
        parts(),
        max_files=wanted + _MORE_PARTS,
        max_fields=wanted + _MORE_PARTS,
        max_part_size=_MAX_TEXT_BYTES,
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise _unreadable(error.message) from None


def _refuse_incomplete(body: BinaryIO, content_type: str) -> None:
    """Refuses an incomplete form, which starlette would parse as a form with fewer files."""
    _, options = parse_options_header(content_type)
    last = b"--" + options.get(b"boundary", b"") + b"--"
    size = body.seek(0, os.SEEK_END)
    body.seek(max(size - len(last) - _EPILOGUE_BYTES, 0))
    end = body.read()
    body.seek(0)
    if last not in end:
        raise _unreadable("an incomplete form" if size else "an empty body")


def _unreadable(found: str) -> RefusalError:
    fault = RequestError(
        "the form can't be read",
        code="form",
        expected="complete multipart/form-data with one file per series of the model",
        found=found,
        advice=ADVICE,
    )
    return RefusalError(400, fault)


def files_of(
    form: FormData, series: SeriesList, required: Collection[str]
) -> Mapping[str, BinaryIO]:
    """Returns the files of a form with one file per series: series -> file.

    Args:
        form: the form.
        series: series of the model, which name the fields.
        required: the series that may not be missing.

    Raises:
        RefusalError: the form has other fields, or lacks a series.
    """
    files: dict[str, BinaryIO] = {}
    for name, value in form.multi_items():
        wrong = None
        one = series.named(name)
        if one is None:
            wrong = "a field of the form is not a series of the model"
        elif not isinstance(value, UploadFile):
            wrong = "a field contains text instead of a file"
        elif one.name in files:
            wrong = "a series was sent twice"
        elif value.filename or value.size:  # browsers send an empty part if no file was chosen
            files[one.name] = value.file
        if wrong:
            expected = "one file per series: " + ", ".join(series.names)
            raise RefusalError(
                422, RequestError(wrong, code="form", expected=expected, advice=ADVICE), field=name
            )
    missing = [name for name in required if name not in files] or ([] if files else series.names)
    if missing:
        raise RefusalError(
            422,
            RequestError(
                "the exam lacks a series",
                code="missing-plane",
                expected="the files " + ", ".join(required or series.names),
                found=", ".join(files) or "no file",
                advice=ADVICE + "; or start the service with --allow-missing-plane",
            ),
            field=missing[0],
        )
    return files


def read_files(
    files: Mapping[str, BinaryIO],
    series: SeriesList,
    axes: Axes | None,
    exam_id: str = "upload",
) -> Received:
    """Reads an exam from uploaded files.

    Args:
        files: series -> `.npy` file.
        series: the series that the exam may have.
        axes: as for `read_body`.
        exam_id: id of the exam.

    Raises:
        RefusalError: a file is not a readable stack, or the exam is too large.
    """
    stacks, digests = {}, {}
    remarks: list[Remark] = []
    with TemporaryDirectory(prefix="mrknee-") as folder:
        for name, file in files.items():
            path = Path(folder) / f"{name}.npy"
            digest = sha256()
            with path.open("xb") as copy:
                while part := file.read(_READ_BYTES):
                    digest.update(part)
                    copy.write(part)
            digests[name] = digest.hexdigest()
            try:
                outliers: list[str] = []
                stacks[name] = read_stack(path, axes=axes, outliers=outliers)
                remarks += [Remark("outliers", name, text) for text in outliers]
            except MrkneeError as fault:
                raise RefusalError(422, fault, field=name) from None
    try:
        shapes = {name: [shape_of(stack)] for name, stack in stacks.items()}
        refuse_other_axes(shapes, given=axes)
    except MrkneeError as fault:
        order = ",".join(axes or AXES)
        form_fault = RequestError(
            fault.what,
            code="form",
            expected=fault.expected,
            found=fault.found,
            advice=f"send stacks of ({order}), or start the service with other --axes",
        )
        raise RefusalError(422, form_fault) from None
    refuse_large({name: shape_of(stack) for name, stack in stacks.items()})
    return Received(Exam(exam_id, stacks, remarks=tuple(remarks), series=series), digests)


def refuse_large(shapes: Mapping[str, Shape]) -> None:
    """Refuses an exam that is larger than the service accepts.

    Args:
        shapes: series -> (slices, rows, cols).

    Raises:
        RefusalError: a series or the exam is too large.
    """
    for name, shape in shapes.items():
        if shape[0] > MAX_SLICES or max(shape[1:]) > MAX_SIDE:
            raise _exam_too_large(
                f"at most {MAX_SLICES} slices of {MAX_SIDE} x {MAX_SIDE} pixels per series",
                " x ".join(map(str, shape)),
                name,
            )
    pixels = sum(math.prod(shape) for shape in shapes.values())
    if pixels > MAX_PIXELS:
        raise _exam_too_large(
            f"at most {MAX_PIXELS:,} pixels, all series together", f"{pixels:,} pixels", None
        )


def _exam_too_large(expected: str, found: str, series: str | None) -> RefusalError:
    fault = RequestError(
        "the exam is larger than the service accepts",
        code="too-large",
        expected=expected,
        found=found,
        advice="use mrknee predict for this exam",
    )
    return RefusalError(422, fault, field=series)
