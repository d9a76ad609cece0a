"""What holds for every request: its id, whom it is addressed to, HEAD, and that it is counted."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mrknee.errors import RequestError
from mrknee.web.desk import RETRY_SECONDS
from mrknee.web.metrics import Metrics
from mrknee.web.refusal import RefusalError, busy
from mrknee.web.request_id import HEADER, id_of

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of this machine that no other machine can be reached by."""

CLIENT_GONE = 499
"""Stands for an answer in metrics and the audit log where the client went away, as in nginx's."""


class Gate:
    """Stands before an application; every request passes it.

    Host: a page of another site can make a browser ask this service under that site's name (DNS
    rebinding), and read the answers. So requests are answered only under names that are known:
    those of `LOOPBACK`, the address the connection came to, and the given ones. Origin: a page of
    another site can send a form here; it is refused, because its origin is not the Host.

    Args:
        app: what is behind.
        hosts: further names, without a port.
        root_path: the path of a proxy that the service is below, such as /knee, or "". The proxy
            may cut it off or leave it.
        paths: the service's addresses, as metrics count them.
        metrics: where answers are counted.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[str],
        root_path: str,
        paths: Iterable[str],
        metrics: Metrics,
    ) -> None:
        self._app, self._metrics, self._paths = app, metrics, frozenset(paths)
        self._hosts = LOOPBACK | {_name_of(host) for host in hosts}
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; `state` has its `request_id` and its `address`, such as /predict."""
        began = time.perf_counter()
        headers = Headers(scope=scope)
        request_id = id_of(headers.get(HEADER))
        address = scope["path"]
        if address.startswith(self._root_path + "/"):
            address = address[len(self._root_path) :]
        scope = {
            **scope,
            "method": "GET" if scope["method"] == "HEAD" else scope["method"],  # uvicorn knows
            "path": address,
            "state": {**scope.get("state", {}), "request_id": request_id, "address": address},
        }
        status = CLIENT_GONE

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            own = self._own_answer(scope, headers)
            await (own or self._app)(scope, receive, noted)
        except asyncio.CancelledError:  # told to end twice: running requests are waited for no more
            if status == CLIENT_GONE:
                error = busy("the service is ending", "a service that goes on", RETRY_SECONDS)
                await JSONResponse(error.answer().model_dump(), 503)(scope, receive, noted)
            raise
        finally:
            counted = address if address in self._paths else "other"
            self._metrics.answered(counted, status, time.perf_counter() - began)

    def _own_answer(self, scope: Scope, headers: Headers) -> Response | None:
        try:
            self._check(scope, headers)
        except RefusalError as error:
            return JSONResponse(error.answer().model_dump(), error.status)
        if self._root_path and scope["path"] == self._root_path:
            return RedirectResponse(self._root_path + "/")  # addresses in pages are relative to it
        return None

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host")
        if host is None:
            return  # HTTP/1.0: no browser
        server = scope.get("server")
        own = {_name_of(server[0])} if server else set()
        if _name_of(host) not in self._hosts | own:
            fault = RequestError(
                "the service is not known by this name",
                code="host",
                expected="localhost, the address it listens at, or a name given to --allowed-host",
                found=f"Host: {host}",
                advice="start it with --allowed-host and the name that clients or the proxy use",
            )
            raise RefusalError(421, fault)
        for origin in headers.getlist("origin"):
            if _same_origin(origin, host):
                continue
            fault = RequestError(
                "the request comes from a page of another site",
                code="origin",
                expected=f"a page of this service: Origin with the host {host}",
                found=f"Origin: {origin}",
                advice="a proxy has to pass the Host that the browser sent, with its port",
            )
            raise RefusalError(403, fault)


_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def _same_origin(origin: str, host: str) -> bool:
    """Whether a page's origin is the host, with its port, that it asked.

    Browsers leave the scheme's own port out; proxies may put it into `Host`.
    """
    scheme, _, name = origin.lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme, "")
    return name.removesuffix(port) == host.lower().removesuffix(port) != ""


_IN_BRACKETS = re.compile(r"\[([0-9a-f:.]+)\](:[0-9]*)?")


def _name_of(host: str) -> str:
    """A host's name or address in lower case, without brackets, port and final dot."""
    host = host.strip().lower()
    if host.startswith("["):
        address = _IN_BRACKETS.fullmatch(host)
        return address[1] if address else host
    try:
        return str(ip_address(host))
    except ValueError:
        return host.rsplit(":", 1)[0].rstrip(".")
