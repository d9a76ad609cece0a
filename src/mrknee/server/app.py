"""Routes of the service, and the conversion of every error to a JSON or HTML response."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from mrknee import __version__
from mrknee.errors import MrkneeError
from mrknee.exams import SeriesList
from mrknee.notice import RESEARCH_USE_ONLY
from mrknee.reports.templates import templates
from mrknee.reports.words import title_of
from mrknee.server import schemas
from mrknee.server.access import Access
from mrknee.server.api import ReadingRoom, add_api, describe_problems, disconnected
from mrknee.server.arrivals import Arrivals
from mrknee.server.audit import AuditLog, Record
from mrknee.server.metrics import CONTENT_TYPE, Metrics
from mrknee.server.middleware import Middleware
from mrknee.server.notes import Notes
from mrknee.server.page_files import page_file
from mrknee.server.refusal import RefusalError, as_refusal, busy, error_response, print_error
from mrknee.server.request_queue import RequestQueue
from mrknee.server.service import Answered, Service
from mrknee.server.uploads import Received, check_head, read_body
from mrknee.server.worklist import WorkList

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

_PATHS = (
    *("/predict", "/explain", "/model", "/health", "/ready", "/metrics", "/openapi.json"),
    *("/", "/upload"),
)


def create_app(
    service: Service,
    *,
    hosts: Iterable[str] = (),
    root_path: str = "",
    audit_log: AuditLog | None = None,
    metrics: Metrics | None = None,
    work_list: WorkList | None = None,
    notes: Notes | None = None,
    access: Access | None = None,
) -> ASGIApp:
    """Creates the ASGI application, which must be used from one event loop.

    The work list is scored between the events `lifespan.startup` and `lifespan.shutdown`.

    Args:
        service: computes the answers.
        hosts: host names accepted in addition to those that only this machine has.
        root_path: path prefix of the service behind a proxy, such as /knee, or "".
        audit_log: receives one line per exam; None: no audit log.
        metrics: counts the responses.
        work_list: the exams of the data sets that are served; None: none.
        notes: readers' notes; None: not kept.
        access: checks the token; None: no token is needed.
    """
    arrivals, queue = Arrivals(service.limits), RequestQueue(service.limits.max_waiting)
    handler = _ExamHandler(service, audit_log, arrivals, queue)
    room = ReadingRoom(service, work_list or WorkList(), queue, arrivals, notes)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        scoring = asyncio.create_task(room.scoring.run())
        yield
        scoring.cancel()
        if notes is not None:
            notes.close()

    app = FastAPI(
        title="mrknee",
        version=__version__,
        description=f"Reads one knee MRI exam per request. {RESEARCH_USE_ONLY.capitalize()}.",
        docs_url=None,  # these pages load scripts from another site
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
        servers=[{"url": root_path}] if root_path else None,
        lifespan=lifespan,
    )
    metrics = metrics or Metrics()
    handler.add_gauges(metrics)
    _add_routes(app, service, handler, metrics)
    add_api(app, room)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            describe_problems(described())
        return described()

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's way to extend it

    def handle_error(request: Request, error: Exception) -> Response:
        return _error_response(service, request, error)

    kinds = (RefusalError, HTTPException, RequestValidationError, ClientDisconnect, MrkneeError)
    for kind in (*kinds, Exception):
        app.add_exception_handler(kind, handle_error)
    return Middleware(
        app, hosts=hosts, root_path=root_path, paths=_PATHS, metrics=metrics, access=access
    )


class _ExamHandler:
    """Handles a request with an exam: receives, queues, processes and records it."""

    def __init__(
        self,
        service: Service,
        audit_log: AuditLog | None,
        arrivals: Arrivals,
        queue: RequestQueue,
    ) -> None:
        self._service, self._audit_log = service, audit_log
        self._arrivals, self._queue = arrivals, queue

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
        except asyncio.CancelledError:  # second signal
            record.status, record.fault = 503, "the service is shutting down"
            if self._audit_log is not None:
                self._audit_log.write(record)  # not in a thread: this task awaits nothing any more
            raise
        except Exception as error:
            refusal = as_refusal(error)
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
        content_type = check_head(request, self._arrivals.limits)
        self._queue.refuse_if_full()
        async with self._arrivals.body(request) as body:

            def process(abandoned: threading.Event) -> Answered[Answer]:
                received = read_body(
                    body,
                    content_type,
                    self._service.model.series,
                    required=self._service.required_series,
                    axes=self._service.axes,
                )
                record.input = dict(received.digests)
                if abandoned.is_set():
                    raise ClientDisconnect
                return work(received, record.request_id)

            with self._queue.place():
                return await self._queue.process(process, disconnected(request))

    async def _write(self, record: Record) -> None:
        if self._audit_log is not None:
            await asyncio.to_thread(self._audit_log.write, record)


def _add_routes(app: FastAPI, service: Service, handler: _ExamHandler, metrics: Metrics) -> None:
    form = _form_schema(service.model.series, service.required_series)

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

    @app.get("/upload", response_class=HTMLResponse)
    async def upload() -> HTMLResponse:
        """Page without scripts, with an upload form for one exam."""
        return start_page(service)

    @app.get("/", response_class=HTMLResponse)
    async def start(request: Request) -> Response:
        """The reading room, a page for browsers."""
        return page_file(request, "index.html")

    @app.get("/page/{name:path}", include_in_schema=False)
    async def page(request: Request, name: str) -> Response:
        """Scripts and styles of the reading room."""
        return page_file(request, name)


def _form_schema(series: SeriesList, required: Sequence[str]) -> dict[str, Any]:
    """Returns the OpenAPI schema of the upload form.

    FastAPI can't derive it: the routes parse the form themselves, to limit its size.
    """
    schema: dict[str, Any] = {"type": "object", "properties": dict.fromkeys(series.names, _STACK)}
    if required:
        schema["required"] = list(required)
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def start_page(
    service: Service, fault: schemas.Fault | None = None, status: int = 200
) -> HTMLResponse:
    """Returns the page with the upload form.

    Args:
        service: the service.
        fault: error of the last upload, shown above the form.
        status: the HTTP status.
    """
    text = (
        templates(Path(__file__).parent)
        .get_template("upload.html")
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
    refusal = as_refusal(error)
    if refusal.status == 500:
        print_error(error)
    if request.state.address == "/explain" and _prefers_html(request):
        page = start_page(service, refusal.response().error, refusal.status)
        page.headers.update(refusal.headers)
        return page
    return error_response(refusal, request.state.address, request.state.request_id)


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
