"""The result of `mrknee check` as plain text: facts, then problems by kind, with advice."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mrknee.checks.facts import Checkup, LabelCount
from mrknee.checks.metadata import metadata_rows
from mrknee.checks.problem import KINDS, Problem
from mrknee.tables import table_lines

SHOWN = 5
"""Maximum number of problems listed per kind; the JSON output lists all."""


def table(checkup: Checkup) -> str:
    """Formats the facts and the problems, at most `SHOWN` of each kind."""
    labels = [
        ("split", "exams", "finding", "positive", "negative", "not known", "prevalence (95 % CI)")
    ]
    slices = [("split", "series", "stacks", "slices: fewest", "quartiles", "most")]
    for name, facts in checkup.splits.items():
        for finding, n in facts.labels.items():
            counts = (str(n.positive), str(n.negative), str(n.unknown))
            labels.append((name, str(facts.exams), finding, *counts, _share(n)))
        if not facts.labels:
            labels.append((name, str(facts.exams), "(no labels)", "", "", "", ""))
        for series, m in facts.slices.items():
            quartiles = f"{m.lower:g} / {m.median:g} / {m.upper:g}"
            slices.append((name, series, str(m.stacks), str(m.fewest), quartiles, str(m.most)))
    parts = [checkup.data, "", *table_lines(labels), "", *table_lines(slices), ""]
    if checkup.metadata:
        parts += [*table_lines(metadata_rows(checkup.metadata)), ""]
    for title, problems in (("error", checkup.errors), ("warning", checkup.warnings)):
        if problems:
            parts += [*_listed(title, problems), ""]
    if not checkup.problems:
        parts += ["no problems found", ""]
    if not checkup.planes_compared:
        parts.append("too few exams, or planes too alike: no stack's plane was judged by its look")
    return "\n".join(parts).rstrip() + "\n"


def _share(n: LabelCount) -> str:
    share = n.prevalence
    if math.isnan(share.value):
        return "-"
    return f"{share.value:.3f} ({share.low:.3f} to {share.high:.3f})"


def _listed(title: str, problems: Sequence[Problem]) -> list[str]:
    """Formats problems by kind, at most `SHOWN` of each."""
    lines = [f"{len(problems)} {title}{'' if len(problems) == 1 else 's'}"]
    for code in dict.fromkeys(problem.code for problem in problems):
        mine = [problem for problem in problems if problem.code == code]
        lines.append(f"  {code}: {KINDS[code].means}")
        lines += [f"    {problem.file}: {problem.text}" for problem in mine[:SHOWN]]
        if len(mine) > SHOWN:
            lines.append(f"    and {len(mine) - SHOWN} more (--json lists them)")
        lines += [
            f"    to do: {advice}" for advice in dict.fromkeys(p.advice for p in mine[:SHOWN])
        ]
    return lines
