"""Explanation page of one exam: decomposition of each logit into series and slices.

The page is one file, `index.html`, without external resources. It contains its images as JPEG,
because a dozen slices and a contact sheet per finding would be 5 MB and more as PNG. The sheets are
also written as PNG next to the page, and the numbers as NPZ and JSON.
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
from mrknee.explanations.explanation import Explanation
from mrknee.files import atomic_write, owned_folder, write_text
from mrknee.inference.model import ModelPaths, load_model, name_of, paths_of
from mrknee.inference.runtimes import RuntimeName
from mrknee.outputs import check_output_folder
from mrknee.reports.pictures import (
    Sheet,
    colour_bar,
    contact_sheet,
    data_uri,
    digits_of,
    jpeg,
    overlay,
    png,
    probability_text,
    seen_box,
    signed,
    smaller,
)
from mrknee.reports.templates import templates
from mrknee.reports.words import title_of

PAGE_SIDE = 512
"""Maximum length of a slice's longer side in the page, in pixels; larger slices are scaled down."""

TALLEST = 1.25
"""Maximum height of a slice in the page, relative to the width of its column."""

CROWDED = 9.0
"""Minimum distance of the numbers below a chart, in percent of its width."""


@dataclass(frozen=True)
class Bar:
    """A bar of a chart; positions are shares of the axis, from 0 (left or bottom) to 1.

    Attributes:
        start: smaller end.
        length: length of the bar.
        kind: `up` (raises), `down` (lowers) or `total`.
    """

    start: float
    length: float
    kind: str


@dataclass(frozen=True)
class Term:
    """A row of the sum: bias, a series, or the logit.

    Attributes:
        label: name of the term.
        number: value with sign.
        bar: bar on the common axis.
        total: whether the term is the logit.
    """

    label: str
    number: str
    bar: Bar
    total: bool


@dataclass(frozen=True)
class SliceView:
    """One slice of a series: the one that raises a finding's logit most, or lowers it most.

    Attributes:
        number: number of the slice, counted from 1.
        score: contribution to the logit, with sign.
        words: the contribution as a sentence.
        plain: the slice as a data URI.
        warm: the slice with its heat map as a data URI.
    """

    number: int
    score: str
    words: str
    plain: str
    warm: str


@dataclass(frozen=True)
class Tick:
    """The number of a slice below the chart of slices.

    Attributes:
        number: number of the slice, counted from 1.
        at: position, in percent of the chart's width.
        shown: whether the slice is shown; the first and last slice are numbered too.
    """

    number: int
    at: float
    shown: bool


@dataclass(frozen=True)
class SeriesView:
    """One series of one finding.

    Attributes:
        name: name of the series.
        slices: number of slices.
        share: contribution of the series to the logit, with sign.
        shown: the slice that raises the logit most; if the logit is negative, also the slice that
            lowers it most.
        bars: slice scores from bottom to top, one bar per slice.
        scores: slice scores as text.
        ticks: numbers below the bars.
        seen: left, top, width, height of the area used by the network, in percent.
        size: columns and rows of the slices.
        width: width of an image relative to its column, in percent; smaller for tall slices.
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
        name: name of the finding, part of the contact sheet's file name.
        title: title of the finding.
        probability: probability returned by the model.
        uncalibrated: the logit as a probability.
        uncalibrated_because: why the probability is not calibrated; None if it is.
        terms: terms of the sum.
        zero: position of 0 on the sum's axis, 0 to 1.
        adds_up: whether and how exactly the terms add up, as text.
        series: the series of the exam.
        sheet: the contact sheet as a data URI.
        sheet_size: width and height of the contact sheet.
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
    """Explains one exam and writes numbers, contact sheets and the page.

    Args:
        model: a run folder, an ONNX file written by `mrknee export`, or the members of an ensemble.
        exams: folder of a data set, or a folder that contains the folders of the series.
        exam_id: id of the exam.
        out: output folder; created if it does not exist.
        split: split of the data set.
        allow_missing_plane: whether to accept an exam that lacks series.
        axes: order of the axes in the files, as for `Dataset`.
        threads: number of CPU threads; None: the default of the library.
        runtime: runtime of an ONNX file; None: ONNX Runtime.

    Returns:
        The explanation that was written.

    Raises:
        MrkneeError: the exam or the model does not exist, or files can't be used.
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
                old.unlink()  # an interrupted run must not leave files of two exams
        explanation.write_numbers(out)
        write_exam_page(out, exam, explanation, model=name_of(model))
    return explanation


def write_exam_page(
    folder: str | Path, exam: Exam, explanation: Explanation, *, model: str
) -> None:
    """Writes `contact-<finding>.png` for every finding, then `index.html`.

    Args:
        folder: output folder; created if it does not exist.
        exam: the explained exam.
        explanation: its explanation.
        model: name of the model, shown in the page.
    """
    folder = Path(folder)
    sheets = {f: contact_sheet(exam, explanation, f) for f in explanation.findings}
    for finding, sheet in sheets.items():
        with atomic_write(folder / f"contact-{finding}.png") as beside:
            beside.write_bytes(png(sheet))
    text = exam_page(exam, explanation, model=model, sheets=sheets)
    write_text(folder / "index.html", text)


def exam_page(
    exam: Exam,
    explanation: Explanation,
    *,
    model: str,
    sheets: Mapping[str, Sheet] | None = None,
    digest: str | None = None,
    request_id: str | None = None,
) -> str:
    """Returns the explanation page of one exam as HTML without external resources.

    Args:
        exam: the explained exam.
        explanation: its explanation.
        model: name of the model.
        sheets: finding -> contact sheet that is written next to the page; None if no files are
            written, so that the page does not mention them.
        digest: SHA-256 of the model's files, if known.
        request_id: id of the request that the page answers, if any.
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
            probability_text=probability_text,
            colour_bar=data_uri(png(colour_bar(300, 18))),
            files=sheets is not None,
            digest=digest,
            request_id=request_id,
        )
    )


def _cells(explanation: Explanation) -> str:
    """Returns the grid of a slice's map: "6 x 6 cells", or one per series if they differ."""
    grids = {p: f"{m.shape[2]} × {m.shape[3]} cells" for p, m in explanation.native.items()}  # noqa: RUF001  # times
    if len(set(grids.values())) == 1:
        return next(iter(grids.values()))
    return ", ".join(f"{name} {grid}" for name, grid in grids.items())


def _number(value: float, digits: int) -> str:
    """Returns a number with its sign, for display."""
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
    """Returns label, value, start and end of each bar of the sum, the logit last.

    Each bar starts at the end of the previous one.
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
    """Returns the rows of the sum, on one axis for all findings, and the position of its 0."""
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
    raising, lowering = (explanation.strongest(name, row, sign) for sign in (1, -1))
    both = bool(explanation.logits[row] < 0 and scores[lowering] < 0 and lowering != raising)
    shown = (raising, lowering) if both else (raising,)
    words = _sentences(explanation, row, name, both=both)
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


def _sentences(explanation: Explanation, row: int, name: str, *, both: bool) -> tuple[str, ...]:
    """Returns sentences about the slices of a series that raise and lower the logit most.

    Two texts if both slices are shown, otherwise one.
    """
    finding = explanation.findings[row]
    digits = digits_of(explanation)
    scores = explanation.slice_scores(name)[row]
    most, least = (explanation.strongest(name, row, sign) for sign in (1, -1))
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
    return (first, second) if both else (f"{first} {second}",)


def _amount(score: float, digits: int) -> str:
    """Returns a score as text, or "by less than ..." if it rounds to 0."""
    if score != 0 and round(score, digits) == 0:
        return f"by less than {0.5 * 10**-digits:.{digits + 1}f}"
    return _number(score, digits)


def _ticks(shown: tuple[int, ...], slices: int) -> tuple[Tick, ...]:
    """Returns ticks of the shown, the first and the last slice, omitting overlapping ones."""
    ticks: list[Tick] = []
    for index in (*shown, 0, slices - 1):
        at = 100 * (index + 0.5) / slices
        if all(abs(at - other.at) >= CROWDED for other in ticks):
            ticks.append(Tick(index + 1, at, index in shown))
    return tuple(ticks)
