"""Middleware for every request: request id, Host and Origin checks, HEAD, proxy path, metrics."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mrknee.errors import RequestError
from mrknee.server.access import Access
from mrknee.server.metrics import Metrics
from mrknee.server.refusal import API, CLIENT_GONE, RefusalError, busy, error_response
from mrknee.server.request_id import HEADER, valid_or_new_id
from mrknee.server.request_queue import RETRY_SECONDS

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Host names that always refer to this machine."""


class Middleware:
    """ASGI middleware around the application.

    Host: requests are answered only if Host is a name in `LOOPBACK`, the address of the
    connection, or one of the given names. Otherwise a page of another site could read responses
    after pointing its own name at this machine (DNS rebinding). Origin: requests whose Origin is
    not the Host are refused, because a page of another site can submit a form to this service.

    Args:
        app: the application.
        hosts: additional host names, without port.
        root_path: path prefix of the service behind a proxy, such as /knee, or "". The proxy may
            remove the prefix or keep it.
        paths: paths of the service that metrics count separately.
        metrics: counts the responses.
        access: checks the token; None: no token is needed.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[str],
        root_path: str,
        paths: Iterable[str],
        metrics: Metrics,
        access: Access | None = None,
    ) -> None:
        self._access = access
        self._app, self._metrics, self._paths = app, metrics, frozenset(paths)
        self._hosts = LOOPBACK | {_host_name(host) for host in hosts}
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request.

        The application finds `request_id` and `address` (the path without the proxy's prefix,
        such as /predict) in the request's `state`.
        """
        if scope["type"] != "http":  # start and end of the service
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = Headers(scope=scope)
        request_id = valid_or_new_id(headers.get(HEADER))
        address = scope["path"]
        if address.startswith(self._root_path + "/"):
            address = address[len(self._root_path) :]
        scope = {
            **scope,
            # uvicorn omits the body of responses to HEAD
            "method": "GET" if scope["method"] == "HEAD" else scope["method"],
            "path": address,
            "state": {**scope.get("state", {}), "request_id": request_id, "address": address},
        }
        status = CLIENT_GONE

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = MutableHeaders(scope=message)
                sent[HEADER] = request_id
                sent.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            early = self._early_response(scope, headers)
            await (early or self._app)(scope, receive, send_with_id)
        except asyncio.CancelledError:  # second signal: running requests are cancelled
            if status == CLIENT_GONE:
                error = busy("the service is shutting down", "a running service", RETRY_SECONDS)
                await error_response(error, address, request_id)(scope, receive, send_with_id)
            raise
        finally:
            counted = address if address in self._paths else _route_path(scope)
            self._metrics.count_response(counted, status, time.perf_counter() - began)

    def _early_response(self, scope: Scope, headers: Headers) -> Response | None:
        """Returns a refusal or a redirect, or None if the application answers the request."""
        address = scope["state"]["address"]
        try:
            self._check(scope, headers)
            if self._root_path and scope["path"] == self._root_path:
                # links in pages are relative to the path with its slash
                query = scope["query_string"].decode("latin-1")
                return RedirectResponse(self._root_path + "/" + ("?" + query if query else ""))
            if self._access is not None:
                if signed_in := self._access.sign_in(address, scope["query_string"]):
                    return signed_in
                self._access.check(address, headers)
        except RefusalError as error:
            return error_response(error, address, scope["state"]["request_id"])
        return None

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Checks Host and Origin.

        Raises:
            RefusalError: one of them is not accepted.
        """
        host = headers.get("host")
        if host is None:
            return  # HTTP/1.0, which browsers don't send
        server = scope.get("server")
        own = {_host_name(server[0])} if server else set()
        if _host_name(host) not in self._hosts | own:
            fault = RequestError(
                "the Host header names an unknown host",
                code="host",
                expected="localhost, the address of the service, or a name given to --allowed-host",
                found=f"Host: {host}",
                advice="start the service with --allowed-host and the name used by clients or "
                "the proxy",
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
                advice="a proxy must pass on the Host header of the browser, including its port",
            )
            raise RefusalError(403, fault)


def _route_path(scope: Scope) -> str:
    """Returns the path of the route that answered a request of /api/v1, otherwise "other"."""
    path = getattr(scope.get("route"), "path", "")
    return path if path.startswith(API + "/") else "other"


_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def _same_origin(origin: str, host: str) -> bool:
    """Returns whether an Origin header matches a Host header, including the port.

    Browsers omit the default port of the scheme; proxies may add it to `Host`.
    """
    scheme, _, name = origin.lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme, "")
    return name.removesuffix(port) == host.lower().removesuffix(port) != ""


_IN_BRACKETS = re.compile(r"\[([0-9a-f:.]+)\](:[0-9]*)?")


def _host_name(host: str) -> str:
    """Returns a host name or address in lower case, without brackets, port and final dot."""
    host = host.strip().lower()
    if host.startswith("["):
        address = _IN_BRACKETS.fullmatch(host)
        return address[1] if address else host
    try:
        return str(ip_address(host))
    except ValueError:
        return host.rsplit(":", 1)[0].rstrip(".")
