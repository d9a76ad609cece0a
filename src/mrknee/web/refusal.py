"""A request that can't be answered: the status, and the fault in words."""

from __future__ import annotations

from collections.abc import Mapping

from mrknee.errors import MrkneeError


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
