"""The report in a browser: no external resources, readable at 390 and 1280 px and in print."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from mrknee.exams import Findings, write_labels
from mrknee.metrics.calibration import fit_calibration
from mrknee.metrics.predictions import Predictions
from mrknee.metrics.reliability import BOUND, BRIER_BOOTSTRAP
from mrknee.metrics.scorecard import score
from mrknee.reports.contents import ModelFacts
from mrknee.reports.evaluation import evaluate, gather
from mrknee.reports.page import render
from mrknee.reports.sentences import calibration_of, compared, warnings_of
from tests.reports.examples import write_case, write_model_case

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt: chromium)")

CONTRASTS = """() => {
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number);
    return m.length < 4 ? [...m, 1] : m };
  const light = c => { const f = c.slice(0, 3).map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4 });
    return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2] };
  const behind = e => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c }
    return [255, 255, 255, 1] };
  const poor = [];
  for (const e of document.body.querySelectorAll('*')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    if (['title', 'desc', 'style'].includes(e.tagName)) continue;
    const style = getComputedStyle(e);
    const ink = parse(e.tagName === 'text' ? style.fill : style.color);
    const a = light(ink), b = light(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([e.tagName, e.textContent.trim().slice(0, 30), ratio]);
  }
  return poor }"""

OUTSIDE = """() => {
  const out = [];
  for (const text of document.querySelectorAll('svg text')) {
    const svg = text.ownerSVGElement.getBoundingClientRect(), box = text.getBoundingClientRect();
    if (box.left < svg.left - 1 || box.right > svg.right + 1 || box.top < svg.top - 1
        || box.bottom > svg.bottom + 1) out.push(text.textContent);
  }
  for (const e of document.querySelectorAll('main *')) {
    if (e.closest('svg') || e.closest('.stack thead')) continue;
    if (e.getBoundingClientRect().right > innerWidth + 1)
      out.push(e.tagName + e.textContent.slice(0, 30));
  }
  return out }"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a model, its errors, and a second model."""
    root = tmp_path_factory.mktemp("report")
    data, run, predictions = write_model_case(root)
    second = root / "second.csv"
    table = Predictions.read(predictions)
    Predictions(table.ids, table.findings, table.probabilities[:, ::-1]).write(second)
    evaluate(str(predictions), data, root, model=run, against=str(second))
    return root / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as play:
        chromium = play.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new browser page."""
    opened = browser.new_page()
    yield opened
    opened.close()


def show(page: Page, report: Path, width: int) -> None:
    """Opens the report in a window of the given width."""
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(report.as_uri())


def test_no_external_resources_are_referenced(report: Path) -> None:
    """The report has no scripts and links, and all its resources are data URIs."""
    html = report.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|iframe|object|embed|base)\b", html)
    loads = re.findall(r"""(?:src|href|srcset|poster|action)\s*=\s*["']([^"']*)""", html)
    assert loads
    assert all(address.startswith("data:image/") for address in loads)
    assert "url(" not in html
    assert "@import" not in html
    assert "http" not in html


@needs_browser
def test_the_browser_loads_one_file(page: Page, report: Path) -> None:
    """The browser requests only the report itself, without errors."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: asked.append(str(error)))
    show(page, report, 390)
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_exceeds_the_page_width(page: Page, report: Path, width: int) -> None:
    """There is no horizontal scrolling, and no text exceeds its figure."""
    show(page, report, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE) == []


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_text_in_figures_is_large_enough(page: Page, report: Path, width: int) -> None:
    """Text in figures is at least 10 pixels high."""
    show(page, report, width)
    smallest = page.evaluate(
        """() => Math.min(...[...document.querySelectorAll('svg text')].map(t => {
             const m = t.getScreenCTM();
             return parseFloat(getComputedStyle(t).fontSize) * Math.hypot(m.a, m.b) }))"""
    )
    assert smallest >= 10


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_colour_schemes(
    page: Page, report: Path, scheme: str
) -> None:
    """The page follows the colour scheme; all text has a contrast of at least 4.5 (WCAG AA)."""
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    show(page, report, 1280)
    assert page.evaluate(CONTRASTS) == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper)[:3])) < 80) == (scheme == "dark")


@needs_browser
def test_print_is_white_and_complete(page: Page, report: Path) -> None:
    """Print is black on white in dark mode too, and collapsed tables are expanded."""
    page.emulate_media(media="print", color_scheme="dark")
    show(page, report, 720)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    folded = page.evaluate(
        """() => [...document.querySelectorAll('details table')].map(
             t => t.checkVisibility({contentVisibilityAuto: true}) && t.clientHeight)"""
    )
    assert folded
    assert all(height > 20 for height in folded)
    assert page.pdf(format="A4").startswith(b"%PDF")


@needs_browser
def test_the_first_screen_of_a_phone_shows_the_results(page: Page, report: Path) -> None:
    """Mean and AUC of every finding are within the first 844 pixels at a width of 390."""
    show(page, report, 390)
    assert page.evaluate("document.querySelector('h1').getBoundingClientRect().bottom") < 200
    lowest = page.evaluate(
        """() => Math.max(...[...document.querySelectorAll('.card .value')].map(
             e => e.getBoundingClientRect().bottom))"""
    )
    assert lowest < 844


def test_every_image_has_a_text_alternative(report: Path) -> None:
    """Figures have role, title and description, images have an alt text, ids are unique."""
    html = report.read_text(encoding="utf-8")
    figures = re.findall(r"<svg .*?</svg>", html, re.DOTALL)
    assert len(figures) == 1 + 3 * 3
    for svg in figures:
        assert 'role="img"' in svg
        assert re.search(r"<title id=\"[^\"]+\">.{10,}</title>", svg)
        assert re.search(r"<desc id=\"[^\"]+\">.{40,}</desc>", svg)
        (named,) = re.findall(r'aria-labelledby="([^"]+)"', svg)
        assert all(f'id="{name}"' in svg for name in named.split())
    images = re.findall(r"<img [^>]*>", html)
    assert images
    assert all(re.search(r'alt="[^"]{15,}"', image) for image in images)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_the_report_is_small(tmp_path: Path) -> None:
    """With noise images of MRNet's size, which compress worst, the file is below 3 MB."""
    data, run, predictions = write_model_case(tmp_path, pixels=256)
    evaluate(str(predictions), data, tmp_path / "out", model=run)
    page = tmp_path / "out" / "report.html"
    assert page.read_text().count("<img ") == 2 * 18
    assert page.stat().st_size < 3e6


@needs_browser
def test_confusion_matrices_of_a_finding_are_side_by_side(page: Page, report: Path) -> None:
    """The tables of both thresholds are in one row, and their headings are not wrapped."""
    show(page, report, 1280)
    tops = page.evaluate(
        """() => [...document.querySelectorAll('.pairs')].map(
             p => [...p.querySelectorAll('.confusion')].map(t => t.getBoundingClientRect().top))"""
    )
    assert [len(pair) for pair in tops] == [2, 2, 2]
    assert all(one == two for one, two in tops)
    lines = page.evaluate(
        """() => [...document.querySelectorAll('.confusion th')].map(t => {
             const r = document.createRange(); r.selectNodeContents(t);
             return new Set([...r.getClientRects()].map(b => Math.round(b.top))).size })"""
    )
    assert set(lines) == {1}


@pytest.mark.slow
def test_warnings_are_shown_only_if_they_apply(tmp_path: Path) -> None:
    """Chance level, below chance, few exams and synthetic knees are warned of; good results not."""
    few = warnings_of(gather(str(write_case(tmp_path / "few", 40, skill=0.0)), tmp_path / "few"))
    assert any("is not distinguishable from chance" in one for one in few)
    assert any(one.startswith("Few exams") for one in few)
    inverted = gather(str(write_case(tmp_path / "not", 900, skill=-3.0)), tmp_path / "not")
    shown = warnings_of(inverted)
    assert [one.split(":")[0] for one in shown] == [
        "Abnormal is ranked worse than by chance",
        "ACL tear is ranked worse than by chance",
        "Meniscal tear is ranked worse than by chance",
    ]
    assert render(inverted).count('class="card doubtful"') == 3
    sure = gather(str(write_case(tmp_path / "sure", 900, skill=3.0)), tmp_path / "sure")
    assert warnings_of(sure) == []
    (tmp_path / "sure" / "phantom.json").write_text("{}")
    synthetic = gather(str(tmp_path / "sure" / "0.csv"), tmp_path / "sure")
    assert [one.split(",")[0] for one in warnings_of(synthetic)] == ["Synthetic knees"]


def test_calibration_is_reported_per_finding(tmp_path: Path) -> None:
    """The number of exams, or the reason for no calibration or adjustment, is reported."""
    contents = gather(str(write_case(tmp_path)), tmp_path)
    rng = np.random.default_rng(0)
    labels = (rng.random((70, 3)) < 0.4).astype(float)
    probabilities = 0.3 * labels + 0.7 * rng.random((70, 3))
    labels[:, 0], labels[:9, 1] = 1.0, np.nan
    findings = tuple(contents.card.findings)
    fitted = fit_calibration(findings, labels, probabilities)
    facts = ModelFacts("m", {}, fitted, {}, None)
    assert calibration_of(replace(contents, model=facts)) == [
        "Calibrated (platt) on exams not used for training: ACL tear on 61, Meniscal tear on 70.",
        "Abnormal: not calibrated: one class only: 70 of 70 are positive.",
    ]
    card = score(
        findings,
        contents.labels,
        contents.probabilities,
        split="valid",
        calibration=fitted,
        prevalences={"abnormal": 0.2, "acl": 0.2},
    )
    page = render(replace(contents, model=facts, card=card))
    assert "Not adjusted to a prevalence of 20&nbsp;%: not calibrated: one class only" in page
    assert page.count("Adjusted, with weighted exams, to a prevalence of 20&nbsp;%") == 1


def test_methods_are_reported_per_finding(tmp_path: Path) -> None:
    """If the intervals of findings have different methods, the methods name the findings."""
    path = write_case(tmp_path)
    same = render(gather(str(path), tmp_path))
    assert f"<li>Brier score: {BRIER_BOOTSTRAP}.</li>" in same
    ids = Predictions.read(path).ids
    write_labels(tmp_path, "valid", "abnormal", dict.fromkeys(ids, 1.0))
    page = unescape(render(gather(str(path), tmp_path)))
    methods = f"Abnormal: {BOUND}; ACL tear, Meniscal tear: {BRIER_BOOTSTRAP}"
    assert f"<li>Brier score: {methods}.</li>" in page


def test_a_comparison_states_what_it_excluded_and_its_methods(tmp_path: Path) -> None:
    """Findings that only one model has, and the intervals' method."""
    first, second = write_case(tmp_path), write_case(tmp_path, seed=1)
    table = Predictions.read(second)
    Predictions(table.ids, Findings(["acl"]), table.probabilities[:, 1:2]).write(second)
    contents = gather(str(first), tmp_path, against=str(second))
    notes = compared(contents.comparison)
    assert notes[0] == "Excluded, because not all models have it: abnormal, meniscus (0)."
    assert contents.comparison is not None
    (one,) = contents.comparison.differences
    assert any(one.method in sentence for sentence in notes)
    page = unescape(render(contents))
    assert all(sentence in page for sentence in notes)


def test_published_values_are_shown_for_their_own_findings_only(tmp_path: Path) -> None:
    """A fourth finding and the mean of four have no published value, and the report states why."""
    path = write_case(tmp_path)
    table = Predictions.read(path)
    findings = Findings([*table.findings, "effusion"])
    values = np.hstack([table.probabilities, table.probabilities[:, :1]])
    Predictions(table.ids, findings, values).write(path)
    shutil.copy(tmp_path / "valid-acl.csv", tmp_path / "valid-effusion.csv")
    page = unescape(render(gather(str(path), tmp_path)))
    assert "this one is of abnormal, acl, meniscus, effusion, so none is shown" in page
    assert "0.894 (no interval)" not in page
    assert "Bien 2018, MRNet's 120 hidden test exams" in page
    alone = Predictions(table.ids, Findings(["effusion"]), values[:, 3:])
    alone.write(path)
    contents = gather(str(path), tmp_path)
    caption = render(contents).split("<figcaption", 1)[1].split("</figcaption>")[0]
    assert "this model" in caption
    assert "Bien" not in caption
    assert "post" not in caption
