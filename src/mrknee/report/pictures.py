"""Pictures of an explanation: a heat map over its slice, and every slice of an exam on one sheet.

Orange raises a finding's logit and blue lowers it. How strongly a pixel is coloured depends on its
heat and on one scale for the whole exam, never on its slice: two pixels of equal heat look alike
wherever they are, and a slice without heat stays grey.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from math import ceil

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from mrknee.exams import Exam, Plane
from mrknee.inference.explanation import EXACT, Explanation
from mrknee.report.words import title_of

__all__ = [
    "chance",
    "colour_bar",
    "contact_sheet",
    "data_uri",
    "jpeg",
    "overlay",
    "png",
    "seen_box",
    "signed",
]

Picture = UInt8[np.ndarray, "rows cols 3"]
"""Red, green, blue, one byte each."""

Sheet = UInt8[np.ndarray, "_ _ 3"]
"""A picture made of others, of any size."""

RAISES, LOWERS = (255, 112, 0), (30, 136, 255)
"""Orange and blue: told apart with any colour vision (the pair of Okabe and Ito 2008, as bright as
a screen shows it, because it lies on dark slices)."""

GAMMA = 0.5
"""Opacity grows with (heat / scale) ** GAMMA. Below 1, so that a tenth of the largest heat can be
seen (a third of the largest opacity); the same for every pixel of every exam."""

MOST_OPAQUE = 0.8
"""At the largest heat a fifth of the slice still shows through."""

WIDTH, MARGIN, GAP, TALLEST = 1280, 24, 8, 1800
"""Of a contact sheet, in pixels: its width, its edge, the gap between slices, and the height it
keeps within as long as a row can take more and smaller slices."""

COLUMNS = (6, 8, 10, 12, 16, 20)
"""Slices a row of a contact sheet, as few as the height allows; 20 are 54 pixels wide each."""

HEAD, CAPTION, PLANE_TITLE = 138, 30, 40
"""Heights in pixels: the sheet's head, what is written below a slice, a plane's heading."""

PAPER, INK, FAINT, MARK, SEEN = "#121417", "#f2f2f2", "#a4abb5", "#ffde00", "#8a929c"
"""Background, writing, lesser writing, the strongest slice's frame, the edge of what is seen."""


def signed(value: float, digits: int) -> str:
    """A number with its sign; what rounds to 0 has none of its own: +0.00."""
    return f"{round(float(value), digits) + 0.0:+.{digits}f}"


def chance(probability: float) -> str:
    """A probability to two digits that never says certain: "0.73", ">0.99", "<0.01"."""
    if not 0.005 <= probability < 0.995:
        return ">0.99" if probability > 0.5 else "<0.01"
    return f"{probability:.2f}"


def overlay(
    grey: UInt8[np.ndarray, "rows cols"], heat: Float[np.ndarray, "rows cols"], scale: float
) -> Picture:
    """A slice with its heat on it: orange where heat is above 0, blue where it is below.

    Args:
        grey: the slice, 0 black to 255.
        heat: what each pixel adds to the logit.
        scale: the heat, of either sign, that is as opaque as it gets: the exam's largest. At 0
            nothing is coloured.
    """
    strength = np.clip(np.abs(heat) / scale, 0.0, 1.0) if scale > 0 else np.zeros(heat.shape)
    opacity = (MOST_OPAQUE * strength**GAMMA)[..., None]
    colour = np.where(heat[..., None] > 0, np.array(RAISES), np.array(LOWERS))
    blended = grey[..., None] * (1.0 - opacity) + colour * opacity
    return np.asarray(blended.round().astype(np.uint8))


def png(picture: UInt8[np.ndarray, "rows cols *rgb"]) -> bytes:
    """A picture, grey or coloured, as a PNG file: every pixel as it is."""
    return _encode(picture, "PNG")


def jpeg(picture: UInt8[np.ndarray, "rows cols *rgb"]) -> bytes:
    """A picture as a JPEG file: a fifth of the bytes, good for looking at, not for measuring."""
    return _encode(picture, "JPEG", quality=88, subsampling=0)


def data_uri(file: bytes) -> str:
    """What `png` or `jpeg` gave, as an address that holds the picture itself."""
    kind = "png" if file.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file).decode('ascii')}"


def seen_box(seen: Bool[np.ndarray, "rows cols"]) -> tuple[float, float, float, float]:
    """What the network sees of a slice: left, top, right, bottom as shares of its sides."""
    rows, cols = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    height, width = seen.shape
    return (
        float(cols[0] / width),
        float(rows[0] / height),
        float((cols[-1] + 1) / width),
        float((rows[-1] + 1) / height),
    )


def colour_bar(width: int, height: int) -> Picture:
    """What heat looks like on dark grey, from minus the scale at the left to plus the scale."""
    heat = np.linspace(-1.0, 1.0, width)[None].repeat(height, axis=0)
    return overlay(np.full(heat.shape, 70, np.uint8), heat, 1.0)


def contact_sheet(exam: Exam, explanation: Explanation, finding: str) -> Sheet:
    """Every slice of an exam with its heat, in order, plane by plane.

    Below each slice its number (counted from 1) and its score, as a number where there is room and
    as a bar to the right (raises) or left (lowers); the bars' length is the exam's largest slice
    score of any finding. The slice of each plane that speaks most for the finding is framed.

    Args:
        exam: the exam that was explained.
        explanation: the explanation of it.
        finding: one of the explanation's findings.
    """
    counts = [len(exam.stacks[plane]) for plane in explanation.native]
    row = explanation.findings.index(finding)
    for columns in COLUMNS:
        side = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns
        rows = sum(ceil(count / columns) for count in counts)
        if HEAD + len(counts) * PLANE_TITLE + rows * (side + CAPTION + GAP) <= TALLEST:
            break
    longest = max(float(np.abs(explanation.slice_scores(p)).max()) for p in explanation.native)
    parts = [_head(explanation, row)]
    for plane in explanation.native:
        scores = explanation.slice_scores(plane)[row]
        heat = explanation.heat(plane)[row]
        pictures = [
            overlay(grey, warm, explanation.scale)
            for grey, warm in zip(exam.stacks[plane], heat, strict=True)
        ]
        box = seen_box(explanation.seen(plane))
        parts.append(_plane_title(plane, scores))
        parts.append(_tiles(pictures, scores, longest, box, columns, side))
    parts.append(np.asarray(_blank(MARGIN - GAP)[0]))
    return np.concatenate(parts)


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
    draw.text(at, text, fill, ImageFont.load_default(size), anchor)


def _head(explanation: Explanation, row: int) -> Sheet:
    """The finding, the sum, how to read the colours, and the colour bar with its scale."""
    sheet, draw = _blank(HEAD)
    finding = title_of(explanation.findings[row])
    probability, logit = float(explanation.probabilities[row]), explanation.logits[row]
    title = f"Exam {explanation.exam}  ·  {finding}  ·  probability {chance(probability)}"
    _write(draw, (MARGIN, 18), title, 24)
    planes = "  ".join(f"{signed(s[row], 3)} ({p})" for p, s in explanation.plane_sums.items())
    if explanation.method == EXACT:
        words = f"logit  {signed(logit, 3)}  =  {signed(explanation.bias[row], 3)} (bias)  {planes}"
    else:
        words = f"logit  {signed(logit, 3)}; Grad-CAM, which does not add up to it:  {planes}"
    _write(draw, (MARGIN, 54), words, 16)
    legend = (
        "Below each slice: its number and what it adds to the logit.",
        "Yellow frame: the plane's slice that speaks most for the finding. Grey frame: what the"
        " network sees.",
    )
    for line, text in enumerate(legend):
        _write(draw, (MARGIN, 84 + 20 * line), text, 14, fill=FAINT)
    bar, left = 280, WIDTH - MARGIN - 280
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


def _plane_title(plane: Plane, scores: Float[np.ndarray, " slices"]) -> Sheet:
    sheet, draw = _blank(PLANE_TITLE)
    slices = f"{len(scores)} slice" + "s" * (len(scores) > 1)
    text = f"{plane}  ·  {slices}  ·  together {signed(float(scores.sum()), 3)}"
    _write(draw, (MARGIN, 12), text, 18)
    return np.asarray(sheet)


def _tiles(
    pictures: Sequence[Picture],
    scores: Float[np.ndarray, " slices"],
    longest: float,
    box: tuple[float, float, float, float],
    columns: int,
    side: int,
) -> Sheet:
    """One plane's slices in rows, as large as fits a square of `side`, with what is below them."""
    height, width = pictures[0].shape[:2]
    shrink = side / max(height, width)
    size = (max(round(width * shrink), 1), max(round(height * shrink), 1))
    edges = [round(share * size[i % 2]) for i, share in enumerate(box)]
    step = size[1] + CAPTION + GAP
    sheet, draw = _blank(ceil(len(pictures) / columns) * step)
    strongest = int(scores.argmax())
    for index, (picture, score) in enumerate(zip(pictures, scores, strict=True)):
        x = MARGIN + index % columns * (side + GAP)
        y = index // columns * step + 3
        left = x + (side - size[0]) // 2
        sheet.paste(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), (left, y))
        seen = (left + edges[0], y + edges[1], left + edges[2] - 1, y + edges[3] - 1)
        draw.rectangle(seen, outline=SEEN)
        if index == strongest:
            draw.rectangle(
                (left - 3, y - 3, left + size[0] + 2, y + size[1] + 2), outline=MARK, width=3
            )
        _caption(draw, (x, y + size[1] + 5), side, index + 1, float(score), longest)
    return np.asarray(sheet)


def _caption(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    side: int,
    number: int,
    score: float,
    longest: float,
) -> None:
    """A slice's number, its score, and the score as a bar from the middle."""
    x, y = at
    _write(draw, at, str(number), 13)
    if side >= 64:
        _write(draw, (x + side, y), signed(score, 2), 13, anchor="ra")
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
