"""Routes of the service, and the conversion of every error to a JSON or HTML response."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from mrknee import __version__
from mrknee.errors import MrkneeError, PlatformError, RequestError
from mrknee.exams import SeriesList
from mrknee.files import FULL_DISK
from mrknee.notice import RESEARCH_USE_ONLY
from mrknee.reports.templates import templates
from mrknee.reports.words import title_of
from mrknee.server import schemas
from mrknee.server.arrivals import Arrivals
from mrknee.server.audit import AuditLog, Record
from mrknee.server.metrics import CONTENT_TYPE, Metrics
from mrknee.server.middleware import CLIENT_GONE, Middleware
from mrknee.server.refusal import RefusalError, busy
from mrknee.server.request_queue import RequestQueue
from mrknee.server.service import Answered, Service
from mrknee.server.uploads import Received, check_head, read_body

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}
"""Pages load no external resources, run no scripts, and submit forms to this service only."""

_NO_TELEMETRY: Any = dict.fromkeys(
    ("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False
)
"""FastAPI would otherwise report each request to OpenTelemetry if that is configured."""

_STACK = {
    "type": "string",
    "format": "binary",
    "description": "a .npy stack: (slices, rows, columns), uint8 or another numeric type",
}
_FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Faulty} for status in (400, 408, 413, 415, 422, 500, 503, 507)
}

Answer = TypeVar("Answer")

Work = Callable[[Received, str], Answered[Answer]]
"""Computes the answer for an exam; the string is the request id."""

_PATHS = ("/predict", "/explain", "/model", "/health", "/ready", "/metrics", "/openapi.json", "/")


def create_app(
    service: Service,
    *,
    hosts: Iterable[str] = (),
    root_path: str = "",
    audit_log: AuditLog | None = None,
    metrics: Metrics | None = None,
) -> ASGIApp:
    """Creates the ASGI application, which must be used from one event loop.

    Args:
        service: computes the answers.
        hosts: host names accepted in addition to those that only this machine has.
        root_path: path prefix of the service behind a proxy, such as /knee, or "".
        audit_log: receives one line per exam; None: no audit log.
        metrics: counts the responses.
    """
    app = FastAPI(
        title="mrknee",
        version=__version__,
        description=f"Reads one knee MRI exam per request. {RESEARCH_USE_ONLY.capitalize()}.",
        docs_url=None,  # these pages load scripts from another site
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
        servers=[{"url": root_path}] if root_path else None,
    )
    metrics = metrics or Metrics()
    handler = _ExamHandler(service, audit_log)
    handler.add_gauges(metrics)
    _add_routes(app, service, handler, metrics)

    def handle_error(request: Request, error: Exception) -> Response:
        return _error_response(service, request, error)

    for kind in (RefusalError, HTTPException, ClientDisconnect, MrkneeError, Exception):
        app.add_exception_handler(kind, handle_error)
    return Middleware(app, hosts=hosts, root_path=root_path, paths=_PATHS, metrics=metrics)


class _ExamHandler:
    """Handles a request with an exam: receives, queues, processes and records it."""

    def __init__(self, service: Service, audit_log: AuditLog | None) -> None:
        self._service, self._audit_log = service, audit_log
        self._arrivals, self._queue = Arrivals(), RequestQueue()

    @property
    def full(self) -> bool:
        """Whether no further exam is accepted."""
        return self._queue.full

    def add_gauges(self, metrics: Metrics) -> None:
        """Adds gauges of the uploads and exams in progress to the metrics."""
        arrivals, queue = self._arrivals, self._queue
        metrics.add_gauge("uploads", "uploads in progress", lambda: arrivals.count)
        metrics.add_gauge(
            "upload_bytes", "bytes received of the uploads in progress", lambda: arrivals.received
        )
        metrics.add_gauge("exams", "exams waiting or being processed", lambda: queue.taken)

    async def answer(self, request: Request, work: Work[Answer]) -> Answer:
        """Receives and processes an exam, and writes the audit record before returning the answer.

        Raises:
            RefusalError: the request is refused.
            ClientDisconnect: the client disconnected.
            OSError: the disk for temporary files or for the audit log is full.
        """
        record = Record(
            request_id=request.state.request_id,
            path=request.state.address,
            model_digest=self._service.digest,
            mrknee=__version__,
        )
        try:
            answered = await self._answer(request, work, record)
        except Exception as error:
            refusal = _as_refusal(error)
            record.status, record.fault = refusal.status, refusal.fault.what
            await self._write(record)
            raise
        record.status, record.result = 200, answered.probabilities
        record.remarks = list(dict.fromkeys(remark.code for remark in answered.remarks))
        await self._write(record)
        return answered.content

    async def _answer(
        self, request: Request, work: Work[Answer], record: Record
    ) -> Answered[Answer]:
        content_type = check_head(request)
        self._queue.refuse_if_full()
        allow = self._service.allow_missing_plane
        async with self._arrivals.body(request) as body:

            def process(abandoned: threading.Event) -> Answered[Answer]:
                received = read_body(
                    body,
                    content_type,
                    self._service.model.series,
                    allow_missing_plane=allow,
                    axes=self._service.axes,
                )
                record.input = dict(received.digests)
                if abandoned.is_set():
                    raise ClientDisconnect
                return work(received, record.request_id)

            with self._queue.place():
                return await self._queue.process(process, _wait_for_disconnect(request))

    async def _write(self, record: Record) -> None:
        if self._audit_log is not None:
            await asyncio.to_thread(self._audit_log.write, record)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_routes(app: FastAPI, service: Service, handler: _ExamHandler, metrics: Metrics) -> None:
    form = _form_schema(service.model.series, required=not service.allow_missing_plane)

    @app.post("/predict", responses=_FAULTS, openapi_extra=form)
    async def predict(request: Request) -> schemas.Prediction:
        """One probability per finding of an exam, compared with the model's thresholds."""
        return await handler.answer(request, service.predict)

    @app.post(
        "/explain",
        response_model=schemas.Explained,
        responses={**_FAULTS, 200: {"content": {"text/html": {}}}},
        openapi_extra=form,
    )
    async def explain(request: Request) -> schemas.Explained | HTMLResponse:
        """Contribution of each series and slice to each finding.

        Returned as an HTML page if the client prefers text/html.
        """
        if _prefers_html(request):
            return HTMLResponse(await handler.answer(request, service.page), headers=PAGE_HEADERS)
        return await handler.answer(request, service.explain)

    @app.get("/model")
    async def model() -> schemas.ModelFacts:
        """Properties of the model, and the limits of a request."""
        return service.facts()

    @app.get("/health")
    async def health() -> schemas.Health:
        """Whether the service responds (liveness)."""
        return schemas.Health()

    @app.get("/ready", responses={503: {"model": schemas.Faulty}})
    async def ready() -> schemas.Ready:
        """Whether an exam would be accepted now (readiness)."""
        if handler.full:
            raise busy("the service is not ready", "a free place in the queue of exams", 2)
        return schemas.Ready()

    @app.get("/metrics", response_class=Response, responses={200: {"content": {CONTENT_TYPE: {}}}})
    async def count() -> Response:
        """Metrics in Prometheus's text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/", response_class=HTMLResponse)
    async def start() -> HTMLResponse:
        """Start page with an upload form for one exam."""
        return start_page(service)


def _form_schema(series: SeriesList, *, required: bool) -> dict[str, Any]:
    """Returns the OpenAPI schema of the upload form.

    FastAPI can't derive it: the routes parse the form themselves, to limit its size.
    """
    schema: dict[str, Any] = {"type": "object", "properties": dict.fromkeys(series.names, _STACK)}
    if required:
        schema["required"] = list(series.names)
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def start_page(
    service: Service, fault: schemas.Fault | None = None, status: int = 200
) -> HTMLResponse:
    """Returns the start page with the upload form.

    Args:
        service: the service.
        fault: error of the last upload, shown above the form.
        status: the HTTP status.
    """
    text = (
        templates(Path(__file__).parent)
        .get_template("index.html")
        .render(
            facts=service.facts(),
            points=service.operating_points,
            calibrated=service.calibrated,
            uncalibrated=service.uncalibrated,
            series=service.model.series.names,
            title_of=partial(title_of, titles=service.model.titles),
            fault=fault,
        )
    )
    return HTMLResponse(text, status, headers=PAGE_HEADERS)


def _error_response(service: Service, request: Request, error: Exception) -> Response:
    refusal = _as_refusal(error)
    if refusal.status == 500:
        _print_error(error)
    faulty = refusal.response()
    if request.state.address == "/explain" and _prefers_html(request):
        page = start_page(service, faulty.error, refusal.status)
        page.headers.update(refusal.headers)
        return page
    return JSONResponse(faulty.model_dump(), refusal.status, headers=refusal.headers)


def _as_refusal(error: Exception) -> RefusalError:
    """Converts any error to a refusal."""
    if isinstance(error, RefusalError):
        return error
    if isinstance(error, HTTPException):
        what = {404: "unknown path", 405: "this path does not support the method"}
        fault: MrkneeError = RequestError(
            what.get(error.status_code, error.detail),
            code="request",
            expected="POST /predict, POST /explain, or GET /, /model, /health, /ready, /metrics, "
            "/openapi.json",
        )
        return RefusalError(error.status_code, fault, headers=error.headers)
    if isinstance(error, ClientDisconnect):  # recorded only; nobody receives it
        fault = RequestError("the client disconnected", code="client-gone")
        return RefusalError(CLIENT_GONE, fault)
    if isinstance(error, MrkneeError):  # from the audit log; others are refusals already
        return RefusalError(500, error)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        fault = PlatformError(
            "the service has no disk space left for the exam",
            code="no-space",
            found="a full disk",
            advice="free disk space for temporary files (TMPDIR) and the audit log",
        )
        return RefusalError(507, fault)
    fault = PlatformError(
        "internal error of the service",
        code="internal",
        found=type(error).__name__,
        advice="see the standard error of the service for the place in the code",
    )
    return RefusalError(500, fault)


def _print_error(error: Exception) -> None:
    """Prints the places of an internal error in the code to standard error.

    The text of an unexpected exception is not printed, because it may contain parts of the exam.
    """
    cause = error.__cause__ or error
    places = [f"{one.filename}:{one.lineno}" for one in traceback.extract_tb(cause.__traceback__)]
    lines = [f"mrknee serve: {type(cause).__name__} while answering a request", *places]
    if isinstance(error, MrkneeError):
        lines = [lines[0], str(error)]
    elif isinstance(cause, MrkneeError):
        lines.append(str(cause))
    elif isinstance(cause, OSError):  # concerns files of the service: clients supply no paths
        lines.append(f"{cause.strerror}: {cause.filename}")
    print("\n  ".join(lines), file=sys.stderr, flush=True)


def _prefers_html(request: Request) -> bool:
    """Returns whether the Accept header names text/html and does not prefer JSON."""
    wanted: dict[str, float] = {}
    for part in request.headers.get("accept", "").split(","):
        name, *parameters = (word.strip().lower() for word in part.split(";"))
        quality = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        try:
            wanted[name] = float(quality)
        except ValueError:
            wanted[name] = 0.0
    return wanted.get("text/html", 0.0) > wanted.get("application/json", 0.0)
