"""Which address answers what; whatever goes wrong is told in one form, JSON or page."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mrknee import __version__
from mrknee.errors import MrkneeError
from mrknee.exams import PLANES
from mrknee.files import FULL_DISK
from mrknee.report.templates import templates
from mrknee.report.words import title_of
from mrknee.web import schemas
from mrknee.web.desk import Desk
from mrknee.web.refusal import RefusalError
from mrknee.web.service import Files, Service
from mrknee.web.uploads import uploaded

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


def create_app(service: Service) -> FastAPI:
    """The service's addresses; it is answered from one event loop.

    Args:
        service: the model, and what is answered with it.
    """
    app = FastAPI(
        title="mrknee",
        version=__version__,
        description=f"Reads one knee MRI exam a request. {schemas.NOTICE.capitalize()}.",
        docs_url=None,  # these pages would load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_SILENT,
    )
    desk = Desk()
    form = _form(required=not service.allow_missing_plane)

    async def read(request: Request, work: Callable[[Files], Answer]) -> Answer:
        with desk.place():
            async with uploaded(request, allow_missing_plane=service.allow_missing_plane) as files:
                return await desk.read(lambda: work(files))

    @app.post("/predict", responses=_FAULTS, openapi_extra=form)
    async def predict(request: Request) -> schemas.Prediction:
        """Reads one exam: a calibrated probability a finding, and what the thresholds say."""
        return await read(request, service.predict)

    @app.post(
        "/explain",
        response_model=schemas.Explained,
        responses={**_FAULTS, 200: {"content": {"text/html": {}}}},
        openapi_extra=form,
    )
    async def explain(request: Request) -> schemas.Explained | HTMLResponse:
        """Which planes and slices, and how much; a page for who prefers text/html."""
        if _wants_page(request):
            return HTMLResponse(await read(request, service.page), headers=PAGE_HEADERS)
        return await read(request, service.explain)

    @app.get("/model")
    async def model() -> schemas.ModelFacts:
        """What is served, and what a request may hold."""
        return service.facts()

    @app.get("/health")
    async def health() -> schemas.Health:
        """Whether the service answers."""
        return schemas.Health()

    @app.get("/", response_class=HTMLResponse)
    async def start() -> HTMLResponse:
        """The start page, with a form for one exam."""
        return start_page(service)

    def answer_fault(request: Request, error: Exception) -> Response:
        return _told(service, request, error)

    for kind in (RefusalError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, answer_fault)
    return app


def _form(*, required: bool) -> dict[str, Any]:
    """An exam's form as `/openapi.json` has it: the routes read it themselves, to bound it."""
    schema: dict[str, Any] = {"type": "object", "properties": dict.fromkeys(PLANES, _STACK)}
    if required:
        schema["required"] = list(PLANES)
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
            planes=PLANES,
            title_of=title_of,
            fault=fault,
        )
    )
    return HTMLResponse(text, status, headers=PAGE_HEADERS)


def _told(service: Service, request: Request, error: Exception) -> Response:
    refusal = _refusal(error)
    if refusal.status == 500:
        _report(error)
    fault = schemas.Fault(
        what=refusal.fault.what,
        field=refusal.field,
        expected=refusal.fault.expected,
        found=refusal.fault.found,
        advice=refusal.fault.advice,
    )
    if request.url.path == "/explain" and _wants_page(request):
        page = start_page(service, fault, refusal.status)
        page.headers.update(refusal.headers)
        return page
    return JSONResponse(
        schemas.Faulty(error=fault).model_dump(), refusal.status, headers=refusal.headers
    )


def _refusal(error: Exception) -> RefusalError:
    """Any error as what its request gets."""
    if isinstance(error, RefusalError):
        return error
    if isinstance(error, HTTPException):
        what = {404: "there is nothing at this address", 405: "this address takes another method"}
        fault = MrkneeError(
            what.get(error.status_code, error.detail),
            expected="POST /predict, POST /explain, GET /, /model, /health or /openapi.json",
        )
        return RefusalError(error.status_code, fault, headers=error.headers)
    if isinstance(error, ClientDisconnect):
        return RefusalError(
            400, MrkneeError("the request ended before it was whole")
        )  # nobody hears
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        fault = MrkneeError(
            "the service has no room for the exam",
            found="a full disk",
            advice="make room where the service keeps temporary files (TMPDIR)",
        )
        return RefusalError(507, fault)
    fault = MrkneeError(
        "the service failed at this exam, which is a fault of its own",
        found=type(error).__name__,
        advice="the service's standard error says where",
    )
    return RefusalError(500, fault)


def _report(error: Exception) -> None:
    """Where a fault of our own is, on standard error: places in the code, nothing of the exam."""
    cause = error.__cause__ or error
    places = [f"{one.filename}:{one.lineno}" for one in traceback.extract_tb(cause.__traceback__)]
    lines = [f"mrknee serve: {type(cause).__name__} while answering a request", *places]
    if isinstance(cause, MrkneeError):
        lines.append(str(cause))
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
