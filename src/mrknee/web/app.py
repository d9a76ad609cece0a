"""Which address answers what; whatever goes wrong is reported in one form, JSON or page."""

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
from mrknee.report.templates import templates
from mrknee.report.words import title_of
from mrknee.web import schemas
from mrknee.web.arrivals import Arrivals
from mrknee.web.audit import AuditLog, Record
from mrknee.web.desk import Desk
from mrknee.web.gate import CLIENT_GONE, Gate
from mrknee.web.metrics import KIND, Metrics
from mrknee.web.refusal import RefusalError, busy
from mrknee.web.service import Answered, Service
from mrknee.web.uploads import Received, check_head, read_body

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}
"""A page loads nothing, runs nothing, and sends its form here only."""

_SILENT: Any = dict.fromkeys(
    ("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False
)
"""FastAPI would tell each request to OpenTelemetry wherever that is set up."""

_STACK = {
    "type": "string",
    "format": "binary",
    "description": "a .npy stack: (slices, rows, cols), uint8 or other numbers",
}
_FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Faulty} for status in (400, 408, 413, 415, 422, 500, 503, 507)
}

Answer = TypeVar("Answer")

Work = Callable[[Received, str], Answered[Answer]]
"""What is answered to an exam; the text is the request's id."""

_PATHS = ("/predict", "/explain", "/model", "/health", "/ready", "/metrics", "/openapi.json", "/")


def create_app(
    service: Service,
    *,
    hosts: Iterable[str] = (),
    root_path: str = "",
    audit_log: AuditLog | None = None,
    metrics: Metrics | None = None,
) -> ASGIApp:
    """The service's addresses; it is answered from one event loop.

    Args:
        service: the model, and what is answered with it.
        hosts: names it may be asked under, beside those of this machine only.
        root_path: the path of a proxy that it is below, such as /knee, or "".
        audit_log: where each exam gets a line.
        metrics: where answers are counted.
    """
    app = FastAPI(
        title="mrknee",
        version=__version__,
        description=f"Reads one knee MRI exam per request. {schemas.NOTICE.capitalize()}.",
        docs_url=None,  # these pages would load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_SILENT,
        servers=[{"url": root_path}] if root_path else None,
    )
    metrics = metrics or Metrics()
    intake = _Intake(service, audit_log)
    intake.count_in(metrics)
    _add_addresses(app, service, intake, metrics)

    def answer_fault(request: Request, error: Exception) -> Response:
        return _told(service, request, error)

    for kind in (RefusalError, HTTPException, ClientDisconnect, MrkneeError, Exception):
        app.add_exception_handler(kind, answer_fault)
    return Gate(app, hosts=hosts, root_path=root_path, paths=_PATHS, metrics=metrics)


class _Intake:
    """From a request with an exam to its answer: received, waiting, read, recorded."""

    def __init__(self, service: Service, audit_log: AuditLog | None) -> None:
        self._service, self._audit_log = service, audit_log
        self._arrivals, self._desk = Arrivals(), Desk()

    @property
    def full(self) -> bool:
        """Whether no exam can be taken now."""
        return self._desk.full

    def count_in(self, metrics: Metrics) -> None:
        """Adds what is on its way to the metrics."""
        arrivals, desk = self._arrivals, self._desk
        metrics.gauge("uploads", "bodies that are arriving", lambda: arrivals.count)
        metrics.gauge("upload_bytes", "bytes of them", lambda: arrivals.received)
        metrics.gauge("exams", "exams waiting and being read", lambda: desk.taken)

    async def answer(self, request: Request, work: Work[Answer]) -> Answer:
        """Receives an exam, has it read, and notes it in the audit log before it is answered.

        Raises:
            RefusalError: it can't be answered.
            ClientDisconnect: the client went away.
            OSError: the disk is full, for temporary files or for the audit log.
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
            refusal = _refusal(error)
            record.status, record.fault = refusal.status, refusal.fault.what
            await self._note(record)
            raise
        record.status, record.result = 200, answered.probabilities
        record.remarks = list(dict.fromkeys(remark.code for remark in answered.remarks))
        await self._note(record)
        return answered.content

    async def _answer(
        self, request: Request, work: Work[Answer], record: Record
    ) -> Answered[Answer]:
        content_type = check_head(request)
        self._desk.refuse_if_full()
        allow = self._service.allow_missing_plane
        async with self._arrivals.body(request) as body:

            def read(gone: threading.Event) -> Answered[Answer]:
                received = read_body(
                    body,
                    content_type,
                    self._service.model.series,
                    allow_missing_plane=allow,
                    axes=self._service.axes,
                )
                record.input = dict(received.digests)
                if gone.is_set():
                    raise ClientDisconnect
                return work(received, record.request_id)

            with self._desk.place():
                return await self._desk.read(read, _left(request))

    async def _note(self, record: Record) -> None:
        if self._audit_log is not None:
            await asyncio.to_thread(self._audit_log.write, record)


async def _left(request: Request) -> None:
    """Ends once the client has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_addresses(app: FastAPI, service: Service, intake: _Intake, metrics: Metrics) -> None:
    form = _form(service.model.series, required=not service.allow_missing_plane)

    @app.post("/predict", responses=_FAULTS, openapi_extra=form)
    async def predict(request: Request) -> schemas.Prediction:
        """Reads one exam: a probability per finding, and what the thresholds say."""
        return await intake.answer(request, service.predict)

    @app.post(
        "/explain",
        response_model=schemas.Explained,
        responses={**_FAULTS, 200: {"content": {"text/html": {}}}},
        openapi_extra=form,
    )
    async def explain(request: Request) -> schemas.Explained | HTMLResponse:
        """Which series and slices, and how much; a page for who prefers text/html."""
        if _wants_page(request):
            return HTMLResponse(await intake.answer(request, service.page), headers=PAGE_HEADERS)
        return await intake.answer(request, service.explain)

    @app.get("/model")
    async def model() -> schemas.ModelFacts:
        """What is served, and what a request may hold."""
        return service.facts()

    @app.get("/health")
    async def health() -> schemas.Health:
        """Whether the service answers (liveness)."""
        return schemas.Health()

    @app.get("/ready", responses={503: {"model": schemas.Faulty}})
    async def ready() -> schemas.Ready:
        """Whether an exam would be taken now (readiness)."""
        if intake.full:
            raise busy("the service is not ready", "a free place for an exam", 2)
        return schemas.Ready()

    @app.get("/metrics", response_class=Response, responses={200: {"content": {KIND: {}}}})
    async def count() -> Response:
        """Counters, for Prometheus."""
        return Response(metrics.text(), media_type=KIND)

    @app.get("/", response_class=HTMLResponse)
    async def start() -> HTMLResponse:
        """The start page, with a form for one exam."""
        return start_page(service)


def _form(series: SeriesList, *, required: bool) -> dict[str, Any]:
    """An exam's form as `/openapi.json` has it: the routes read it themselves, to bound it."""
    schema: dict[str, Any] = {"type": "object", "properties": dict.fromkeys(series.names, _STACK)}
    if required:
        schema["required"] = list(series.names)
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def start_page(
    service: Service, fault: schemas.Fault | None = None, status: int = 200
) -> HTMLResponse:
    """The page with the form, and what was wrong with the exam that was sent, if something was."""
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


def _told(service: Service, request: Request, error: Exception) -> Response:
    refusal = _refusal(error)
    if refusal.status == 500:
        _report(error)
    faulty = refusal.answer()
    if request.state.address == "/explain" and _wants_page(request):
        page = start_page(service, faulty.error, refusal.status)
        page.headers.update(refusal.headers)
        return page
    return JSONResponse(faulty.model_dump(), refusal.status, headers=refusal.headers)


def _refusal(error: Exception) -> RefusalError:
    """Any error as what its request gets."""
    if isinstance(error, RefusalError):
        return error
    if isinstance(error, HTTPException):
        what = {404: "there is nothing at this address", 405: "this address takes another method"}
        fault: MrkneeError = RequestError(
            what.get(error.status_code, error.detail),
            code="request",
            expected="POST /predict, POST /explain, or GET /, /model, /health, /ready, /metrics, "
            "/openapi.json",
        )
        return RefusalError(error.status_code, fault, headers=error.headers)
    if isinstance(error, ClientDisconnect):
        return RefusalError(
            CLIENT_GONE, RequestError("the client went away", code="client-gone")
        )  # nobody hears
    if isinstance(error, MrkneeError):  # the audit log's: everything else is a refusal by now
        return RefusalError(500, error)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        fault = PlatformError(
            "the service has no room for the exam",
            code="no-space",
            found="a full disk",
            advice="make room where the service keeps temporary files (TMPDIR) and its audit log",
        )
        return RefusalError(507, fault)
    fault = PlatformError(
        "the service failed at this exam, which is a fault of its own",
        code="internal",
        found=type(error).__name__,
        advice="the service's standard error says where",
    )
    return RefusalError(500, fault)


def _report(error: Exception) -> None:
    """Where a fault of our own is, on standard error: places in the code, nothing of the exam."""
    cause = error.__cause__ or error
    places = [f"{one.filename}:{one.lineno}" for one in traceback.extract_tb(cause.__traceback__)]
    lines = [f"mrknee serve: {type(cause).__name__} while answering a request", *places]
    if isinstance(error, MrkneeError):
        lines = [lines[0], str(error)]
    elif isinstance(cause, MrkneeError):
        lines.append(str(cause))
    elif isinstance(cause, OSError):  # of the service's own files: clients name none
        lines.append(f"{cause.strerror}: {cause.filename}")
    print("\n  ".join(lines), file=sys.stderr, flush=True)


def _wants_page(request: Request) -> bool:
    """Whether HTML is asked for by name, and not less than JSON."""
    wanted: dict[str, float] = {}
    for part in request.headers.get("accept", "").split(","):
        name, *parameters = (word.strip().lower() for word in part.split(";"))
        quality = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        try:
            wanted[name] = float(quality)
        except ValueError:
            wanted[name] = 0.0
    return wanted.get("text/html", 0.0) > wanted.get("application/json", 0.0)
