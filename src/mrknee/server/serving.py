"""Start and shutdown of the service: opens the model, listens, ends on SIGTERM or SIGINT."""

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
from mrknee.server.access import Access, new_token, read_token
from mrknee.server.app import create_app
from mrknee.server.audit import AuditLog
from mrknee.server.limits import DEFAULT_LIMITS, ServiceLimits
from mrknee.server.metrics import Metrics
from mrknee.server.notes import Notes
from mrknee.server.protocol import Protocol
from mrknee.server.service import LIMITS, Service
from mrknee.server.worklist import WorkList, first_thresholds

HEADERS = [("X-Content-Type-Options", "nosniff")]
"""Headers of every response."""

GRACE_SECONDS = 120
"""Time for running requests to finish after a signal; the rest are cancelled."""

_CHECK_SECONDS = 1.0  # between two checks of all connections

_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


def serve(
    model: ModelPaths,
    *,
    exams: Sequence[Path] = (),
    host: str = "127.0.0.1",
    port: int = 8000,
    root_path: str = "",
    allowed_host: Sequence[str] = (),
    audit_log: Path | None = None,
    notes: Path | None = None,
    allow_missing_plane: bool = False,
    axes: str | None = None,
    token_file: Path | None = None,
    no_token: bool = False,
    threads: int | None = None,
    runtime: RuntimeName | None = None,
    limits: ServiceLimits = DEFAULT_LIMITS,
) -> None:
    """Serves a model until SIGTERM or SIGINT, then finishes the running requests.

    Args:
        model: a run folder, an ONNX file written by `mrknee export`, or the members of an ensemble.
        exams: data sets, or folders of exams, to show and to score in the background.
        host: the address or host name to listen on.
        port: the port; 0 lets the system choose a free one.
        root_path: path prefix of the service behind a proxy, such as /knee, or "".
        allowed_host: host names used by clients or the proxy, in addition to `host` and localhost.
        audit_log: a file that receives one line per exam; None: no audit log.
        notes: an SQLite file for readers' notes; None: notes are not kept.
        allow_missing_plane: whether to accept exams that lack series.
        axes: order of the axes in the files, such as `rows,cols,slices`; None expects
            `slices,rows,cols`, and refuses stacks that seem to be in another order.
        token_file: file with the token that requests must contain. None: none is needed at an
            address of this machine; otherwise a new token is created and printed.
        no_token: no token is needed at any address.
        threads: number of CPU threads; None: the default of the library.
        runtime: runtime of an ONNX file; None: ONNX Runtime.
        limits: limits of requests.

    Raises:
        MrkneeError: the model or the exams can't be opened, or the address can't be used.
    """
    began = time.perf_counter()
    if no_token and token_file is not None:
        raise SettingsError(
            "a token file and no token can't both be given",
            code="token",
            expected="--token-file or --no-token",
        )
    token = None if token_file is None else read_token(token_file)
    root_path = _checked_root_path(root_path)
    log = None if audit_log is None else AuditLog(audit_log)
    opened = load_model(model, threads=threads, runtime=runtime, limits=LIMITS)
    digest = digest_of(model)
    order = None if axes is None else parse_axes(axes)
    kept = None if notes is None else Notes(notes, digest)
    service = Service(
        opened,
        name_of(model),
        digest=digest,
        allow_missing_plane=allow_missing_plane,
        axes=order,
        limits=limits,
    )
    work_list = WorkList(first_thresholds(service.operating_points))
    for path in exams:
        work_list.add_data_set(path, axes=order)
    listening = _listen(host, port)
    reachable = not ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback
    if reachable:
        _warn_of_reachability(listening, no_token=no_token)
    at = f"[{host}]" if ":" in host else host
    served = ", ".join(map(str, paths_of(model)))
    line = f"serving {served} at http://{at}:{listening.getsockname()[1]}{root_path}"
    if reachable and token is None and not no_token:
        token = new_token()
        line += f"/?token={token}"
    metrics = Metrics()
    metrics.set_model(digest, __version__)
    app = create_app(
        service,
        hosts=[host, *allowed_host],
        root_path=root_path,
        audit_log=log,
        metrics=metrics,
        work_list=work_list,
        notes=kept,
        access=None if token is None else Access(token, root_path),
    )
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=type("Protocol", (Protocol,), {"max_connections": limits.max_connections}),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=[*HEADERS, ("X-Model-Digest", digest), ("X-Mrknee-Version", __version__)],
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    # log messages of libraries may quote the request, and would otherwise reach standard error
    logging.getLogger().addHandler(logging.NullHandler())
    server = _Server(config, line, metrics, began)
    # uvicorn handles both signals while it runs, and raises them again afterwards. These handlers
    # stop the server if a signal arrives before it runs, and have no effect afterwards.
    previous = {
        number: signal.signal(number, server.handle_exit)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    progress.show_progress(False)
    try:
        server.run([listening])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def digest_of(models: ModelPaths) -> str:
    """Returns the SHA-256 of a model's files, in hexadecimal.

    ONNX file: the output of `sha256sum FILE`. Run folder: the SHA-256 of the output of
    `sha256sum model.json weights.safetensors` in its folder `best`. Ensemble: the SHA-256 of the
    digests of its members, one per line, in their order.

    Args:
        models: a run folder, an ONNX file, or the members of an ensemble.
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
            "the root path is not valid",
            code="root-path",
            expected="a path such as /knee, of letters, digits and . _ ~ -",
            found=root_path,
        )
    return path


def _warn_of_reachability(listening: socket.socket, *, no_token: bool) -> None:
    lacking = "no authentication and no encryption" if no_token else "no encryption"
    print(
        f"mrknee serve: warning: other machines may reach {listening.getsockname()[0]}. There is "
        f"{lacking}: use a proxy that provides it (docs/how-to/serve.md).",
        file=sys.stderr,
        flush=True,
    )


class _Server(uvicorn.Server):
    """Server that reports when it listens, and then checks its connections regularly."""

    def __init__(self, config: uvicorn.Config, line: str, metrics: Metrics, began: float) -> None:
        super().__init__(config)
        self._line, self._metrics, self._began = line, metrics, began
        connections = self.server_state.connections
        metrics.add_gauge("connections", "open connections", lambda: len(connections))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._check_connections()
        self._metrics.set_startup(time.perf_counter() - self._began)
        print(self._line, flush=True)

    def _check_connections(self) -> None:
        for connection in list(self.server_state.connections):
            cast("Protocol", connection).check()
        asyncio.get_running_loop().call_later(_CHECK_SECONDS, self._check_connections)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:  # OverflowError: port out of range
        raise PlatformError(
            "the service can't listen on this address",
            code="address",
            expected="an address of this machine, and a free port from 0 to 65535",
            found=f"{host}, port {port}: {getattr(error, 'strerror', None) or error}",
            advice="choose another --port (0: any free one), or stop the program that uses it",
        ) from None
