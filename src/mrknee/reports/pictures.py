"""Images of an explanation: heat maps on slices, and contact sheets of all slices of an exam.

Orange raises a finding's logit and blue lowers it. The opacity of a pixel depends on its heat and
on one scale for the complete exam, not on its slice: equal heat has equal colour in all slices, and
a slice without heat stays grey.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import ceil, floor, log10

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from mrknee.exams import Exam
from mrknee.explanations.explanation import Explanation
from mrknee.reports.words import title_of

__all__ = [
    "Sheet",
    "colour_bar",
    "contact_sheet",
    "data_uri",
    "digits_of",
    "jpeg",
    "overlay",
    "png",
    "probability_text",
    "seen_box",
    "signed",
    "slice_in_words",
]

Picture = UInt8[np.ndarray, "rows cols 3"]
"""RGB image, one byte per channel."""

Sheet = UInt8[np.ndarray, "_ _ 3"]
"""RGB image composed of others, of any size."""

RAISES, LOWERS = (255, 112, 0), (30, 136, 255)
"""Orange and blue: distinguishable with any colour vision (the pair of Okabe and Ito 2008, at
maximum brightness, because it is shown on dark slices)."""

GAMMA = 0.5
"""Opacity is proportional to (heat / scale) ** GAMMA. Below 1, so that a tenth of the largest heat
is visible (a third of the largest opacity); the same for every pixel of every exam."""

MOST_OPAQUE = 0.8
"""Opacity of the largest heat: a fifth of the slice remains visible."""

WIDTH, MARGIN, GAP, TALLEST = 1280, 24, 8, 1800
"""Contact sheet, in pixels: width, margin, gap between slices, and the height above which more and
smaller slices are placed in a row."""

COLUMNS = (6, 8, 10, 12, 16, 20)
"""Slices per row of a contact sheet, as few as the height allows; 20 are 54 pixels wide each."""

HEAD, CAPTION, SERIES_TITLE = 138, 30, 40
"""Heights in pixels: head of the sheet, caption of a slice, heading of a series."""

PAPER, INK, FAINT, SEEN = "#121417", "#f2f2f2", "#a4abb5", "#8a929c"
"""Colours: background, text, secondary text, outline of the area used by the network."""

MARK, MARK_LOW = "#ffde00", "#9fe3ff"
"""Frame colours of the slices that raise and lower the logit most."""


def slice_in_words(explanation: Explanation, finding: str, *, raising: bool) -> str:
    """Returns which slice of all series raises, or lowers, the finding's logit most.

    For example "raised most by axial slice 3 of 12". If no slice has the wanted sign, the result
    names the slice with the smallest contribution of the other sign ("lowered least by ...").
    """
    find = explanation.most_raising if raising else explanation.most_lowering
    name, index = find(finding)
    score = float(explanation.slice_scores(name)[explanation.findings.index(finding), index])
    place = f"{name} slice {index + 1} of {explanation.shapes[name][0]}"
    if score == 0:
        return f"no slice {'raises' if raising else 'lowers'} the logit, for example {place}"
    amount = "most" if (score > 0) == raising else "least"
    return f"{'raised' if score > 0 else 'lowered'} {amount} by {place}"


def digits_of(explanation: Explanation) -> int:
    """Returns the number of decimals for the exam's scores, 2 to 6.

    More than 2 if the largest score is below 0.1, so that it has two significant digits.
    """
    largest = explanation.largest_score
    return min(max(1 - floor(log10(largest)), 2), 6) if largest > 0 else 2


def signed(value: float, digits: int) -> str:
    """Returns a number with its sign; values that round to 0 are "+0.00"."""
    return f"{round(float(value), digits) + 0.0:+.{digits}f}"


def probability_text(probability: float) -> str:
    """Returns a probability with two decimals, never 0 or 1: "0.73", ">0.99", "<0.01"."""
    if not 0.005 <= probability < 0.995:
        return ">0.99" if probability > 0.5 else "<0.01"
    return f"{probability:.2f}"


def overlay(
    grey: UInt8[np.ndarray, "*slices rows cols"],
    heat: Float[np.ndarray, "*slices rows cols"],
    scale: float,
) -> UInt8[np.ndarray, "*slices rows cols 3"]:
    """Returns slices with a heat map: orange for positive heat, blue for negative heat.

    Args:
        grey: one or several slices, 0 (black) to 255.
        heat: contribution of each pixel to the logit.
        scale: absolute heat of maximum opacity: the largest of the exam. At 0 nothing is coloured.
    """
    strength = np.clip(np.abs(heat) / scale, 0.0, 1.0) if scale > 0 else np.zeros_like(heat)
    opacity = (MOST_OPAQUE * strength**GAMMA)[..., None]
    raises, lowers = (np.array(colour, heat.dtype) for colour in (RAISES, LOWERS))
    colour = np.where(heat[..., None] > 0, raises, lowers)
    blended = grey[..., None] * (1.0 - opacity) + colour * opacity
    return np.asarray(blended.round().astype(np.uint8))


def png(picture: UInt8[np.ndarray, "rows cols *rgb"]) -> bytes:
    """Returns a grey or RGB image as a PNG file (lossless)."""
    return _encode(picture, "PNG")


def jpeg(picture: UInt8[np.ndarray, "rows cols *rgb"]) -> bytes:
    """Returns an image as a JPEG file: a fifth of the size of PNG, but not exact."""
    return _encode(picture, "JPEG", quality=88, subsampling=0)


def data_uri(file: bytes) -> str:
    """Returns a PNG or JPEG file as a data URI."""
    kind = "png" if file.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file).decode('ascii')}"


def seen_box(seen: Bool[np.ndarray, "rows cols"]) -> tuple[float, float, float, float]:
    """Returns the area used by the network: left, top, right, bottom as shares of the sides."""
    rows, cols = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    height, width = seen.shape
    return (
        float(cols[0] / width),
        float(rows[0] / height),
        float((cols[-1] + 1) / width),
        float((rows[-1] + 1) / height),
    )


def colour_bar(width: int, height: int) -> Picture:
    """Returns the colours of heat on dark grey, from -scale at the left to +scale."""
    heat = np.linspace(-1.0, 1.0, width)[None].repeat(height, axis=0)
    return overlay(np.full(heat.shape, 70, np.uint8), heat, 1.0)


def contact_sheet(exam: Exam, explanation: Explanation, finding: str) -> Sheet:
    """Draws every slice of an exam with its heat map, series by series.

    Below each slice are its number (counted from 1) and its score, as a number if it fits and as a
    bar to the right (raises) or left (lowers). The full bar is the largest slice score of the exam
    and of any finding. The slice with the largest score of each series is framed; if the logit is
    negative, also the slice with the smallest score.

    Args:
        exam: the explained exam.
        explanation: its explanation.
        finding: one of the explanation's findings.
    """
    counts = [len(exam.stacks[name]) for name in explanation.native]
    row = explanation.findings.index(finding)
    for columns in COLUMNS:
        side = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns
        rows = sum(ceil(count / columns) for count in counts)
        if HEAD + len(counts) * SERIES_TITLE + rows * (side + CAPTION + GAP) <= TALLEST:
            break
    digits, longest = digits_of(explanation), explanation.largest_score
    parts = [_head(explanation, row)]
    for name in explanation.native:
        scores = explanation.slice_scores(name)[row]
        pictures = _warm_tiles(exam, explanation, name, row, side)
        box = seen_box(explanation.seen(name))
        frames = {explanation.strongest(name, row, 1): MARK}
        if explanation.logits[row] < 0:
            frames = {explanation.strongest(name, row, -1): MARK_LOW} | frames
        captions = [(float(score), signed(score, digits)) for score in scores]
        parts.append(_series_title(name, scores, digits + 1))
        parts.append(_tiles(pictures, captions, longest, box, columns, side, frames))
    parts.append(np.asarray(_blank(MARGIN - GAP)[0]))
    return np.concatenate(parts)


def _warm_tiles(
    exam: Exam, explanation: Explanation, series: str, row: int, side: int
) -> UInt8[np.ndarray, "slices rows cols 3"]:
    """Returns the slices of a series with heat maps, scaled to fit a square of `side`.

    Colours are computed after scaling: MRNet's slices then have at most a sixth of the pixels.
    """
    stack = exam.stacks[series]
    rows, cols = stack.shape[1:]
    shrink = side / max(rows, cols)
    size = (max(round(rows * shrink), 1), max(round(cols * shrink), 1))
    greys = [
        Image.fromarray(np.asarray(one)).resize(size[::-1], Image.Resampling.LANCZOS)
        for one in stack
    ]
    heat = explanation.sized_heat(series, row, *size)
    return overlay(np.stack([np.asarray(one) for one in greys]), heat, explanation.scale)


def smaller(
    picture: UInt8[np.ndarray, "rows cols *rgb"], side: int
) -> UInt8[np.ndarray, "r c *rgb"]:
    """A picture scaled down so that its longer side has at most `side` pixels."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Returns Pillow's default font; cached, because loading takes longer than drawing."""
    return ImageFont.load_default(size)


def _blank(height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    sheet = Image.new("RGB", (WIDTH, height), PAPER)
    return sheet, ImageDraw.Draw(sheet)


def _write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    *,
    fill: str = INK,
    anchor: str = "la",
) -> None:
    draw.text(at, text, fill, _font(size), anchor)


def _head(explanation: Explanation, row: int) -> Sheet:
    """Draws the head of the sheet: finding, sum, legend, and colour bar with its scale."""
    sheet, draw = _blank(HEAD)
    digits = digits_of(explanation) + 1
    bar, left = 280, WIDTH - MARGIN - 280
    room = left - 2 * MARGIN
    finding = _fitting(title_of(explanation.findings[row], explanation.titles), room // 3, 24)
    probability = probability_text(float(explanation.probabilities[row]))
    rest = f"  ·  {finding}  ·  probability {probability}"
    room -= round(_font(24).getlength("Exam " + rest))
    _write(draw, (MARGIN, 18), f"Exam {_fitting(explanation.exam, room, 24)}{rest}", 24)
    logit, bias = (signed(x[row], digits) for x in (explanation.logits, explanation.bias))
    sums = explanation.series_sums.items()
    parts = "  ".join(f"{signed(own[row], digits)} ({name})" for name, own in sums)
    if explanation.adds_up:
        words = f"logit  {logit}  =  {bias} (bias)  {parts}"
    else:
        words = f"logit  {logit}; the parts do not add up to it:  {bias} (bias)  {parts}"
    _write(draw, (MARGIN, 54), words, 16)
    frames = "Yellow frame: the slice of the series that raises the logit most"
    if explanation.logits[row] < 0:
        frames += "; light blue: that lowers it most"
    legend = (
        "Below each slice: its number and its contribution to the logit.",
        f"{frames}. Grey frame: area used by the network.",
    )
    for line, text in enumerate(legend):
        _write(draw, (MARGIN, 84 + 20 * line), text, 14, fill=FAINT)
    sheet.paste(Image.fromarray(colour_bar(bar, 18)), (left, 44))
    _write(draw, (left, 18), "lowers the logit", 15)
    _write(draw, (WIDTH - MARGIN, 18), "raises the logit", 15, anchor="ra")
    ends = ((left, "la", -1), (left + bar / 2, "ma", 0), (WIDTH - MARGIN, "ra", 1))
    for x, anchor, sign in ends:
        number = f"{sign * explanation.scale:+.2g}" if sign else "0"
        _write(draw, (x, 66), number, 14, fill=FAINT, anchor=anchor)
    _write(
        draw,
        (WIDTH - MARGIN, 84),
        "logit per pixel, one scale for the exam",
        14,
        fill=FAINT,
        anchor="ra",
    )
    _write(draw, (WIDTH - MARGIN, 104), "Research use only", 14, fill=FAINT, anchor="ra")
    return np.asarray(sheet)


def _fitting(text: str, width: float, size: int) -> str:
    """Returns the text, shortened in the middle to fit the width.

    Other characters than ASCII are escaped, because Pillow's default font lacks most of them.
    """
    font = _font(size)
    whole = text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
    kept = whole
    for left in range(len(whole) - 1, 0, -1):
        if font.getlength(kept) <= width:
            break
        kept = f"{whole[: (left + 1) // 2]}...{whole[len(whole) - left // 2 :]}"
    return kept


def _series_title(name: str, scores: Float[np.ndarray, " slices"], digits: int) -> Sheet:
    sheet, draw = _blank(SERIES_TITLE)
    slices = f"{len(scores)} slice" + "s" * (len(scores) > 1)
    text = f"{name}  ·  {slices}  ·  total {signed(float(scores.sum()), digits)}"
    _write(draw, (MARGIN, 12), text, 18)
    return np.asarray(sheet)


def _tiles(
    pictures: UInt8[np.ndarray, "slices rows cols 3"],
    captions: Sequence[tuple[float, str]],
    longest: float,
    box: tuple[float, float, float, float],
    columns: int,
    side: int,
    frames: Mapping[int, str],
) -> Sheet:
    """Draws the slices of one series in rows, each in a square of `side`, with captions.

    Args:
        pictures: the slices.
        captions: score of each slice, as a number and as text.
        longest: score of the full bar.
        box: area used by the network, as returned by `seen_box`.
        columns: slices per row.
        side: side of the square of a slice, in pixels.
        frames: index of a framed slice -> colour of its frame.
    """
    size = pictures.shape[2], pictures.shape[1]
    edges = [round(share * size[i % 2]) for i, share in enumerate(box)]
    step = size[1] + CAPTION + GAP
    sheet, draw = _blank(ceil(len(pictures) / columns) * step)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x = MARGIN + index % columns * (side + GAP)
        y = index // columns * step + 3
        left = x + (side - size[0]) // 2
        sheet.paste(Image.fromarray(picture), (left, y))
        seen = (left + edges[0], y + edges[1], left + edges[2] - 1, y + edges[3] - 1)
        draw.rectangle(seen, outline=SEEN)
        if index in frames:
            around = (left - 3, y - 3, left + size[0] + 2, y + size[1] + 2)
            draw.rectangle(around, outline=frames[index], width=3)
        _caption(draw, (x, y + size[1] + 5), side, index + 1, caption, longest)
    return np.asarray(sheet)


def _caption(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    side: int,
    number: int,
    caption: tuple[float, str],
    longest: float,
) -> None:
    """Draws the number of a slice, its score, and the score as a bar from the middle."""
    (x, y), (score, words) = at, caption
    _write(draw, at, str(number), 13)
    if _font(13).getlength(f"{number} {words}") <= side:
        _write(draw, (x + side, y), words, 13, anchor="ra")
    middle, top = x + side / 2, y + 16
    draw.rectangle((x, top, x + side, top + 5), fill="#2a2e34")
    if longest > 0:
        end = middle + score / longest * side / 2
        fill = RAISES if score > 0 else LOWERS
        draw.rectangle((min(middle, end), top, max(middle, end), top + 5), fill=fill)
    draw.line((middle, top - 1, middle, top + 6), fill=INK)


def _encode(picture: UInt8[np.ndarray, "rows cols *rgb"], kind: str, **settings: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **settings)
    return buffer.getvalue()
