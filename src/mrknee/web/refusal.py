"""A request that can't be answered: the status, and the fault in words."""

from __future__ import annotations

from collections.abc import Mapping

from mrknee.errors import MrkneeError, RequestError
from mrknee.web import schemas


class RefusalError(Exception):
    """What a request gets in place of an answer.

    Attributes:
        status: the HTTP status.
        fault: what is wrong, in words.
        field: the field of the form it concerns, if there is one.
        headers: sent with the answer.
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

    def answer(self) -> schemas.Faulty:
        """What the client gets; where the fault's file is on this machine stays out of it."""
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
    """503: nothing is wrong with the request, and it may be sent again.

    Args:
        what: what the service has no room for.
        expected: the limit.
        seconds: when to send it again.
    """
    fault = RequestError(
        what, code="busy", expected=expected, advice=f"send it again in {seconds} seconds"
    )
    return RefusalError(503, fault, headers={"Retry-After": str(seconds)})
