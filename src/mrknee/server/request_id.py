"""Request ids, which link a response, its audit record and the log of a proxy."""

from __future__ import annotations

import re
from uuid import uuid4

HEADER = "X-Request-ID"

_VALID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def valid_or_new_id(given: str | None) -> str:
    """Returns the client's id if it is valid, otherwise a new id.

    Valid ids are 1 to 128 letters, digits, dots, hyphens and underscores. Others are replaced,
    because ids are written to logs.

    Args:
        given: value of the header `X-Request-ID`, or None.
    """
    return given if given is not None and _VALID.fullmatch(given) else uuid4().hex
