"""The page of one exam: what each finding's logit is made of, series by series, slice by slice.

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
from scipy.special import expit

from mrknee import __version__
from mrknee.exams import Exam, open_dataset
from mrknee.files import owned_folder, whole_file
from mrknee.inference.explanation import Explanation
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
    smaller,
)
from mrknee.report.templates import templates
from mrknee.report.words import title_of

PAGE_SIDE = 512
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
    """A row of the sum: bias, a series, or the logit.

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
    """One slice of a series: the one that raises a finding's logit most, or lowers it most.

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
class SeriesView:
    """One series of one finding.

    Attributes:
        name: the series.
        slices: how many it has.
        share: what the series adds, signed.
        shown: the slice that raises most; where the logit is below 0, which denies the finding,
            also the one that lowers most.
        bars: slice scores, bottom to top, one a slice.
        scores: the same as text.
        ticks: numbers below the bars.
        seen: left, top, width, height of what the network sees, in percent.
        size: columns and rows of the slice.
        width: how much of its column a picture takes, in percent; a tall one takes less.
    """

    name: str
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
        series: those the exam has.
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
    series: tuple[SeriesView, ...]
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
    allow_missing_plane: bool = False,
    axes: str | None = None,
    threads: int | None = None,
    runtime: RuntimeName | None = None,
) -> Explanation:
    """Explains one exam: numbers, contact sheets and the page.

    Args:
        model: a run folder, or an ONNX file that `mrknee export` wrote; or an ensemble's members.
        exams: a data set's folder, or one with the series' folders inside.
        exam_id: which exam.
        out: where to write; made where it isn't there.
        split: which split of a data set.
        allow_missing_plane: let exams through that lack series.
        axes: the order of the files' axes, as for `Dataset`.
        threads: processor threads to compute with; None leaves it to the library.
        runtime: what computes an ONNX file; None takes ONNX Runtime.

    Returns:
        The explanation written.

    Raises:
        MrkneeError: no such exam, no model, or files that can't be used.
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
        explanation = opened.explain(exam)
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
            adds_up=explanation.adds_up,
            attention_fixed=explanation.attention_fixed,
            model=model,
            version=__version__,
            remarks=[str(remark) for remark in explanation.remarks],
            missing=[n for n in explanation.series.names if n not in exam.stacks],
            left_out=[name for name in exam.stacks if name not in explanation.native],
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
    """How coarse a slice's map is: "6 x 6 cells", or each series' where they differ."""
    grids = {p: f"{m.shape[2]} × {m.shape[3]} cells" for p, m in explanation.native.items()}  # noqa: RUF001  # times
    if len(set(grids.values())) == 1:
        return next(iter(grids.values()))
    return ", ".join(f"{name} {grid}" for name, grid in grids.items())


def _number(value: float, digits: int) -> str:
    """A number with its sign, as it is printed."""
    return signed(value, digits).replace("-", "−")  # noqa: RUF001  # minus


def _finding_view(exam: Exam, explanation: Explanation, finding: str, sheet: Sheet) -> FindingView:
    row = explanation.findings.index(finding)
    terms, zero = _terms(explanation, row)
    return FindingView(
        name=finding,
        title=title_of(finding, explanation.titles),
        probability=float(explanation.probabilities[row]),
        uncalibrated=float(expit(explanation.logits[row])),
        terms=terms,
        zero=zero,
        adds_up=_adds_up(explanation, row),
        series=tuple(_series_view(exam, explanation, row, name) for name in explanation.native),
        sheet=data_uri(jpeg(sheet)),
        sheet_size=(sheet.shape[1], sheet.shape[0]),
        uncalibrated_because=explanation.uncalibrated.get(finding),
    )


def _steps(explanation: Explanation, row: int) -> list[tuple[str, float, float, float]]:
    """Label, value, start and end of each bar of the sum, the logit last.

    Each bar starts where the one before it ended.
    """
    logit = float(explanation.logits[row])
    sums = [(name, float(own[row])) for name, own in explanation.series_sums.items()]
    parts = [("bias", float(explanation.bias[row])), *sums]
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
    residual, allowed = float(explanation.residuals[row]), float(explanation.allowed[row])
    if residual > allowed:
        return f"does not add up to the logit: off by {residual:.1g}, more than {allowed:.1g}"
    return f"exact: adds up to the logit within {allowed:.1g} (here {residual:.0e})"


def _series_view(exam: Exam, explanation: Explanation, row: int, name: str) -> SeriesView:
    scores = explanation.slice_scores(name)[row]
    raising, lowering = int(scores.argmax()), int(scores.argmin())
    denied = bool(explanation.logits[row] < 0 and scores[lowering] < 0 and lowering != raising)
    shown = (raising, lowering) if denied else (raising,)
    words = _words(explanation, row, name, denied=denied)
    left, top, right, bottom = (100 * edge for edge in seen_box(explanation.seen(name)))
    reach = [0.5 * float(score) / (explanation.largest_score or 1.0) for score in scores]
    digits = digits_of(explanation)
    _, rows, cols = explanation.shapes[name]
    return SeriesView(
        name=name,
        slices=len(scores),
        share=_number(scores.sum(), digits + 1),
        shown=tuple(
            _slice_view(exam, explanation, row, name, index, sentence)
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
    exam: Exam, explanation: Explanation, row: int, name: str, index: int, words: str
) -> SliceView:
    grey = np.asarray(exam.stacks[name][index])
    warm = overlay(grey, explanation.slice_heat(name, row, index), explanation.scale)
    score = float(explanation.slice_scores(name)[row, index])
    return SliceView(
        number=index + 1,
        score=_number(score, digits_of(explanation)),
        words=words,
        plain=data_uri(jpeg(smaller(grey, PAGE_SIDE))),
        warm=data_uri(jpeg(smaller(warm, PAGE_SIDE))),
    )


def _words(explanation: Explanation, row: int, name: str, *, denied: bool) -> tuple[str, ...]:
    """A sentence on the series' raising slice and one on its lowering slice.

    They are two where the finding is denied and both slices are shown, else one text.
    """
    finding = explanation.findings[row]
    digits = digits_of(explanation)
    scores = explanation.slice_scores(name)[row]
    most, least = int(scores.argmax()), int(scores.argmin())
    up, down = float(scores[most]), float(scores[least])
    if up > 0:
        foremost = explanation.most_raising(finding) == (name, most)
        first = f"Slice {most + 1} raises the logit most: {_amount(up, digits)}"
        first += ", the most of all series." if foremost else "."
    elif up < 0:
        first = f"No slice of this series raises the logit; slice {most + 1} lowers it least: "
        first += f"{_amount(up, digits)}."
    else:
        first = "No slice of this series raises the logit."
    if down >= 0 or most == least:
        return (first,)
    foremost = explanation.most_lowering(finding) == (name, least)
    second = f"Slice {least + 1} lowers the logit most: {_amount(down, digits)}"
    second += ", the most of all series." if foremost else "."
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
