"""Opens the model, listens, and ends when told to."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import socket
import sys
import time
from collections.abc import Sequence
from hashlib import file_digest, sha256
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import uvicorn

from mrknee import __version__, progress
from mrknee.errors import PlatformError, SettingsError
from mrknee.exams.axes import parse_axes
from mrknee.inference.model import ModelPaths, load_model, name_of, paths_of
from mrknee.inference.runtimes import RuntimeName
from mrknee.run_folder import MODEL_FILE, WEIGHTS_FILE, RunFolder
from mrknee.web.app import create_app
from mrknee.web.audit import AuditLog
from mrknee.web.metrics import Metrics
from mrknee.web.protocol import Protocol
from mrknee.web.service import LIMITS, Service

HEADERS = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
"""Of every answer: what is said of a patient stays in no browser's memory."""

GRACE_SECONDS = 120
"""When told to end, running requests get so long; a client that stopped listening gets no more."""


_CHECK_SECONDS = 1.0  # between two looks at all connections

_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


def serve(
    model: ModelPaths,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    root_path: str = "",
    allowed_host: Sequence[str] = (),
    audit_log: Path | None = None,
    allow_missing_plane: bool = False,
    axes: str | None = None,
    threads: int | None = None,
    runtime: RuntimeName | None = None,
) -> None:
    """Serves a model until SIGTERM or SIGINT, and finishes what it was asked before that.

    Args:
        model: a run folder, or an ONNX file that `mrknee export` wrote; or an ensemble's members.
        host: the address or name to listen at.
        port: the port; 0 lets the system choose a free one.
        root_path: the path of a proxy that the service is below, such as /knee, or "".
        allowed_host: names that clients or the proxy ask under, beside `host` and localhost.
        audit_log: a file that gets one line per exam; None: none is kept.
        allow_missing_plane: read exams that lack series too.
        axes: the order of the files' axes, such as `rows,cols,slices`; None expects
            `slices,rows,cols`, and refuses stacks that seem to be in another order.
        threads: processor threads to compute with; None leaves it to the library.
        runtime: what computes an ONNX file; None takes ONNX Runtime.

    Raises:
        MrkneeError: the model can't be opened, or nobody can listen there.
    """
    began = time.perf_counter()
    root_path = _checked_root_path(root_path)
    log = None if audit_log is None else AuditLog(audit_log)
    opened = load_model(model, threads=threads, runtime=runtime, limits=LIMITS)
    digest = digest_of(model)
    service = Service(
        opened,
        name_of(model),
        digest=digest,
        allow_missing_plane=allow_missing_plane,
        axes=None if axes is None else parse_axes(axes),
    )
    listening = _listen(host, port)
    _warn_if_reachable(listening)
    at = f"[{host}]" if ":" in host else host
    served = ", ".join(map(str, paths_of(model)))
    told = f"serving {served} at http://{at}:{listening.getsockname()[1]}{root_path}"
    metrics = Metrics()
    metrics.serves(digest, __version__)
    app = create_app(
        service,
        hosts=[host, *allowed_host],
        root_path=root_path,
        audit_log=log,
        metrics=metrics,
    )
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=[*HEADERS, ("X-Model-Digest", digest), ("X-Mrknee-Version", __version__)],
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    # what libraries note would otherwise reach standard error, and may quote what was sent
    logging.getLogger().addHandler(logging.NullHandler())
    server = _Server(config, told, metrics, began)
    # uvicorn handles both while it runs and raises them again when it has ended: here they end it
    # before it runs, and then nothing more
    before = {
        number: signal.signal(number, server.handle_exit)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    progress.show_progress(False)
    try:
        server.run([listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def digest_of(models: ModelPaths) -> str:
    """The SHA-256 of a model's files, in hexadecimal.

    Of an ONNX file it is what `sha256sum FILE` prints. Of a run folder it is the SHA-256 of what
    `sha256sum model.json weights.safetensors` prints in its folder `best`. Of an ensemble it is the
    SHA-256 of its members' digests, a line each, in their order.

    Args:
        models: a run folder, or an ONNX file; or an ensemble's members.
    """
    digests = [_digest_of_one(model) for model in paths_of(models)]
    if len(digests) == 1:
        return digests[0]
    return sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


def _digest_of_one(model: Path) -> str:
    if model.is_file():
        return _sha256(model)
    folder = RunFolder.model_in(model)
    names = (MODEL_FILE, WEIGHTS_FILE)
    lines = "".join(f"{_sha256(folder / name)}  {name}\n" for name in names)
    return sha256(lines.encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def _checked_root_path(root_path: str) -> str:
    path = root_path.rstrip("/")
    if path and not _ROOT_PATH.fullmatch(path):
        raise SettingsError(
            "the service can't be below that path",
            code="root-path",
            expected="a path such as /knee, of letters, digits and . _ ~ -",
            found=root_path,
        )
    return path


def _warn_if_reachable(listening: socket.socket) -> None:
    address = listening.getsockname()[0]
    if not ip_address(address.partition("%")[0]).is_loopback:
        print(
            f"mrknee serve: warning: other machines may reach {address}. There is no password and "
            "no encryption: put a proxy with both before it (docs/how-to/serve.md).",
            file=sys.stderr,
            flush=True,
        )


class _Server(uvicorn.Server):
    """Says when it really listens, and looks at its connections from then on."""

    def __init__(self, config: uvicorn.Config, told: str, metrics: Metrics, began: float) -> None:
        super().__init__(config)
        self._told, self._metrics, self._began = told, metrics, began
        connections = self.server_state.connections
        metrics.gauge("connections", "open connections", lambda: len(connections))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._check_connections()
        self._metrics.started(time.perf_counter() - self._began)
        print(self._told, flush=True)

    def _check_connections(self) -> None:
        for connection in list(self.server_state.connections):
            cast("Protocol", connection).check()
        asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._check_connections)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:  # OverflowError: no such port
        raise PlatformError(
            "the service can't listen there",
            code="address",
            expected="an address of this machine, and a free port from 0 to 65535",
            found=f"{host}, port {port}: {getattr(error, 'strerror', None) or error}",
            advice="choose another --port (0: any free one), or end what listens there",
        ) from None
