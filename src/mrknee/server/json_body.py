"""Small JSON bodies of requests: limits on size and time, and their description for OpenAPI."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from mrknee.errors import RequestError
from mrknee.server.arrivals import parts_of
from mrknee.server.refusal import RefusalError

MAX_JSON_BYTES = 65_536
"""Maximum size of a JSON body; a list of all slices of an exam has 2 kB."""

JSON_SECONDS = 10.0
"""Maximum time for a JSON body to arrive."""

JSON = "application/json"

Content = TypeVar("Content", bound=BaseModel)


async def read_json_body(request: Request, kind: type[Content]) -> Content:
    """Receives and validates the JSON body of a request.

    Args:
        request: the request.
        kind: the fields of the body.

    Raises:
        RefusalError: the body has another type or other fields, is too large, or arrives too late.
        ClientDisconnect: the client disconnected.
    """
    given = request.headers.get("content-type", "nothing").partition(";")[0].strip().lower()
    if given != JSON:
        raise _refused(415, "the request's body is not JSON", JSON, given[:100])
    body = bytearray()
    try:
        async with asyncio.timeout(JSON_SECONDS):
            async for part in parts_of(request):
                body += part
                if len(body) > MAX_JSON_BYTES:
                    limit = f"at most {MAX_JSON_BYTES:,} bytes"
                    raise _refused(413, "the request's body is too large", limit, None)
    except TimeoutError:
        limit = f"at most {JSON_SECONDS:g} seconds"
        raise _refused(408, "the request's body took too long", limit, None) from None
    try:
        return kind.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or None
        raise _refused(422, "the request's body is invalid", first["msg"], None, field) from None


def json_body(kind: type[BaseModel]) -> dict[str, Any]:
    """Returns the description of a JSON body for OpenAPI, `openapi_extra` of a route.

    Args:
        kind: the fields of the body. Models inside must also be part of a response, which puts them
            into the schema.
    """
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def _refused(
    status: int, what: str, expected: str, found: str | None, field: str | None = None
) -> RefusalError:
    fault = RequestError(what, code="body", expected=expected, found=found)
    return RefusalError(status, fault, field=field)
