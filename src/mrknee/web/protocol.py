"""HTTP/1.1 as uvicorn speaks it with h11, and the limits it has no option for.

uvicorn limits neither the time that a request's head takes nor the number of connections in a way
that leaves room for `/health`, and it answers malformed requests as plain text. hypercorn has no
limit on connections either, and granian words its own refusals. So this is uvicorn, extended at
two places: what h11 reports is checked (`CheckedConnection`), and every connection is looked at
once a second (`Protocol.check`).
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
from mrknee.web.refusal import RefusalError
from mrknee.web.request_id import HEADER, id_of

MAX_CONNECTIONS = 256
"""Open at once. One more ends the one that has waited longest without sending a whole head."""

HEAD_SECONDS = 10.0
"""How long a request's head may take, from the connection's beginning or the last answer on it;
what is left of a refused body gets as long."""

SEND_SECONDS = 60.0
"""How long a client may take to receive an answer: a page of 6 MB at 100 kB/s."""

MAX_HEAD_BYTES = 32_768
"""Of a request's head; as many as nginx takes by default (4 buffers of 8 kB)."""

FREE_PARTS, MEAN_PART_BYTES = 1_000, 256
"""A body may come in this many parts of any size, and beyond in parts of this mean size: each costs
about 0.05 ms, in which nobody else is answered. 100 MB in the 8 kB chunks of common clients are
12,200 parts."""


class CheckedConnection(h11.Connection):
    """h11's parser, which also refuses what it lets pass, and keeps the reason.

    - Content-Length with Transfer-Encoding, and Transfer-Encoding in HTTP/1.0: two programs on a
      request's way may take different bytes for its end (RFC 9112, 6.1 and 6.3).
    - Heads of more than `MAX_HEAD_BYTES` that come at once.
    - Bodies in very many small parts, each of which costs as much as a large one.

    Attributes:
        refused: why the last request was refused, or None.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self.refused: h11.RemoteProtocolError | None = None
        self._parts = self._bytes = 0

    def next_event(self) -> Any:  # noqa: ANN401  # an event of h11's, or one of two constants
        """The next event.

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
            # h11's own limit is on heads that aren't whole yet
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
    """One connection."""

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
        """Whether no request is being answered: the client has to send a head first.

        Since when is in `since`, by the event loop's clock.
        """
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a connection; where there are too many, one that waits is ended for it."""
        super().connection_made(transport)
        open_now = [one for one in self.connections if not one.transport.is_closing()]
        if len(open_now) > MAX_CONNECTIONS:
            # the new one waits too; answers and uploads are far fewer than connections
            waiting = [one for one in cast("list[Protocol]", open_now) if one.waiting]
            min(waiting, key=lambda one: one.since).transport.abort()

    def check(self) -> None:
        """Ends the connection where its client takes too long; called once a second."""
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
        """From here on the next head is waited for."""
        self.since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's words
        """Answers a malformed request in the form of all other faults, and ends the connection."""
        error = self.conn.refused
        # h11 quotes what was sent, as Python writes it
        found = str(error).partition(": bytearray(")[0]
        self._refuse(error.error_status_hint if error else 400, found[:200])

    def _refuse(self, status: int, found: str) -> None:
        fault = RequestError("the request is no HTTP as it should be", code="http", found=found)
        body = RefusalError(status, fault).answer().model_dump_json().encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (HEADER.lower().encode(), id_of(None).encode()),
            (b"connection", b"close"),
        ]
        try:
            head = h11.Response(
                status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode()
            )
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:  # an answer had begun
            self.transport.abort()
        self.transport.close()
