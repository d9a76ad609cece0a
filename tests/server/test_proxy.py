"""The nginx configuration of docs/how-to/serve.md, run with nginx and a service."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from mrknee.exams import write_stack
from mrknee.server.limits import DEFAULT_LIMITS
from tests.conftest import needs_chromium
from tests.server.client import KIND, Answer, Served, exam_form, random_exam
from tests.server.test_pages import choose

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="Debian's nginx is not installed"),
]

RECIPE = re.compile(r"```nginx\n(.*?)```", re.DOTALL)
DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "serve.md"

AROUND = """
user {owner} {group};
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
{recipe}
}}
"""


class Proxy:
    """A client of the service behind the proxy."""

    def __init__(self, port: int, log: Path) -> None:
        self.port, self.log = port, log

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Sends one request and waits for the response."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return Answer(answer.status, answer.headers, content)


@pytest.fixture(scope="module")
def proxy(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Nginx with the documented configuration, without TLS."""
    folder = tmp_path_factory.mktemp("proxy")
    words = ("--root-path", "/knee", "--allowed-host", "knee.example")
    with Served(onnx_file, folder / "served", *words) as service:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        [recipe] = RECIPE.findall(DOCS.read_text())
        for written, used in (
            ("listen 443 ssl;", f"listen 127.0.0.1:{port};"),
            ("server_name knee.example;", "server_name knee.example 127.0.0.1;"),
            ("127.0.0.1:8000", f"127.0.0.1:{service.port}"),
        ):
            assert written in recipe
            recipe = recipe.replace(written, used)
        recipe = re.sub(r"\n *(ssl_|auth_basic)[^\n]*", "", recipe)
        file = folder / "nginx.conf"
        file.touch()
        file.write_text(
            AROUND.format(folder=folder, recipe=recipe, owner=file.owner(), group=file.group())
        )
        assert NGINX is not None
        nginx = subprocess.Popen([NGINX, "-c", str(file), "-p", str(folder)])  # noqa: S603  # found above
        try:
            for _ in range(300):
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=60).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield Proxy(port, folder / "access.log")
        finally:
            nginx.terminate()
            nginx.wait(60)
        assert service.end() == 0
        assert service.stderr == ""


def test_exams_are_answered_below_the_path(proxy: Proxy) -> None:
    """Predictions and properties are returned below the path; the path itself redirects."""
    body = exam_form(random_exam(1))
    answer = proxy.ask("POST", "/knee/predict", body, Content_Type=KIND)
    assert answer.status == 200
    assert len(json.loads(answer.body)["findings"]) == 3
    named = proxy.ask("POST", "/knee/predict", body, Content_Type=KIND, Host="knee.example")
    assert named.status == 200
    assert proxy.ask("GET", "/knee/model").status == 200
    assert proxy.ask("GET", "/knee").headers["Location"].endswith("/knee/")
    assert proxy.ask("GET", "/predict").status == 404


def test_the_request_id_of_nginx_is_returned(proxy: Proxy) -> None:
    """The client receives exactly one request id, which nginx generated."""
    answer = proxy.ask("GET", "/knee/health")
    [request_id] = answer.headers.get_all("X-Request-ID") or []
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    ready = proxy.ask("POST", "/knee/predict", exam_form(random_exam(1)), Content_Type=KIND)
    assert json.loads(ready.body)["request_id"] == ready.headers["X-Request-ID"]


def test_large_bodies_end_at_the_service_s_limit(proxy: Proxy) -> None:
    """10 MB are accepted; bodies above the limit of the service are refused."""
    large = exam_form(random_exam(1, (160, 160, 160)))
    assert len(large) > 1_000_000  # nginx's own default
    assert proxy.ask("POST", "/knee/predict", large, Content_Type=KIND).status == 200
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as connection:
        head = f"POST /knee/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {KIND}\r\n"
        size = DEFAULT_LIMITS.body_bytes + 1_000_000
        connection.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_other_sites_and_metrics_are_blocked(proxy: Proxy) -> None:
    """Forms of other sites are refused through the proxy, and metrics are not accessible."""
    body = exam_form(random_exam(1))
    headers = {"Content_Type": KIND, "Host": "knee.example", "Origin": "https://evil.example"}
    assert proxy.ask("POST", "/knee/explain", body, **headers).status == 403
    own = headers | {"Origin": "https://knee.example"}
    assert proxy.ask("POST", "/knee/explain", body, **own).status == 200
    assert proxy.ask("GET", "/knee/metrics").status == 404


@needs_chromium
def test_a_browser_s_form_works_below_the_path(
    proxy: Proxy, browser: Browser, tmp_path: Path
) -> None:
    """The form and the links of the upload page stay below the path."""
    for plane, stack in random_exam(6).stacks.items():
        write_stack(tmp_path, plane, "DOE^JANE", stack)
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{proxy.port}/knee/upload")
    choose(page, tmp_path)
    assert page.url == f"http://127.0.0.1:{proxy.port}/knee/explain"
    assert page.locator(".card").count() == 3
    page.goto(f"http://127.0.0.1:{proxy.port}/knee/upload")
    page.click("text=openapi.json")
    assert page.url.endswith("/knee/openapi.json")
    page.close()
