"""Host and Origin checks, request ids, HEAD, the proxy path, and metrics."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mrknee import __version__
from mrknee.errors import MrkneeError
from mrknee.exams import Exam, Plane
from mrknee.server.middleware import _host_name
from mrknee.server.serving import digest_of, serve
from tests.server.client import Served, exam_form, form, random_exam
from tests.server.test_protocol import connected, read_all

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def proxied(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with a root path and an additional host name."""
    folder = tmp_path_factory.mktemp("proxied")
    words = ("--root-path", "/knee/", "--allowed-host", "knee.example")
    with Served(onnx_file, folder, *words) as service:
        yield service
        assert service.end() == 0


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8000", "[::1]:9", "localhost."])  # fmt: skip # noqa: E501
def test_names_of_this_machine_are_accepted(served: Served, host: str) -> None:
    """Port and case don't matter."""
    assert served.ask("GET", "/health", headers={"Host": host}).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "", "user@localhost", "localhost:80:evil.example", "[::1]evil.example", "[127.0.0.1", "[::1]:80:evil.example"])  # fmt: skip # noqa: E501
@pytest.mark.parametrize("path", ["/", "/model", "/health", "/nothing"])
def test_other_names_are_refused(served: Served, host: str, path: str) -> None:
    """Unknown host names are refused on every path (DNS rebinding)."""
    answer = served.ask("GET", path, headers={"Host": host})
    assert answer.status == 421
    assert "--allowed-host" in answer.fault["advice"]


def test_host_names_can_be_added(proxied: Served) -> None:
    """The name given to --allowed-host is accepted, its subdomains are not."""
    assert proxied.ask("GET", "/health", headers={"Host": "knee.example"}).status == 200
    assert proxied.ask("GET", "/health", headers={"Host": "a.knee.example"}).status == 421


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://["])  # fmt: skip # noqa: E501
def test_forms_of_other_sites_are_refused(served: Served, origin: str) -> None:
    """An exam sent by a page of another origin is refused."""
    headers = {"Origin": origin, "Host": f"127.0.0.1:{served.port}"}
    answer = served.ask("POST", "/predict", exam_form(random_exam(1)), headers=headers)
    assert answer.status == 403
    own = headers | {"Origin": f"http://127.0.0.1:{served.port}"}
    assert served.ask("POST", "/predict", exam_form(random_exam(1)), headers=own).status == 200


def test_an_origin_is_compared_without_the_default_port(proxied: Served) -> None:
    """Host may contain the default port of the scheme, which browsers omit; other ports differ."""
    sent = exam_form(random_exam(1))
    for origin, host, status in (
        ("https://knee.example", "knee.example:443", 200),
        ("http://knee.example", "knee.example:80", 200),
        ("https://knee.example", "knee.example:80", 403),
        ("http://knee.example", "knee.example:443", 403),
        ("https://", "knee.example", 403),
    ):
        headers = {"Origin": origin, "Host": host}
        assert proxied.ask("POST", "/predict", sent, headers=headers).status == status


def test_every_origin_header_must_match_the_host(served: Served) -> None:
    """A second Origin header with another site is refused."""
    with connected(served) as connection:
        own = f"localhost:{served.port}"
        head = (
            f"GET /health HTTP/1.1\r\nConnection: close\r\nHost: {own}\r\nOrigin: http://{own}\r\n"
        )
        connection.sendall(f"{head}\r\n".encode())
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")
    with connected(served) as connection:
        connection.sendall(f"{head}Origin: http://evil.example\r\n\r\n".encode())
        assert read_all(connection).startswith(b"HTTP/1.1 403 ")


def test_names_are_compared_without_port_and_brackets() -> None:
    """IPv6 addresses are compared with and without brackets."""
    names = ["[::1]:80", "::1", "A.b:1", "a.b.", "127.0.0.1:8000"]
    assert [_host_name(name) for name in names] == ["::1", "::1", "a.b", "a.b", "127.0.0.1"]


@pytest.mark.parametrize("path", ["/", "/model", "/health", "/ready", "/openapi.json", "/metrics"])
def test_head_is_answered_like_get_without_a_body(served: Served, path: str) -> None:
    """HEAD returns the status and the Content-Length of GET, and no body."""
    with connected(served) as connection:
        ask = f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(ask.encode())
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b""
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None
    assert int(length[1]) > 0
    assert served.ask("HEAD", "/predict").status == 405


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/nothing", 404),
        ("POST", "/predict", 415),
        ("GET", "/", 200),
    ],
)
def test_every_response_has_a_request_id_and_identifies_the_model(
    served: Served, onnx_file: Path, method: str, path: str, status: int
) -> None:
    """Responses have the client's id if it is valid, the model's digest, and the version."""
    body = b"" if method == "POST" else None
    own = served.ask(method, path, body, kind="x", headers={"X-Request-ID": "a-1_B.2"})
    assert own.status == status
    assert own.headers["X-Request-ID"] == "a-1_B.2"
    assert own.headers["X-Model-Digest"] == digest_of(onnx_file)
    assert own.headers["X-Mrknee-Version"] == __version__
    for odd in ("", "a b", "x" * 129, '"><script>', "{{7*7}}"):
        found = served.ask(method, path, body, kind="x", headers={"X-Request-ID": odd})
        assert re.fullmatch("[0-9a-f]{32}", found.headers["X-Request-ID"])


def test_digests_equal_the_output_of_sha256sum(onnx_file: Path, run_folder: Path) -> None:
    """A file has its own digest; a run folder has that of the list of its two files."""

    def printed(*command: str, given: bytes = b"") -> bytes:
        done = subprocess.run(  # noqa: S603  # our own command
            command, input=given, capture_output=True, check=True, cwd=run_folder / "best"
        )
        return done.stdout

    assert printed("sha256sum", str(onnx_file)).split()[0].decode() == digest_of(onnx_file)
    files = printed("sha256sum", "model.json", "weights.safetensors")
    assert printed("sha256sum", given=files).split()[0].decode() == digest_of(run_folder)


def test_metrics_count_responses_by_path(onnx_file: Path, tmp_path: Path) -> None:
    """Known paths are counted separately, others together; model and memory are included."""
    with Served(onnx_file, tmp_path) as service:
        service.predict(random_exam(1))
        service.ask("POST", "/predict", form([]))
        for number in range(3):
            service.ask("GET", f"/nothing-{number}")
        answer = service.ask("GET", "/metrics")
        assert service.end() == 0
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = answer.body.decode()
    for line in (
        'mrknee_requests_total{path="/predict",status="200"} 1.0',
        'mrknee_requests_total{path="/predict",status="422"} 1.0',
        'mrknee_requests_total{path="other",status="404"} 3.0',
        'mrknee_request_seconds_count{path="/predict"} 2.0',
        f'mrknee_model{{digest="{digest_of(onnx_file)}",version="{__version__}"}} 1.0',
        "mrknee_exams 0.0",
        "mrknee_uploads 0.0",
    ):
        assert line in text.splitlines()
    seconds = re.search(r"^mrknee_startup_seconds (\S+)$", text, re.MULTILINE)
    assert seconds is not None
    assert float(seconds[1]) > 0
    assert "process_resident_memory_bytes" in text
    assert "nothing-" not in text


def test_paths_are_answered_with_and_without_the_root_path(proxied: Served) -> None:
    """The proxy may remove the root path or keep it; /knee redirects to /knee/."""
    for path in ("/", "/knee/", "/model", "/knee/model", "/knee/health"):
        assert proxied.ask("GET", path).status == 200
    answer = proxied.ask("GET", "/knee")
    assert (answer.status, answer.headers["Location"]) == (307, "/knee/")
    assert proxied.ask("GET", "/kneed").status == 404
    assert proxied.ask("GET", "/openapi.json").json["servers"] == [{"url": "/knee"}]
    accept = "text/html"
    body = exam_form(random_exam(1))
    assert proxied.ask("POST", "/knee/explain", body, accept=accept).status == 200
    fault = proxied.ask("POST", "/knee/explain", form([]), accept=accept)
    assert fault.headers["Content-Type"].startswith("text/html")


def test_pages_have_relative_links_only(served: Served) -> None:
    """Forms and links of the upload page are relative, also if the page shows an error."""
    start = served.ask("GET", "/upload").body
    fault = served.ask("POST", "/explain", form([]), accept="text/html").body
    for page in (start, fault):
        assert b'action="explain"' in page
        assert not re.search(rb'(?:href|action|src)="/', page)


@pytest.mark.parametrize("path", ["knee", "/a//b", "/a b", "/a?b", "//evil.example"])
def test_an_invalid_root_path_is_one_clear_error(onnx_file: Path, path: str) -> None:
    """Invalid root paths are refused before the model is opened."""
    with pytest.raises(MrkneeError, match="root path is not valid"):
        serve(onnx_file, port=0, root_path=path)


def test_a_warning_is_printed_for_public_addresses(onnx_file: Path, tmp_path: Path) -> None:
    """A service at 0.0.0.0 without a token prints a warning to standard error."""
    words = ("--host", "0.0.0.0", "--no-token")  # noqa: S104
    with Served(onnx_file, tmp_path, *words, at="0.0.0.0") as service:  # noqa: S104
        assert "token" not in service.line
        assert service.ask("GET", "/model").status == 200
        assert service.ask("GET", "/health").status == 200
        assert service.ask("GET", "/health", headers={"Host": "evil.example"}).status == 421
        assert service.end() == 0
        assert "warning: other machines may reach 0.0.0.0" in service.stderr
        assert "no authentication" in service.stderr


ALL_ZERO, CONSTANT = "all-zero", "constant"


def test_answers_contain_remarks_about_unusual_exams(served: Served) -> None:
    """All-zero and constant stacks cause remarks in JSON and HTML; normal exams cause none."""
    exam = random_exam(1)
    black = np.zeros((3, 48, 56), np.uint8)
    odd = Exam("0001", {**exam.stacks, Plane.AXIAL: black, Plane.CORONAL: black + 7})
    for path in ("/predict", "/explain"):
        remarks = served.ask("POST", path, exam_form(odd)).json["remarks"]
        assert {(one["code"], one["series"]) for one in remarks} >= {(ALL_ZERO, "axial"), (CONSTANT, "coronal")}  # fmt: skip # noqa: E501
        codes = {one["code"] for one in served.ask("POST", path, exam_form(exam)).json["remarks"]}
        assert not codes & {ALL_ZERO, CONSTANT}
    page = served.ask("POST", "/explain", exam_form(odd), accept="text/html").body.decode()
    assert "pixels is 0" in page
