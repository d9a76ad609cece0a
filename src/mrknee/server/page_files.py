"""Files of the page for browsers, from the folder `page`: `/` and `/page/...`."""

from __future__ import annotations

import gzip
from functools import lru_cache
from hashlib import sha256
from mimetypes import guess_type
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from mrknee.errors import RequestError
from mrknee.server.conditional import accepts_gzip, is_current
from mrknee.server.refusal import RefusalError

FOLDER = Path(__file__).parent / "page"

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'self'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-cache",
    "Vary": "Accept-Encoding",
}
"""Scripts, styles and data come from this service only; nothing inline is run."""


def page_file(request: Request, name: str) -> Response:
    """Returns the response with a file of the page, compressed if the client accepts gzip.

    Args:
        request: the request, which may state the version that the client has.
        name: path in the folder, such as `app.js`.

    Raises:
        RefusalError: there is no such file.
    """
    # the name is compared with those that exist, and never joined to a path
    files = {file.relative_to(FOLDER).as_posix(): file for file in FOLDER.rglob("*")}
    file = files.get(name)
    if file is None or not file.is_file():
        fault = RequestError(
            "the page has no such file", code="not-found", expected="a file that / links to"
        )
        raise RefusalError(404, fault)
    content = file.read_bytes()
    packed = accepts_gzip(request)
    version = sha256(content).hexdigest()[:32] + (".gz" if packed else "")
    headers = {**PAGE_HEADERS, "ETag": f'"{version}"'}
    if is_current(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    kind = guess_type(file.name)[0] or "application/octet-stream"
    if packed:
        content, headers["Content-Encoding"] = _packed(content), "gzip"
    return Response(content, headers=headers, media_type=kind)


@lru_cache(maxsize=64)
def _packed(content: bytes) -> bytes:
    """Compresses a file of the page, once."""
    return gzip.compress(content, mtime=0)
