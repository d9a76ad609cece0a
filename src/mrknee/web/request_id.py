"""The id of a request, by which its answer, its record and a proxy's log find each other."""

from __future__ import annotations

import re
from uuid import uuid4

HEADER = "X-Request-ID"

_SANE = re.compile(r"[A-Za-z0-9._-]{1,128}")


def id_of(given: str | None) -> str:
    """The client's id where it is 1 to 128 letters, digits, dots, dashes and underscores.

    Any other is replaced, because ids are written to logs.

    Args:
        given: the header `X-Request-ID`, or None.
    """
    return given if given is not None and _SANE.fullmatch(given) else uuid4().hex
