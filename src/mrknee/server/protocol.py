"""HTTP/1.1 connections: uvicorn's h11 protocol with additional limits.

uvicorn limits neither the time to receive a request's head nor the number of connections in a way
that keeps `/health` reachable, and it answers malformed requests in plain text. hypercorn has no
limit on connections either, and granian has refusals in a format of its own. This module therefore
extends uvicorn in two places: it checks the events that h11 reports (`CheckedConnection`), and it
checks every connection once per second (`Protocol.check`).
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from mrknee.errors import RequestError
from mrknee.server.limits import DEFAULT_LIMITS
from mrknee.server.refusal import RefusalError
from mrknee.server.request_id import HEADER, valid_or_new_id

HEAD_SECONDS = 10.0
"""Maximum time to receive a request's head, from the start of the connection or the previous
response. The rest of a refused body has the same limit."""

SEND_SECONDS = 60.0
"""Maximum time for a client to receive a response: a page of 6 MB at 100 kB/s."""

MAX_HEAD_BYTES = 32_768
"""Maximum size of a request's head; nginx's default (4 buffers of 8 kB)."""

FREE_PARTS, MEAN_PART_BYTES = 1_000, 256
"""Number of body parts without a limit on size, and the minimum mean size of the parts after those.
Each part takes about 0.05 ms, during which no other request is processed. 100 MB in the 8 kB chunks
of common clients are 12,200 parts."""


class CheckedConnection(h11.Connection):
    """h11's parser with additional checks.

    It also refuses:

    - Content-Length together with Transfer-Encoding, and Transfer-Encoding in HTTP/1.0: a proxy and
      the service may disagree about the end of the request (RFC 9112, 6.1 and 6.3).
    - Heads of more than `MAX_HEAD_BYTES` that are received at once.
    - Bodies in very many small parts, each of which costs as much time as a large one.

    Attributes:
        refused: the error of the last refused request, or None.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self.refused: h11.RemoteProtocolError | None = None
        self._parts = self._bytes = 0

    def next_event(self) -> Any:  # noqa: ANN401  # an event of h11's, or one of two constants
        """Returns the next event.

        Raises:
            h11.RemoteProtocolError: the request is refused.
        """
        try:
            event = super().next_event()
            self._check(event)
        except h11.RemoteProtocolError as error:
            self.refused = error
            raise
        return event

    def _check(self, event: Any) -> None:  # noqa: ANN401  # as `next_event`
        if isinstance(event, h11.Request):
            self._parts = self._bytes = 0
            # h11's own limit applies to incomplete heads only
            length = len(event.target) + sum(len(n) + len(v) + 4 for n, v in event.headers)
            if length > MAX_HEAD_BYTES:
                raise h11.RemoteProtocolError(
                    f"a head of more than {MAX_HEAD_BYTES:,} bytes", error_status_hint=431
                )
            names = {name for name, _ in event.headers}
            if b"transfer-encoding" in names and b"content-length" in names:
                raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
            if b"transfer-encoding" in names and event.http_version < b"1.1":
                raise h11.RemoteProtocolError("Transfer-Encoding in HTTP/1.0")
        elif isinstance(event, h11.Data):
            self._parts += 1
            self._bytes += len(event.data)
            if (self._parts - FREE_PARTS) * MEAN_PART_BYTES > self._bytes:
                raise h11.RemoteProtocolError(
                    f"a body in more than {FREE_PARTS:,} parts of less than {MEAN_PART_BYTES} bytes"
                )


class Protocol(H11Protocol):
    """One connection.

    Attributes:
        max_connections: maximum number of open connections. A further connection closes the one
            that has waited longest without sending a complete head.
    """

    max_connections = DEFAULT_LIMITS.max_connections

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn: CheckedConnection = CheckedConnection()
        self.since = self.loop.time()
        self._sending_since: float | None = None

    @property
    def waiting(self) -> bool:
        """Whether the connection waits for a request's head.

        `since` is the start of the wait, by the clock of the event loop.
        """
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accepts a connection; if there are too many, closes one that waits for a head."""
        super().connection_made(transport)
        open_now = [one for one in self.connections if not one.transport.is_closing()]
        if len(open_now) > self.max_connections:
            # never empty: it contains the new connection
            waiting = [one for one in cast("list[Protocol]", open_now) if one.waiting]
            min(waiting, key=lambda one: one.since).transport.abort()

    def check(self) -> None:
        """Closes the connection if its client exceeds a time limit; called once per second."""
        now = self.loop.time()
        if self.transport.get_write_buffer_size():
            self._sending_since = self._sending_since or now
            if now - self._sending_since > SEND_SECONDS:
                self.transport.abort()
            return
        self._sending_since = None
        if self.waiting and now - self.since > HEAD_SECONDS:
            if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
                self._refuse(408, f"a head that takes longer than {HEAD_SECONDS:g} seconds")
            else:
                self.transport.abort()

    def on_response_complete(self) -> None:
        """Starts the time limit of the next head."""
        self.since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's message
        """Answers a malformed request with an error response, and closes the connection."""
        error = self.conn.refused
        # h11 quotes the received bytes in Python notation
        found = str(error).partition(": bytearray(")[0]
        self._refuse(error.error_status_hint if error else 400, found[:200])

    def _refuse(self, status: int, found: str) -> None:
        fault = RequestError("the request is not valid HTTP/1.1", code="http", found=found)
        body = RefusalError(status, fault).response().model_dump_json().encode()
        headers = [
            *self.server_state.default_headers,
            (b"cache-control", b"no-store"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (HEADER.lower().encode(), valid_or_new_id(None).encode()),
            (b"connection", b"close"),
        ]
        try:
            head = h11.Response(
                status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode()
            )
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:  # a response has been started
            self.transport.abort()
        self.transport.close()
