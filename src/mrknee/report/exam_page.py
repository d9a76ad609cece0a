"""The page of one exam: what each finding's logit is made of, plane by plane, slice by slice.

One file, `index.html`, that needs no network and no other file: pictures are inside it as JPEG,
because a dozen slices and a sheet of all of them a finding would be 5 MB and more as PNG. The
sheets also lie beside it as PNG, pixel for pixel, and the numbers as NPZ and JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from scipy.special import expit

from mrknee import __version__
from mrknee.exams import PLANES, Exam, Plane, open_dataset
from mrknee.files import owned_folder, whole_file
from mrknee.inference.explanation import EXACT, Explanation, Method
from mrknee.inference.model import ModelPaths, load_model, name_of, paths_of
from mrknee.inference.runtimes import RuntimeName
from mrknee.outputs import check_output_folder
from mrknee.report.pictures import (
    Sheet,
    chance,
    colour_bar,
    contact_sheet,
    data_uri,
    digits_of,
    jpeg,
    overlay,
    png,
    seen_box,
    signed,
    verbs_of,
)
from mrknee.report.templates import templates
from mrknee.report.words import title_of

PICTURE = 512
"""Longer side of a slice in the page, in pixels, at most; larger ones are scaled down to it."""

TALLEST = 1.25
"""Height of a slice in the page, in widths of its column, at most."""

CROWDED = 9.0
"""Numbers below a chart stand so far apart at least, in percent of its width."""


@dataclass(frozen=True)
class Bar:
    """A bar from one place to another, as shares of the axis, 0 left or bottom to 1.

    Attributes:
        start: the smaller end.
        length: how far it reaches.
        kind: `up` (raises), `down` (lowers) or `total`.
    """

    start: float
    length: float
    kind: str


@dataclass(frozen=True)
class Term:
    """A row of the sum: bias, a plane, or the logit.

    Attributes:
        label: its name.
        number: its value, signed.
        bar: where it lies on the axis.
        total: whether it is the logit.
    """

    label: str
    number: str
    bar: Bar
    total: bool


@dataclass(frozen=True)
class SliceView:
    """One slice of a plane: the one that raises a finding's logit most, or lowers it most.

    Attributes:
        number: which, counted from 1.
        score: what it adds, signed.
        words: the same as a sentence.
        plain: the slice as a data URI.
        warm: the same with heat.
    """

    number: int
    score: str
    words: str
    plain: str
    warm: str


@dataclass(frozen=True)
class Tick:
    """A slice's number below the chart of slices.

    Attributes:
        number: counted from 1.
        at: where, in percent of the chart's width.
        shown: whether that slice is shown; the first and last slice are numbered too.
    """

    number: int
    at: float
    shown: bool


@dataclass(frozen=True)
class PlaneView:
    """One plane of one finding.

    Attributes:
        name: the plane.
        slices: how many it has.
        share: what the plane adds, signed.
        shown: the slice that raises most; where the logit is below 0, which denies the finding,
            also the one that lowers most.
        bars: slice scores, bottom to top, one a slice.
        scores: the same as text.
        ticks: numbers below the bars.
        seen: left, top, width, height of what the network sees, in percent.
        size: columns and rows of the slice.
        width: how much of its column a picture takes, in percent; a tall one takes less.
    """

    name: Plane
    slices: int
    share: str
    shown: tuple[SliceView, ...]
    bars: tuple[Bar, ...]
    scores: tuple[str, ...]
    ticks: tuple[Tick, ...]
    seen: tuple[float, float, float, float]
    size: tuple[int, int]
    width: float


@dataclass(frozen=True)
class FindingView:
    """One finding.

    Attributes:
        name: its name, which is part of the sheet's file name.
        title: in words.
        probability: as the model states it.
        uncalibrated: the logit as a probability.
        uncalibrated_because: why the probability is not calibrated; None where it is.
        terms: the sum.
        zero: where 0 lies on the sum's axis, 0 to 1.
        adds_up: in words, whether and how exactly.
        planes: those the exam has.
        sheet: the contact sheet as a data URI.
        sheet_size: its width and height.
    """

    name: str
    title: str
    probability: float
    uncalibrated: float
    terms: tuple[Term, ...]
    zero: float
    adds_up: str
    planes: tuple[PlaneView, ...]
    sheet: str
    sheet_size: tuple[int, int]
    uncalibrated_because: str | None = None


def explain_exam(
    model: ModelPaths,
    exams: str | Path,
    exam_id: str,
    out: str | Path,
    *,
    split: str = "valid",
    method: Method | None = None,
    allow_missing_plane: bool = False,
    axes: str | None = None,
    threads: int | None = None,
    runtime: RuntimeName | None = None,
) -> Explanation:
    """Explains one exam: numbers, contact sheets and the page.

    Args:
        model: a run folder, or an ONNX file that `mrknee export` wrote; or an ensemble's members.
        exams: a data set's folder, or one with the plane folders inside.
        exam_id: which exam.
        out: where to write; made where it isn't there.
        split: which split of a data set.
        method: `exact`, `grad-cam`, or None: exact where the network allows it.
        allow_missing_plane: let exams through that lack one or two planes.
        axes: the order of the files' axes, as for `Dataset`.
        threads: processor threads to compute with; None leaves it to the library.
        runtime: what computes an ONNX file; None takes ONNX Runtime.

    Returns:
        The explanation written.

    Raises:
        MrkneeError: no such exam, no model, files that can't be used, or exact is asked for and
            the network doesn't allow it.
    """
    out = Path(out)
    names = ["index.html", "explanation.json", "explanation.npz", "contact-*.png"]
    check_output_folder(out, names, [*paths_of(model), exams])
    folder = open_dataset(
        exams, split, labels=False, allow_missing_plane=allow_missing_plane, axes=axes
    )
    exam = folder[exam_id]
    opened = load_model(model, threads=threads, runtime=runtime)
    with owned_folder(out):
        explanation = opened.explain(exam, method=method)
        numbers = (out / "explanation.json", out / "explanation.npz")
        for old in (out / "index.html", *out.glob("contact-*.png"), *numbers):
            if old.is_file() and not old.is_symlink():
                old.unlink()  # what an interrupted run leaves must be of one exam
        explanation.write_numbers(out)
        write_exam_page(out, exam, explanation, model=name_of(model))
    return explanation


def write_exam_page(
    folder: str | Path, exam: Exam, explanation: Explanation, *, model: str
) -> None:
    """Writes `contact-<finding>.png` for every finding and `index.html`, the page last.

    Args:
        folder: where to write; made where it isn't there.
        exam: the exam that was explained.
        explanation: the explanation of it.
        model: the model's name, for the page.
    """
    folder = Path(folder)
    sheets = {f: contact_sheet(exam, explanation, f) for f in explanation.findings}
    for finding, sheet in sheets.items():
        with whole_file(folder / f"contact-{finding}.png") as beside:
            beside.write_bytes(png(sheet))
    text = exam_page(exam, explanation, model=model, sheets=sheets)
    with whole_file(folder / "index.html") as beside:
        beside.write_text(text, encoding="utf-8")


def exam_page(
    exam: Exam,
    explanation: Explanation,
    *,
    model: str,
    sheets: Mapping[str, Sheet] | None = None,
    digest: str | None = None,
    request_id: str | None = None,
) -> str:
    """The page of one exam, in HTML; it loads nothing.

    Args:
        exam: the exam that was explained.
        explanation: the explanation of it.
        model: the model's name.
        sheets: finding -> the contact sheet that lies beside the page with all numbers; None where
            nothing lies beside it, so that the page doesn't speak of files.
        digest: SHA-256 of the model's files, where it is known.
        request_id: of the request that the page answers, where there is one.
    """
    views = []
    for finding in explanation.findings:
        sheet = sheets[finding] if sheets else contact_sheet(exam, explanation, finding)
        views.append(_finding_view(exam, explanation, finding, sheet))
    return (
        templates()
        .get_template("exam.html")
        .render(
            exam=explanation.exam,
            findings=views,
            exact=explanation.method == EXACT,
            adds_up=explanation.adds_up,
            attention_fixed=explanation.attention_fixed,
            verbs=verbs_of(explanation),
            model=model,
            version=__version__,
            remarks=[str(remark) for remark in explanation.remarks],
            missing=[plane for plane in PLANES if plane not in exam.stacks],
            left_out=[plane for plane in exam.stacks if plane not in explanation.native],
            slices=sum(shape[0] for shape in explanation.shapes.values()),
            cells=_cells(explanation),
            scale=f"{explanation.scale:.2g}",
            largest=f"{explanation.largest_score:.{digits_of(explanation)}f}",
            chance=chance,
            colour_bar=data_uri(png(colour_bar(300, 18))),
            files=sheets is not None,
            digest=digest,
            request_id=request_id,
        )
    )


def _cells(explanation: Explanation) -> str:
    """How coarse a slice's map is: "6 x 6 cells", or each plane's where they differ."""
    grids = {p: f"{m.shape[2]} × {m.shape[3]} cells" for p, m in explanation.native.items()}  # noqa: RUF001  # times
    if len(set(grids.values())) == 1:
        return next(iter(grids.values()))
    return ", ".join(f"{plane} {grid}" for plane, grid in grids.items())


def _number(value: float, digits: int) -> str:
    """A number with its sign, as it is printed."""
    return signed(value, digits).replace("-", "−")  # noqa: RUF001  # minus


def _finding_view(exam: Exam, explanation: Explanation, finding: str, sheet: Sheet) -> FindingView:
    row = explanation.findings.index(finding)
    terms, zero = _terms(explanation, row)
    return FindingView(
        name=finding,
        title=title_of(finding),
        probability=float(explanation.probabilities[row]),
        uncalibrated=float(expit(explanation.logits[row])),
        terms=terms,
        zero=zero,
        adds_up=_adds_up(explanation, row),
        planes=tuple(_plane_view(exam, explanation, row, plane) for plane in explanation.native),
        sheet=data_uri(jpeg(sheet)),
        sheet_size=(sheet.shape[1], sheet.shape[0]),
        uncalibrated_because=explanation.uncalibrated.get(finding),
    )


def _steps(explanation: Explanation, row: int) -> list[tuple[str, float, float, float]]:
    """Label, value, start and end of each bar of the sum, the logit last.

    An exact sum runs on: each bar starts where the one before it ended. Grad-CAM's parts don't add
    up, so each starts at 0.
    """
    logit = float(explanation.logits[row])
    planes = [(str(plane), float(sums[row])) for plane, sums in explanation.plane_sums.items()]
    if explanation.method != EXACT:
        steps = [(name, value, 0.0, value) for name, value in planes]
    else:
        parts = [("bias", float(explanation.bias[row])), *planes]
        ends = list(accumulate(value for _, value in parts))
        steps = [
            (name, value, start, end)
            for (name, value), start, end in zip(parts, [0.0, *ends], ends, strict=False)
        ]
    return [*steps, ("logit", logit, 0.0, logit)]


def _terms(explanation: Explanation, row: int) -> tuple[tuple[Term, ...], float]:
    """The rows of the sum, on one axis for all of the exam's findings, and where its 0 lies."""
    every = [_steps(explanation, other) for other in range(len(explanation.findings))]
    ends = [x for steps in every for step in steps for x in step[2:]]
    low, high = min(ends), max(ends)
    width = (high - low) or 1.0
    digits = digits_of(explanation) + 1
    terms = []
    for label, value, start, end in every[row]:
        total = label == "logit"
        kind = "total" if total else "up" if value > 0 else "down"
        bar = Bar((min(start, end) - low) / width, abs(end - start) / width, kind)
        terms.append(Term(label, _number(value, digits), bar, total))
    return tuple(terms), -low / width


def _adds_up(explanation: Explanation, row: int) -> str:
    if explanation.method != EXACT:
        return "Grad-CAM, an approximation: does not add up to the logit"
    residual, allowed = float(explanation.residuals[row]), float(explanation.allowed[row])
    if residual > allowed:
        return f"does not add up to the logit: off by {residual:.1g}, more than {allowed:.1g}"
    return f"exact: adds up to the logit within {allowed:.1g} (here {residual:.0e})"


def _plane_view(exam: Exam, explanation: Explanation, row: int, plane: Plane) -> PlaneView:
    scores = explanation.slice_scores(plane)[row]
    raising, lowering = int(scores.argmax()), int(scores.argmin())
    denied = bool(explanation.logits[row] < 0 and scores[lowering] < 0 and lowering != raising)
    shown = (raising, lowering) if denied else (raising,)
    words = _words(explanation, row, plane, denied=denied)
    left, top, right, bottom = (100 * edge for edge in seen_box(explanation.seen(plane)))
    reach = [0.5 * float(score) / (explanation.largest_score or 1.0) for score in scores]
    digits = digits_of(explanation)
    _, rows, cols = explanation.shapes[plane]
    return PlaneView(
        name=plane,
        slices=len(scores),
        share=_number(scores.sum(), digits + 1),
        shown=tuple(
            _slice_view(exam, explanation, row, plane, index, sentence)
            for index, sentence in zip(shown, words, strict=True)
        ),
        bars=tuple(Bar(0.5 + min(r, 0.0), abs(r), "up" if r > 0 else "down") for r in reach),
        scores=tuple(_number(score, digits) for score in scores),
        ticks=_ticks(shown, len(scores)),
        seen=(left, top, right - left, bottom - top),
        size=(cols, rows),
        width=100 * min(1.0, TALLEST * cols / rows),
    )


def _slice_view(
    exam: Exam, explanation: Explanation, row: int, plane: Plane, index: int, words: str
) -> SliceView:
    grey = np.asarray(exam.stacks[plane][index])
    warm = overlay(grey, explanation.slice_heat(plane, row, index), explanation.scale)
    score = float(explanation.slice_scores(plane)[row, index])
    return SliceView(
        number=index + 1,
        score=_number(score, digits_of(explanation)),
        words=words,
        plain=data_uri(jpeg(_shown(grey))),
        warm=data_uri(jpeg(_shown(warm))),
    )


def _words(explanation: Explanation, row: int, plane: Plane, *, denied: bool) -> tuple[str, ...]:
    """A sentence on the plane's raising slice and one on its lowering slice.

    They are two where the finding is denied and both slices are shown, else one text.
    """
    finding, verbs = explanation.findings[row], verbs_of(explanation)
    digits = digits_of(explanation)
    scores = explanation.slice_scores(plane)[row]
    most, least = int(scores.argmax()), int(scores.argmin())
    up, down = float(scores[most]), float(scores[least])
    if up > 0:
        foremost = explanation.most_raising(finding) == (plane, most)
        first = f"Slice {most + 1} {verbs.up} most: {_amount(up, digits)}"
        first += ", the most of all planes." if foremost else "."
    elif up < 0:
        first = f"No slice of this plane {verbs.up}; slice {most + 1} {verbs.down_it} least: "
        first += f"{_amount(up, digits)}."
    else:
        first = f"No slice of this plane {verbs.up}."
    if down >= 0 or most == least:
        return (first,)
    foremost = explanation.most_lowering(finding) == (plane, least)
    second = f"Slice {least + 1} {verbs.down} most: {_amount(down, digits)}"
    second += ", the most of all planes." if foremost else "."
    return (first, second) if denied else (f"{first} {second}",)


def _amount(score: float, digits: int) -> str:
    """A score, or that it is less than what the digits can show."""
    if score != 0 and round(score, digits) == 0:
        return f"by less than {0.5 * 10**-digits:.{digits + 1}f}"
    return _number(score, digits)


def _ticks(shown: tuple[int, ...], slices: int) -> tuple[Tick, ...]:
    """The slices shown, then the first and the last, without what would lie on another."""
    ticks: list[Tick] = []
    for index in (*shown, 0, slices - 1):
        at = 100 * (index + 0.5) / slices
        if all(abs(at - other.at) >= CROWDED for other in ticks):
            ticks.append(Tick(index + 1, at, index in shown))
    return tuple(ticks)


def _shown(picture: UInt8[np.ndarray, "rows cols *rgb"]) -> UInt8[np.ndarray, "r c *rgb"]:
    image = Image.fromarray(picture)
    image.thumbnail((PICTURE, PICTURE), Image.Resampling.LANCZOS)
    return np.asarray(image)
