"""From a request's body to an exam: bounded at every step, and nothing of it stays.

What comes in is spooled to files without a name (starlette's), which end with the process at the
latest. They get names, in a folder of their own, only while they are read.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from mrknee.errors import MrkneeError
from mrknee.exams import PLANES, Exam, Plane
from mrknee.exams.stackfile import read_stack
from mrknee.web.refusal import RefusalError

MAX_BODY_BYTES = 100_000_000
"""A request's body. MRNet's largest exam (3 planes of 61 slices of 256 x 256) has 12 MB in bytes,
96 MB in float64."""

MAX_SLICES, MAX_SIDE = 160, 1024
"""Slices of a plane, and pixels of its sides; MRNet's have up to 61 of 256 x 256. A plane's slices
are read together, and memory grows with them."""

MAX_PIXELS = 24_000_000
"""Pixels of an exam, all planes together; 3 x 61 slices of 256 x 256 have 12 million, 90 of
512 x 512 have 23.6."""

UPLOAD_SECONDS = 60.0
"""How long a body may take to arrive."""

_MAX_PARTS = 10  # three are wanted; more than that are refused by name
_MAX_TEXT_BYTES = 65_536  # of a field that is no file, which is refused by name too

ADVICE = "curl -F axial=@0001.npy -F coronal=@... -F sagittal=@..., the @ included"


@asynccontextmanager
async def uploaded(
    request: Request, *, allow_missing_plane: bool
) -> AsyncIterator[Mapping[Plane, BinaryIO]]:
    """Receives the files of one exam; they are gone when the context ends.

    Args:
        request: a multipart form with the files axial, coronal and sagittal.
        allow_missing_plane: whether one or two of them may be missing.

    Yields:
        A plane's file, open at its beginning.

    Raises:
        RefusalError: the body is too large or too slow, no multipart form, or has other fields.
    """
    kind = request.headers.get("content-type", "nothing").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise RefusalError(
            415,
            MrkneeError(
                "the request is no form with files",
                expected="multipart/form-data",
                found=kind,
                advice=ADVICE,
            ),
        )
    form = await _received(request)
    try:
        yield _files(form, allow_missing_plane=allow_missing_plane)
    finally:
        await form.close()


async def _received(request: Request) -> FormData:
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated[:20]) > MAX_BODY_BYTES:
        raise _too_large()
    _, options = parse_options_header(request.headers["content-type"])
    bounded = Request(request.scope, _bounded(request.receive, options.get(b"boundary", b"")))
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            return await bounded.form(
                max_files=_MAX_PARTS, max_fields=_MAX_PARTS, max_part_size=_MAX_TEXT_BYTES
            )
    except TimeoutError:
        fault = MrkneeError(
            "the exam took too long to arrive", expected=f"at most {UPLOAD_SECONDS:g} seconds"
        )
        raise RefusalError(408, fault) from None
    except HTTPException as error:
        raise _unreadable(error.detail) from None


def _bounded(receive: Receive, boundary: bytes) -> Receive:
    """What the request sends: never too much, whatever it said before, and whole.

    starlette takes a form that breaks off for one of fewer files.
    """
    received, end = 0, b""
    last = b"--" + boundary + b"--"

    async def bounded() -> Message:
        nonlocal received, end
        message = await receive()
        if message["type"] == "http.request":
            body = message.get("body", b"")
            received += len(body)
            if received > MAX_BODY_BYTES:
                raise _too_large()
            end = (end + body)[-len(last) - 2 :]
            if not message.get("more_body") and not end.rstrip(b"\r\n").endswith(last):
                raise _unreadable("a form that breaks off")
        return message

    return bounded


def _unreadable(found: str) -> RefusalError:
    fault = MrkneeError(
        "the form can't be read",
        expected="multipart/form-data, whole, with the files " + ", ".join(PLANES),
        found=found,
        advice=ADVICE,
    )
    return RefusalError(400, fault)


def _too_large() -> RefusalError:
    fault = MrkneeError(
        "the upload is too large",
        expected=f"at most {MAX_BODY_BYTES:,} bytes",
        advice="send stacks of uint8, as MRNet has them",
    )
    return RefusalError(413, fault)


def _files(form: FormData, *, allow_missing_plane: bool) -> Mapping[Plane, BinaryIO]:
    files: dict[Plane, BinaryIO] = {}
    for name, value in form.multi_items():
        wrong = None
        if name not in PLANES:
            wrong = "a field of the form is none of an exam's"
        elif not isinstance(value, UploadFile):
            wrong = "a field holds text in place of a file"
        elif Plane(name) in files:
            wrong = "a plane comes twice"
        elif value.filename or value.size:  # a browser sends a field without a file empty
            files[Plane(name)] = value.file
        if wrong:
            expected = "one file each: " + ", ".join(PLANES)
            raise RefusalError(
                422, MrkneeError(wrong, expected=expected, advice=ADVICE), field=name
            )
    missing = [plane for plane in PLANES if plane not in files]
    if missing and (not files or not allow_missing_plane):
        raise RefusalError(
            422,
            MrkneeError(
                "the exam lacks a plane",
                expected="the files " + ", ".join(PLANES),
                found=", ".join(files) or "none of them",
                advice=ADVICE + "; the service started with --allow-missing-plane reads the others",
            ),
            field=missing[0],
        )
    return files


def read_exam(files: Mapping[Plane, BinaryIO]) -> Exam:
    """Makes an exam of what was received; its id is `upload`.

    Args:
        files: a plane's file, open at its beginning.

    Raises:
        RefusalError: a file is no stack that can be read, or the exam is too large.
    """
    stacks = {}
    with TemporaryDirectory(prefix="mrknee-") as folder:
        for plane, file in files.items():
            path = Path(folder) / f"{plane}.npy"
            with path.open("xb") as copy:
                shutil.copyfileobj(file, copy)
            try:
                stacks[plane] = read_stack(path)
            except MrkneeError as fault:
                raise RefusalError(422, fault, field=plane) from None
    for plane, stack in stacks.items():
        if len(stack) > MAX_SLICES or max(stack.shape[1:]) > MAX_SIDE:
            raise _too_large_to_read(
                f"at most {MAX_SLICES} slices of {MAX_SIDE} x {MAX_SIDE} pixels a plane",
                " x ".join(map(str, stack.shape)),
                plane,
            )
    pixels = sum(stack.size for stack in stacks.values())
    if pixels > MAX_PIXELS:
        raise _too_large_to_read(
            f"at most {MAX_PIXELS:,} pixels, all planes together", f"{pixels:,} pixels", None
        )
    return Exam("upload", stacks)


def _too_large_to_read(expected: str, found: str, plane: Plane | None) -> RefusalError:
    fault = MrkneeError(
        "the exam is larger than the service reads",
        expected=expected,
        found=found,
        advice="read it with mrknee predict",
    )
    return RefusalError(422, fault, field=plane)
