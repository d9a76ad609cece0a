"""Reports as template sentences, and label tables read out of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np

from mrknee.sources.phantom.rsna.findings import FINDINGS
from mrknee.sources.phantom.rsna.lesions import LESSER
from mrknee.sources.phantom.rsna.phrases import PHRASES

Statement = Literal["present", "lesser", "absent"]
STATEMENTS: tuple[Statement, ...] = ("present", "lesser", "absent")
Statements = Mapping[str, Statement]
"""Finding -> what the report states; a finding that is missing is not mentioned."""

# Chosen so that, with the experts' frequencies, the reports agree with the truth in 82 to 85 % as
# participants measured, with more over-calls than misses, and so that synovitis is not mentioned
# in 84 to 88 % of the reports. Order of FINDINGS.
SENSITIVITY = dict(
    zip(
        FINDINGS,
        (0.90, 0.75, 0.88, 0.82, 0.85, 0.80, 0.85, 0.92, 0.45, 0.90, 0.85, 0.80),
        strict=True,
    )
)
"""Share of the present findings that a report states as present."""
OVERCALLS = dict(
    zip(
        FINDINGS,
        (0.06, 0.08, 0.20, 0.09, 0.20, 0.15, 0.25, 0.35, 0.04, 0.15, 0.12, 0.06),
        strict=True,
    )
)
"""Share of the absent findings that a report states as present."""
LESSER_FACTOR = 6.0
"""How much more often a lesser lesion is over-called than no lesion."""
SILENCE = dict(
    zip(
        FINDINGS,
        (0.15, 0.25, 0.10, 0.10, 0.45, 0.45, 0.40, 0.25, 0.98, 0.50, 0.50, 0.60),
        strict=True,
    )
)
"""Share of the findings that aren't stated as present or lesser and aren't mentioned at all."""
MENISCAL_DEGENERATION = 0.35
"""Mean share of menisci with degeneration, a lesser change of a meniscus."""


def draw_statements(
    rng: np.random.Generator, present: Collection[str], lesser: Collection[str]
) -> dict[str, Statement]:
    """Draws what a report states.

    Args:
        rng: random stream.
        present: findings that are present.
        lesser: absent findings of which there is a lesser lesion.
    """
    statements: dict[str, Statement] = {}
    for name in FINDINGS:
        called, graded, silent = rng.random(3)
        if name in present:
            chance = SENSITIVITY[name]
        else:
            share = LESSER.get(name, MENISCAL_DEGENERATION)
            chance = OVERCALLS[name] / (1.0 + (LESSER_FACTOR - 1.0) * share)
            chance *= LESSER_FACTOR if name in lesser else 1.0
        if called < chance:
            statements[name] = "present"
        elif name in lesser and graded < 0.5 and name != "synovitis":
            statements[name] = "lesser"
        elif silent >= SILENCE[name]:
            statements[name] = "absent"
    return statements


def write_report(
    rng: np.random.Generator,
    language: str,
    statements: Statements,
    *,
    right: bool,
    shared: int | None = None,
) -> str:
    """Writes a report.

    Args:
        rng: random stream.
        language: key of `PHRASES`.
        statements: what it states.
        right: whether it is of a right knee.
        shared: number of a standard text for a normal knee, the same for every study; the report
            then names no side and states every finding but synovitis as absent.
    """
    words = PHRASES[language]
    if shared is not None:
        lines = [words.statements[name][2] for name in FINDINGS if name != "synovitis"]
        ratio = 1.0 + 0.1 * shared
        parts = [words.unsided, words.technique, words.findings, *lines]
        parts += [f"{words.index}: {ratio:.2f}", words.impression, words.normal]
        return "\n".join(parts)
    lines = [words.statements[name][STATEMENTS.index(what)] for name, what in statements.items()]
    order = rng.permutation(len(lines))
    called = [words.statements[name][0] for name, what in statements.items() if what == "present"]
    parts = [words.title.format(words.right if right else words.left), words.technique]
    parts += [words.findings, *(lines[index] for index in order)]
    parts += [f"{words.index}: {rng.uniform(0.8, 1.35):.2f}", words.impression]
    parts += called or [words.normal]
    return "\n".join(parts)


def soft_labels(rng: np.random.Generator, statements: Statements) -> dict[str, float]:
    """Returns probabilities as a language model reads them out of a report, 0 to 1."""
    values: dict[str, float] = {}
    for name in FINDINGS:
        what = statements.get(name)
        low, high = {"present": (0.78, 0.99), "lesser": (0.15, 0.5), "absent": (0.0, 0.06)}.get(
            what or "", (0.03, 0.15) if name != "synovitis" else (0.08, 0.30)
        )
        values[name] = round(float(rng.uniform(low, high)), 3)
    return values


def rule_labels(rng: np.random.Generator, statements: Statements) -> dict[str, float | None]:
    """Returns labels as rules read them out of a report: 0, 1, or None if it isn't mentioned.

    Every mention counts as present, but for a negation that the rules know; they miss one in ten.
    """
    values: dict[str, float | None] = {}
    for name in FINDINGS:
        what = statements.get(name)
        missed = rng.random() < 0.1
        if what is None:
            values[name] = None
        else:
            values[name] = float((what != "absent") != missed)
    return values
