"""Requests that can't be answered: exception with the HTTP status and the error."""

from __future__ import annotations

from collections.abc import Mapping

from mrknee.errors import MrkneeError, RequestError
from mrknee.server import schemas


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
