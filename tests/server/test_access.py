"""Access by a token: header, link and cookie."""

from __future__ import annotations

from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from mrknee.cli import main
from tests.conftest import needs_chromium
from tests.server.client import Served, exam_form, random_exam
from tests.server.room import API, problem

pytestmark = pytest.mark.slow

TOKEN = "0123456789-abcdef_~+/="  # noqa: S105


@pytest.fixture(scope="module")
def locked(onnx_file: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:  # fmt: skip # noqa: E501
    """A service with a token from a file, below a path."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "token").write_text(TOKEN + "\n")
    words = ("--token-file", str(folder / "token"), "--exams", str(data), "--root-path", "/knee")
    with Served(onnx_file, folder / "served", *words) as service:
        yield service
        assert service.end() == 0
        assert service.stderr == ""


def bearer(token: str) -> dict[str, str]:
    """Returns the header with a token."""
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", [API + "/exams", "/model", "/metrics", "/upload", "/openapi.json", "/x"])  # fmt: skip # noqa: E501
def test_without_the_token_nothing_is_answered(locked: Served, path: str) -> None:
    """401 without a token, with a wrong one, and with the token anywhere else."""
    others = [
        *({}, bearer(""), bearer(TOKEN[:-1]), bearer(TOKEN + "x"), bearer(TOKEN.upper())),
        *({"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}, {"Cookie": TOKEN}),
        *({"Cookie": f"mrknee={TOKEN}"}, {"Authorization": "Bearer \xff"}, {"Cookie": "\xff=\xff"}),
    ]
    for headers in others:
        answer = locked.ask("GET", path, headers=headers)
        assert answer.status == 401, headers
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert locked.ask("GET", f"{path}?token={TOKEN}").status == 401
    assert locked.ask("GET", path, headers=bearer(TOKEN)).status == (404 if path == "/x" else 200)


def test_errors_have_the_form_of_their_address(locked: Served) -> None:
    """Below /api/v1 the error is a problem, elsewhere as before; exams are not read."""
    assert problem(locked.ask("GET", API + "/exams"), 401)["code"] == "token"
    answer = locked.ask("POST", "/predict", exam_form(random_exam(1)))
    assert (answer.status, answer.fault["code"]) == (401, "token")


def test_the_page_and_health_need_no_token(locked: Served) -> None:
    """They contain nothing about exams."""
    for path in ("/", "/page/index.html", "/health", "/ready", "/knee/", "/knee/health"):
        assert locked.ask("GET", path).status == 200
    answer = locked.ask("GET", f"/knee?token={TOKEN}")
    assert (answer.status, answer.headers["Location"]) == (307, f"/knee/?token={TOKEN}")
    assert locked.ask("GET", "/kneed").status == 401


def test_a_link_sets_a_cookie(locked: Served) -> None:
    """/?token=... redirects without the token; the cookie is not the token, and is strict."""
    answer = locked.ask("GET", "/knee/?token=0123456789-abcdef_~%2B%2F%3D&exam=a%20b")
    assert answer.status == 303
    assert answer.headers["Location"] == "./?exam=a+b"
    assert answer.headers["Cache-Control"] == "no-store"
    text = answer.headers["Set-Cookie"]
    assert TOKEN not in text
    (cookie,) = SimpleCookie(text).values()
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/knee/")
    sent = {"Cookie": f"other=1; {cookie.key}={cookie.value}"}
    assert locked.ask("GET", API + "/exams", headers=sent).status == 200
    changed = {"Cookie": f"{cookie.key}={cookie.value[:-1]}"}
    assert locked.ask("GET", API + "/exams", headers=changed).status == 401
    wrong = locked.ask("GET", "/?token=wrong")
    assert (wrong.status, wrong.headers["Set-Cookie"]) == (401, None)


def test_a_link_injects_no_header(locked: Served) -> None:
    """Line breaks in a link stay escaped in the answer."""
    answer = locked.ask("GET", "/?token=0123456789-abcdef_~%2B%2F%3D&a=%0d%0aX-Evil:%201")
    assert answer.headers["Location"] == "./?a=%0D%0AX-Evil%3A+1"
    assert answer.headers["X-Evil"] is None


def test_a_foreign_page_can_not_use_the_cookie(locked: Served) -> None:
    """Origin is checked before the token."""
    headers = {**bearer(TOKEN), "Origin": "http://evil.example"}
    assert locked.ask("GET", API + "/exams", headers=headers).status == 403
    headers = {**bearer(TOKEN), "Host": "evil.example"}
    assert locked.ask("GET", API + "/exams", headers=headers).status == 421


@needs_chromium
def test_a_browser_is_signed_in_by_the_link(
    onnx_file: Path, data: Path, tmp_path: Path, browser: Browser
) -> None:
    """At a public address a new token is printed as a link, which gives a browser access."""
    words = ("--host", "0.0.0.0", "--exams", str(data))  # noqa: S104
    with Served(onnx_file, tmp_path, *words, at="0.0.0.0") as service:  # noqa: S104
        assert "no encryption" in service.stderr
        assert "authentication" not in service.stderr
        link = service.line.rpartition(" at ")[2].replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        assert len(link.partition("?token=")[2]) >= 43
        context = browser.new_context()
        page = context.new_page()
        ask = "async path => (await fetch(path)).status"
        page.goto(f"http://127.0.0.1:{service.port}/")
        assert page.evaluate(ask, "api/v1/exams") == 401
        page.goto(link)
        assert page.url == f"http://127.0.0.1:{service.port}/"
        assert page.evaluate(ask, "api/v1/exams") == 200
        assert page.evaluate("document.cookie") == ""
        context.close()
        assert service.end() == 0


@pytest.mark.parametrize("content", ["", "short", "with a space inside", "x" * 513, "é" * 20])
def test_invalid_tokens_are_refused(
    onnx_file: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message doesn't contain the token."""
    file = tmp_path / "token"
    file.write_text(content)
    assert main(["serve", str(onnx_file), "--port", "0", "--token-file", str(file)]) == 1
    printed = capsys.readouterr().err
    assert "no valid token" in printed
    assert not content or content not in printed


def test_a_token_and_no_token_contradict_each_other(
    onnx_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both options together are refused."""
    words = ["--token-file", str(tmp_path / "token"), "--no-token"]
    assert main(["serve", str(onnx_file), "--port", "0", *words]) == 1
    assert "can't both be given" in capsys.readouterr().err
