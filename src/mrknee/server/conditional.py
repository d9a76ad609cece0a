"""Conditional requests (`If-None-Match`) and compressed binary responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mrknee.server.exam_reader import ExamReader

IMMUTABLE = "private, max-age=31536000, immutable"
"""For addresses that contain the hash of their content."""

REVALIDATE = "private, no-cache"
"""For addresses whose content may change: clients keep it, and ask whether it is current."""

BINARY = "application/octet-stream"

_PART_BYTES = 262_144  # sent at once, so that the connection's buffer doesn't hold all of a body


def is_current(request: Request, etag: str) -> bool:
    """Returns whether the client has the version of the content that an ETag names."""
    given = request.headers.get("if-none-match", "")
    return etag in [one.strip().removeprefix("W/") for one in given.split(",")]


async def binary(
    request: Request,
    reader: ExamReader,
    name: str,
    content: Callable[[], bytes],
    cache_control: str,
) -> Response:
    """Returns the response with binary content: compressed if the client accepts gzip.

    Args:
        request: the request.
        reader: compresses, and keeps compressed content.
        name: identifies the content; ASCII letters, digits, `.` and `-`.
        content: returns the content; called in a thread, unless the client or the cache has it.
        cache_control: `IMMUTABLE` or `REVALIDATE`.
    """
    packed = accepts_gzip(request)
    headers = {
        "ETag": f'"{name}.gz"' if packed else f'"{name}"',
        "Cache-Control": cache_control,
        "Vary": "Accept-Encoding",
    }
    if is_current(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if packed:
        body = await reader.packed(name, content)
        headers["Content-Encoding"] = "gzip"
    else:
        body = await reader.run(content)
    headers["Content-Length"] = str(len(body))
    return StreamingResponse(_parts(body), headers=headers, media_type=BINARY)


async def _parts(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PART_BYTES):
        yield body[start : start + _PART_BYTES]


def accepts_gzip(request: Request) -> bool:
    """Returns whether the client accepts content compressed with gzip."""
    for part in request.headers.get("accept-encoding", "").split(","):
        name, _, quality = part.replace(" ", "").lower().partition(";q=")
        if name in ("gzip", "*"):
            return quality.rstrip("0") not in ("0", "0.", "") if quality else True
    return False
