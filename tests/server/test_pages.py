"""The pages of the service in a headless Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request

from mrknee.exams import PLANES, Exam, write_stack
from mrknee.inference.model import load_model
from mrknee.reports.exam_page import exam_page
from mrknee.reports.pictures import probability_text
from tests.conftest import needs_chromium
from tests.reports.test_exam_page import CONTRAST
from tests.server.client import Served, exam_form, form, random_exam

pytestmark = pytest.mark.slow


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    """The page with the form at the width of a phone."""
    shown = browser.new_page(viewport={"width": 390, "height": 844})
    shown.goto(f"http://127.0.0.1:{served.port}/upload")
    yield shown
    shown.close()


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an exam."""
    folder = tmp_path_factory.mktemp("exam")
    for plane, stack in random_exam(6).stacks.items():
        write_stack(folder, plane, "DOE^JANE", stack)
    return folder


def choose(page: Page, folder: Path) -> None:
    """Selects the files of an exam in the form and submits it."""
    for plane in PLANES:
        page.set_input_files(f"input[name={plane}]", str(folder / plane / "DOE^JANE.npy"))
    page.click("button")
    page.wait_for_load_state("load")


@needs_chromium
def test_the_form_leads_to_the_page_of_the_exam(
    page: Page, served: Served, onnx_file: Path, stacks: Path
) -> None:
    """Submitting three files shows the page of the exam with the model's probabilities."""
    assert "model.onnx" in page.inner_text("h1")
    assert "0.500" in page.inner_text("table")
    choose(page, stacks)
    [expected] = load_model(onnx_file).predict([random_exam(6)]).probabilities
    shown = [card.inner_text().split("\n")[1] for card in page.locator(".card").all()]
    assert shown == [probability_text(number) for number in expected]
    text = re.sub('base64,[^"]*', "", page.content())  # pictures may hold any letters
    assert "DOE" not in text
    assert "explanation.json" not in page.content()
    assert "contact-acl.png" not in page.content()
    assert served.left == []


@needs_chromium
def test_an_invalid_file_is_reported_above_the_form(page: Page, tmp_path: Path) -> None:
    """The page names the file and the error, and contains the form again."""
    for plane in PLANES:
        (tmp_path / plane).mkdir()
        (tmp_path / plane / "DOE^JANE.npy").write_bytes(b"<b>no stack</b>")
    choose(page, tmp_path)
    alert = page.inner_text("[role=alert]")
    assert "not a .npy file" in alert
    assert "(axial)" in alert
    assert page.locator("input[type=file]").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@needs_chromium
def test_the_pages_load_no_resources_and_run_no_scripts(
    browser: Browser, served: Served, stacks: Path
) -> None:
    """The browser requests only the pages themselves, and its console is empty."""
    shown = browser.new_page()
    asked: list[str] = []
    console: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    shown.on("request", note)
    shown.on("console", lambda message: console.append(message.text))
    home = f"http://127.0.0.1:{served.port}/"
    shown.goto(home + "upload", wait_until="networkidle")
    choose(shown, stacks)
    shown.wait_for_load_state("networkidle")
    asked = [url for url in asked if not url.startswith("data:")]
    assert asked == [home + "upload", home + "explain"]
    assert console == []
    assert shown.locator("script").count() == 0
    shown.close()


@needs_chromium
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_start_page_fits(page: Page, width: int) -> None:
    """Nothing exceeds the width of the page or of the form."""
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ends = page.evaluate(
        "[...document.querySelectorAll('input, button')].map(e => e.getBoundingClientRect().right)"
    )
    edge = page.evaluate("document.querySelector('form').getBoundingClientRect().right")
    assert max(ends) <= edge


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_colour_schemes(page: Page, scheme: str) -> None:
    """The page follows the colour scheme; all text has a contrast of at least 4.5 (WCAG AA)."""
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    contrast, paper = page.evaluate(CONTRAST)
    assert contrast >= 4.5
    assert paper < 0.05 if scheme == "dark" else paper > 0.9


def test_browsers_receive_errors_as_pages_with_the_same_status(served: Served) -> None:
    """/explain returns errors as HTML if preferred, with submitted names escaped."""
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    body = form([("<script>alert(1)</script>", "x", b"")])
    answer = served.ask("POST", "/explain", body, accept=accept)
    assert answer.status == 422
    assert answer.headers["Content-Type"].startswith("text/html")
    assert b"<script" not in answer.body
    assert b"&lt;script&gt;" in answer.body
    assert served.ask("POST", "/predict", body, accept=accept).fault["field"]


def test_the_page_equals_that_of_the_command(served: Served, onnx_file: Path) -> None:
    """The page equals that of `exam_page`, and has a Content-Security-Policy."""
    exam = Exam("upload", random_exam(6).stacks)
    answer = served.ask("POST", "/explain", exam_form(exam), accept="text/html")
    expected = exam_page(
        exam,
        load_model(onnx_file).explain(exam),
        model="model.onnx",
        digest=answer.headers["X-Model-Digest"],
        request_id=answer.headers["X-Request-ID"],
    )
    found, wanted = (re.sub('data:[^"]+', "", text) for text in (answer.body.decode(), expected))
    assert found == wanted
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "form-action 'self'" in policy
