"""Requests that can't be answered: exception with the HTTP status and the error; its response."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from mrknee.errors import MrkneeError, PlatformError, RequestError
from mrknee.files import FULL_DISK
from mrknee.server import schemas

CLIENT_GONE = 499
"""Status in metrics and the audit log when the client disconnected before the response, as in
nginx."""


class RefusalError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: the HTTP status.
        fault: the error.
        field: the form field that the error concerns, or None.
        headers: additional headers of the response.
    """

    def __init__(
        self,
        status: int,
        fault: MrkneeError,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(fault.what)
        self.status, self.fault, self.field = status, fault, field
        self.headers = dict(headers or {})

    def response(self) -> schemas.Faulty:
        """Returns the body of the response, without the error's path on this machine."""
        fault = schemas.Fault(
            code=self.fault.code,
            what=self.fault.what,
            field=self.field,
            expected=self.fault.expected,
            found=self.fault.found,
            advice=self.fault.advice,
        )
        return schemas.Faulty(error=fault)


API = "/api/v1"
"""Addresses below this path answer errors as `application/problem+json`."""


def error_response(refusal: RefusalError, address: str, request_id: str) -> JSONResponse:
    """Returns the response to a refused request, in the form that its address uses.

    Args:
        refusal: the refusal.
        address: path of the request, without the proxy's prefix.
        request_id: id of the request.
    """
    fault = refusal.response().error
    if address != API and not address.startswith(API + "/"):
        content: Mapping[str, object] = {"error": fault.model_dump()}
        return JSONResponse(content, refusal.status, headers=refusal.headers)
    problem = schemas.Problem(
        type=f"urn:mrknee:error:{fault.code}",
        title=title_of_status(refusal.status),
        status=refusal.status,
        detail=fault.what,
        request_id=request_id,
        **fault.model_dump(exclude={"what"}),
    )
    return JSONResponse(
        problem.model_dump(),
        refusal.status,
        headers=refusal.headers,
        media_type="application/problem+json",
    )


def title_of_status(status: int) -> str:
    """Returns the phrase of a status, such as "Not Found"; also of 499, which HTTP lacks."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request"


def as_refusal(error: Exception) -> RefusalError:
    """Converts any error to a refusal."""
    if isinstance(error, RefusalError):
        return error
    if isinstance(error, HTTPException):
        what = {404: "unknown path", 405: "this path does not support the method"}
        fault: MrkneeError = RequestError(
            what.get(error.status_code, error.detail),
            code="request",
            expected="POST /predict, POST /explain, or GET /, /upload, /model, /health, /ready, "
            "/metrics, and the addresses that /openapi.json lists",
        )
        return RefusalError(error.status_code, fault, headers=error.headers)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        name = str(first["loc"][-1])
        fault = RequestError(
            f"{name} is invalid",
            code="parameter",
            expected=first["msg"],
            found=str(first.get("input"))[:200],
        )
        return RefusalError(422, fault, field=name)
    if isinstance(error, ClientDisconnect):  # recorded only; nobody receives it
        fault = RequestError("the client disconnected", code="client-gone")
        return RefusalError(CLIENT_GONE, fault)
    if isinstance(error, MrkneeError):  # from the audit log; others are refusals already
        return RefusalError(500, error)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        fault = PlatformError(
            "the service has no disk space left for the exam",
            code="no-space",
            found="a full disk",
            advice="free disk space for temporary files (TMPDIR) and the audit log",
        )
        return RefusalError(507, fault)
    fault = PlatformError(
        "internal error of the service",
        code="internal",
        found=type(error).__name__,
        advice="see the standard error of the service for the place in the code",
    )
    return RefusalError(500, fault)


def print_error(error: Exception) -> None:
    """Prints the places of an internal error in the code to standard error.

    The text of an unexpected exception is not printed, because it may contain parts of the exam.
    """
    cause = error.__cause__ or error
    places = [f"{one.filename}:{one.lineno}" for one in traceback.extract_tb(cause.__traceback__)]
    lines = [f"mrknee serve: {type(cause).__name__} while answering a request", *places]
    if isinstance(error, MrkneeError):
        lines = [lines[0], str(error)]
    elif isinstance(cause, MrkneeError):
        lines.append(str(cause))
    elif isinstance(cause, OSError):  # concerns files of the service: clients supply no paths
        lines.append(f"{cause.strerror}: {cause.filename}")
    print("\n  ".join(lines), file=sys.stderr, flush=True)


def busy(what: str, expected: str, seconds: int) -> RefusalError:
    """Returns a 503 refusal for a valid request that may be sent again.

    Args:
        what: reason.
        expected: the limit.
        seconds: value of `Retry-After`.
    """
    fault = RequestError(
        what, code="busy", expected=expected, advice=f"send the request again in {seconds} seconds"
    )
    return RefusalError(503, fault, headers={"Retry-After": str(seconds)})
