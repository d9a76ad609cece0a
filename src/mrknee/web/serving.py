"""Opens the model, listens, and ends when told to."""

from __future__ import annotations

import logging
import signal
import socket
from pathlib import Path

import uvicorn

from mrknee.errors import MrkneeError
from mrknee.inference.model import open_model
from mrknee.inference.runtimes import RuntimeName
from mrknee.web.app import create_app
from mrknee.web.service import LIMITS, Service

HEADERS = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
"""Of every answer: what is said of a patient stays in no browser's memory."""

GRACE_SECONDS = 120
"""When told to end, running requests get so long; a client that stopped listening gets no more."""


def serve(
    model: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_missing_plane: bool = False,
    threads: int | None = None,
    runtime: RuntimeName | None = None,
) -> None:
    """Serves a model until SIGTERM or SIGINT, and finishes what it was asked before that.

    Args:
        model: a run folder, or an ONNX file that `mrknee export` wrote.
        host: the address or name to listen at.
        port: the port; 0 lets the system choose a free one.
        allow_missing_plane: read exams that lack one or two planes too.
        threads: processor threads to compute with; None leaves it to the library.
        runtime: what computes an ONNX file; None takes ONNX Runtime.

    Raises:
        MrkneeError: the model can't be opened, or nobody can listen there.
    """
    opened = open_model(model, threads=threads, runtime=runtime, limits=LIMITS)
    name = model.resolve().name
    service = Service(opened, name, allow_missing_plane=allow_missing_plane)
    listening = _listen(host, port)
    at = f"[{host}]" if ":" in host else host
    told = f"serving {model} at http://{at}:{listening.getsockname()[1]}"
    config = uvicorn.Config(
        create_app(service),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=HEADERS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    # what libraries note would otherwise reach standard error, and may quote what was sent
    logging.getLogger().addHandler(logging.NullHandler())
    server = _Server(config, told)
    # uvicorn handles both while it runs and raises them again when it has ended: here they end it
    # before it runs, and then nothing more
    before = {
        number: signal.signal(number, server.handle_exit)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        server.run([listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    """Tells when it really listens."""

    def __init__(self, config: uvicorn.Config, told: str) -> None:
        super().__init__(config)
        self._told = told

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self._told, flush=True)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:  # OverflowError: no such port
        raise MrkneeError(
            "the service can't listen there",
            expected="an address of this machine, and a free port from 0 to 65535",
            found=f"{host}, port {port}: {getattr(error, 'strerror', None) or error}",
            advice="choose another --port (0: any free one), or end what listens there",
        ) from None
