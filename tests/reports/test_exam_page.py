"""Page and files of `explain`, from a model on a synthetic knee, in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Request

from mrknee.errors import MrkneeError, OutputError
from mrknee.exams import PLANES, Exam, Plane, open_dataset, write_stack
from mrknee.explanations.explanation import Explanation
from mrknee.inference.torch_model import TorchModel
from mrknee.reports import exam_page as exam_pages
from mrknee.reports.exam_page import explain_exam, write_exam_page
from mrknee.reports.pictures import probability_text
from mrknee.sources.phantom import Truth, render_exam
from mrknee.transforms.preparation import Preparation
from tests.conftest import needs_chromium
from tests.explanations.test_explanation import make_predictor
from tests.inference.test_torch_model import FINDINGS, make_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights."""
    return make_model(tmp_path_factory.mktemp("model") / "run")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exams: a synthetic knee; unusual shapes without an axial plane; an unusual id.

    They are in separate folders, because a folder with an exam that lacks a plane is refused.
    """
    root = tmp_path_factory.mktemp("data")
    knee = render_exam(3, Truth(abnormal=True, acl=True, meniscus=False), size=64, slice_factor=0.2)
    for plane in PLANES:
        for exam_id in ("0007", "0107"):
            write_stack(root / "valid", plane, exam_id, knee.stacks[plane])
        write_stack(root / "named", plane, "<i>&7", knee.stacks[plane][:2])
    rng = np.random.default_rng(0)
    for plane, shape in ((Plane.CORONAL, (1, 90, 30)), (Plane.SAGITTAL, (3, 25, 60))):
        write_stack(root / "odd", plane, "0001", rng.integers(0, 256, shape).astype(np.uint8))
    return root


@pytest.fixture(scope="module")
def explained(model: Path, data: Path) -> tuple[Explanation, Path]:
    """The explanation of the knee and its output folder."""
    out = data / "out" / "0007"
    return explain_exam(model, data, "0007", out), out


@pytest.fixture
def page(browser: Browser, explained: tuple[Explanation, Path]) -> Iterator[Page]:
    """The page of the knee at the width of a phone."""
    shown = browser.new_page(viewport={"width": 390, "height": 844})
    shown.goto((explained[1] / "index.html").as_uri())
    yield shown
    shown.close()


def text_of(out: Path) -> str:
    """Returns the text of the page with normalised white space."""
    html = (out / "index.html").read_text(encoding="utf-8")
    body = html[html.index("<body>") :]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def numbers_of(section: str) -> list[float]:
    """Returns the numbers in the rows of a sum."""
    found = re.findall(r"<td>([+−][\d.]+)</td>", section)  # noqa: RUF001
    return [float(number.replace("−", "-")) for number in found]  # noqa: RUF001


def sections(out: Path) -> list[str]:
    """Returns the HTML of the page, split by finding."""
    return (out / "index.html").read_text(encoding="utf-8").split('<section class="finding"')[1:]


def test_numbers_sheets_and_page_are_written(explained: tuple[Explanation, Path]) -> None:
    """Exactly the expected files are written."""
    names = {file.name for file in explained[1].iterdir()}
    sheets = {f"contact-{finding}.png" for finding in FINDINGS}
    assert names == {"index.html", "explanation.npz", "explanation.json"} | sheets


def test_the_page_shows_the_model_s_numbers(
    explained: tuple[Explanation, Path], model: Path, data: Path
) -> None:
    """Probabilities equal those of predict; terms are those of the explanation and add up."""
    explanation, out = explained
    table = TorchModel(model).predict(open_dataset(data, "valid"))
    predicted = table.probabilities[table.ids.index("0007")]
    for row, section in enumerate(sections(out)):
        assert f"probability {probability_text(predicted[row])}</h2>" in unescape(section)
        *parts, logit = numbers_of(section)
        sums = [explanation.series_sums[plane][row] for plane in PLANES]
        np.testing.assert_allclose(parts, [explanation.bias[row], *sums], atol=6e-4)
        np.testing.assert_allclose(sum(parts), logit, atol=3e-3)
        assert "exact: adds up to the logit within 0.0001" in section


def test_the_page_shows_the_slices_that_raise_and_lower_most(
    explained: tuple[Explanation, Path],
) -> None:
    """Each series shows the slice of the largest score, and of the smallest for negative logits."""
    explanation, out = explained
    assert (explanation.logits < 0).any()
    assert (explanation.logits > 0).any()
    for row, section in enumerate(sections(out)):
        scores = [explanation.slice_scores(plane)[row] for plane in PLANES]
        expected = []
        for s in scores:
            expected.append((str(s.argmax() + 1), str(len(s))))
            if explanation.logits[row] < 0 and s.min() < 0:
                expected.append((str(s.argmin() + 1), str(len(s))))
        assert re.findall(r"<figcaption>slice (\d+) of (\d+), original", section) == expected
        lowering = re.findall(r"Slice (\d+) lowers the logit most", section)
        assert lowering == [str(s.argmin() + 1) for s in scores if s.min() < 0]
        finding = FINDINGS[row]
        for find, command in ((explanation.most_raising, "raises"), (explanation.most_lowering, "lowers")):  # fmt: skip # noqa: E501
            plane, index = find(finding)
            pattern = rf"<h3>(\w+):(?:(?!<h3>).)*Slice (\d+) {command} the logit most: [+−\d.]+, the most of all series"  # noqa: E501, RUF001
            assert re.findall(pattern, section, re.S) == [(plane.capitalize(), str(index + 1))]


@needs_chromium
def test_the_page_loads_nothing(browser: Browser, explained: tuple[Explanation, Path]) -> None:
    """The browser requests only the page itself, and its console is empty."""
    shown = browser.new_page()
    asked: list[str] = []
    console: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    shown.on("request", note)
    shown.on("console", lambda message: console.append(message.text))
    address = (explained[1] / "index.html").as_uri()
    shown.goto(address, wait_until="networkidle")
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert console == []
    shown.close()


@needs_chromium
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_fits_a_phone(page: Page, width: int) -> None:
    """Nothing exceeds the width of the page, with all sheets open."""
    page.set_viewport_size({"width": width, "height": 844})
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@needs_chromium
def test_every_image_loads_and_has_a_text_alternative(
    page: Page, explained: tuple[Explanation, Path]
) -> None:
    """All images decode and have an alt text; the labels of charts contain the scores."""
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    images = page.evaluate(
        "Promise.all([...document.images].map(i => i.decode().then(() => [i.alt, i.naturalWidth])))"
    )
    shown = (explained[1] / "index.html").read_text(encoding="utf-8").count(", original<")
    assert len(images) == 1 + 2 * shown + len(FINDINGS)
    assert all(len(alt) > 10 and width > 0 for alt, width in images)
    charts = page.locator("svg[role=img]")
    labels = [chart.get_attribute("aria-label") or "" for chart in charts.all()]
    assert len(labels) == len(FINDINGS) * len(PLANES)
    assert all(re.search(r"[+−]\d\.\d\d", label) for label in labels)  # noqa: RUF001


CONTRAST = """
() => {
  const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(c) && c !== 'transparent') return c; } return 'rgb(255,255,255)'; };
  const texts = [...document.querySelectorAll('p, h1, h2, h3, th, td, figcaption, summary, a, b, '
    + 'strong, span, .faint')].filter(e => e.innerText && e.innerText.trim());
  const ratios = texts.map(e => { const a = light(getComputedStyle(e).color), b = light(behind(e));
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); });
  return [Math.min(...ratios), light(getComputedStyle(document.body).backgroundColor)];
}
"""


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_colour_schemes(page: Page, scheme: str) -> None:
    """The page follows the colour scheme; all text has a contrast of at least 4.5 (WCAG AA)."""
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    contrast, paper = page.evaluate(CONTRAST)
    assert contrast >= 4.5
    assert paper < 0.05 if scheme == "dark" else paper > 0.9


@needs_chromium
def test_print_is_white_and_has_every_sheet(page: Page) -> None:
    """Print is white in dark mode too, and closed contact sheets are printed."""
    sheet = page.locator(".sheet img").first
    assert not sheet.is_visible()
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.querySelector('.sheet img').getBoundingClientRect().height") > 50


def test_a_missing_plane_one_slice_and_tall_slices_work(model: Path, data: Path) -> None:
    """The page names the missing plane and shows the others."""
    out = data / "out" / "odd"
    with pytest.raises(MrkneeError, match="axial"):
        explain_exam(model, data / "odd", "0001", out)
    assert not out.exists()
    explanation = explain_exam(model, data / "odd", "0001", out, allow_missing_plane=True)
    assert set(explanation.native) == {Plane.CORONAL, Plane.SAGITTAL}
    assert "This exam has no axial series" in text_of(out)
    assert "slice 1 of 1" in text_of(out)
    assert [re.findall(r"<h3>(\w+):", one) for one in sections(out)] == [
        ["Coronal", "Sagittal"]
    ] * len(FINDINGS)


def test_the_page_states_that_grey_areas_may_have_mattered(
    explained: tuple[Explanation, Path],
) -> None:
    """The page explains grey areas, and mentions attention only with attention pooling."""
    text = text_of(explained[1])
    assert "They may still have mattered" in text
    assert "equal colour is an equal part of the sum" in text
    assert "held fixed" not in text


def test_the_page_states_that_attention_is_held_fixed(data: Path, tmp_path: Path) -> None:
    """With attention pooling the page states that its weights are held fixed."""
    make_predictor(tmp_path / "model", pooling="attention", shared=True)
    explain_exam(tmp_path / "model", data, "0007", tmp_path / "out")
    assert "Weights are held fixed" in text_of(tmp_path / "out")


def test_a_reused_folder_contains_one_exam_only(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files of the previous exam are removed before the new ones are written.

    If a sheet can't be written, this is reported before anything is removed.
    """
    out = tmp_path / "out"
    explain_exam(model, data, "0007", out)
    (out / "contact-effusion.png").write_bytes(b"of a model with one finding more")
    (out / "notes.txt").write_text("the user's own")
    (out / "contact-abnormal.png").rename(tmp_path / "sheet.png")
    (out / "contact-abnormal.png").mkdir()
    before = {file.name for file in out.iterdir()}
    with pytest.raises(MrkneeError, match="contact-abnormal"):
        explain_exam(model, data, "0107", out)
    assert {file.name for file in out.iterdir()} == before
    (out / "contact-abnormal.png").rmdir()

    def fails(*_: object) -> NoReturn:
        raise OutputError("the disk is full", code="cannot-write")

    monkeypatch.setattr(exam_pages, "contact_sheet", fails)
    with pytest.raises(OutputError, match="full"):
        explain_exam(model, data, "0107", out)
    left = {"explanation.npz", "explanation.json", "notes.txt"}
    assert {file.name for file in out.iterdir()} == left
    assert json.loads((out / "explanation.json").read_text())["exam"] == "0107"
    assert str(np.load(out / "explanation.npz")["exam"]) == "0107"


def test_the_current_folder_as_model_is_shown_by_name(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model "." is shown with the name of its folder."""
    monkeypatch.chdir(model)
    explain_exam(Path(), data, "0007", tmp_path / "out")
    assert f", model {model.name} (" in text_of(tmp_path / "out")


def test_without_contributions_no_slice_is_named(tmp_path: Path) -> None:
    """If all scores are 0, no slice is reported to raise or lower the logit."""
    exam = Exam("0001", {Plane.SAGITTAL: np.zeros((2, 48, 48), np.uint8)})
    flat = Explanation(
        "0001", ("acl",), np.zeros(1), np.zeros(1), np.full(1, 0.5),
        {Plane.SAGITTAL: np.zeros((1, 2, 2, 2), np.float32)}, {Plane.SAGITTAL: (2, 48, 48)},
        Preparation(size=48, crop=32),
    )  # fmt: skip
    write_exam_page(tmp_path, exam, flat, model="flat")
    text = text_of(tmp_path)
    assert "No slice of this series raises the logit." in text
    assert "least" not in text
    assert "no axial and no coronal series ; the other series have a larger weight." in text


def test_small_scores_are_not_shown_as_zero(tmp_path: Path) -> None:
    """Small scores have more decimals; a score that would round to 0 is "less than ..."."""
    exam = Exam("0001", {Plane.SAGITTAL: np.zeros((2, 48, 48), np.uint8)})
    for scale, expected in ((0.001, "most: +0.0040, the"), (1.0, "most: +4.00, the")):
        native = np.zeros((1, 2, 2, 2), np.float32)
        native[0, 0], native[0, 1, 0, 0] = scale, -1e-6
        explanation = Explanation(
            "0001", ("acl",), np.ones(1), np.zeros(1), np.full(1, 0.5),
            {Plane.SAGITTAL: native}, {Plane.SAGITTAL: (2, 48, 48)}, Preparation(size=48, crop=32),
        )  # fmt: skip
        write_exam_page(tmp_path, exam, explanation, model="small")
        assert expected in text_of(tmp_path)
        less = "0.00005" if scale < 1 else "0.005"
        assert f"Slice 2 lowers the logit most: by less than {less}, the" in text_of(tmp_path)


def test_the_error_of_an_unknown_exam_lists_similar_ids(model: Path, data: Path) -> None:
    """The error lists similar ids, and nothing is written."""
    out = data / "out" / "unknown"
    with pytest.raises(MrkneeError, match="no exam with this id") as error:
        explain_exam(model, data, "7", out)
    assert "0007" in (error.value.found or "")
    assert not out.exists()


def test_ids_are_escaped(model: Path, data: Path) -> None:
    """An id with angle brackets is escaped."""
    out = data / "out" / "named"
    explain_exam(model, data / "named", "<i>&7", out)
    html = (out / "index.html").read_text(encoding="utf-8")
    assert "<i>&7" not in html
    assert "Exam &lt;i&gt;&amp;7:" in html


def test_a_failed_run_leaves_no_page(model: Path, data: Path) -> None:
    """If a contact sheet can't be written, no page is written."""
    out = data / "out" / "failed"
    (out / "contact-meniscus.png").mkdir(parents=True)
    with pytest.raises(MrkneeError, match="contact-meniscus"):
        explain_exam(model, data, "0007", out)
    assert not (out / "index.html").exists()
    assert not [file for file in out.iterdir() if file.name.startswith(".")]


def test_the_page_states_purpose_and_limits(explained: tuple[Explanation, Path]) -> None:
    """The page states research use (twice), the limits of the pictures, and the scale."""
    explanation, out = explained
    text = text_of(out)
    assert text.count("Research use only") == 2
    assert "What the pictures can't show" in text
    assert f"+{explanation.scale:.2g}" in text
