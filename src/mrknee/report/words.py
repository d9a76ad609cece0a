"""Numbers as a reader meets them: never without their interval, "–" between its ends."""  # noqa: RUF002

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from math import isnan
from types import MappingProxyType

from markupsafe import Markup, escape

from mrknee.scoring.comparison import Difference, MeanDifference
from mrknee.scoring.proportions import Proportion

INTERVAL = r"(−?\d\.\d+ )?\([^()]{1,28}\)"  # noqa: RUF001
"""What stands in brackets, with the decimal number before it."""

TITLES = {"abnormal": "abnormal", "acl": "ACL tear", "meniscus": "meniscal tear"}
"""MRNet's findings in words; others go by their own name."""

NOTHING = "—"
"""Stands where a number can't be computed."""


def title_of(finding: str, titles: Mapping[str, str] = MappingProxyType({})) -> str:
    """A finding's name in words.

    Args:
        finding: its name.
        titles: finding -> the title that the data set declares, which comes first.
    """
    return titles.get(finding) or TITLES.get(finding, finding)


def heading(finding: str, titles: Mapping[str, str] = MappingProxyType({})) -> str:
    """A finding in words, to start a line with; arguments as `title_of`'s."""
    title = title_of(finding, titles)
    return title[0].upper() + title[1:]


def number(value: float, digits: int = 3) -> str:
    """A number with so many digits, halves rounded up (0.965 is 0.97); a dash for NaN."""
    if isnan(value):
        return NOTHING
    shown = Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return str(shown if shown else abs(shown))  # what rounds to 0 has no sign


def with_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """A number and its 95 % interval: "0.915 (0.862–0.948)"."""  # noqa: RUF002
    if isnan(value):
        return NOTHING
    if isnan(low):
        return f"{number(value, digits)} (no interval)"
    return f"{number(value, digits)} ({number(low, digits)}–{number(high, digits)})"  # noqa: RUF001


def share(one: Proportion) -> str:
    """A share with count and Wilson's interval: "49 of 54 (91 %; 80–96 %)"."""  # noqa: RUF002
    if isnan(one.value):
        return f"{one.count} of {one.n}"
    return f"{one.count} of {one.n} ({percent(one.value, one.low, one.high)})"


def percent(value: float, low: float, high: float) -> str:
    """A share in percent with its interval: "91 %; 80–96 %"."""  # noqa: RUF002
    if isnan(value):
        return NOTHING
    return f"{100 * value:.0f} %; {100 * low:.0f}–{100 * high:.0f} %"  # noqa: RUF001


def p_value(p: float) -> str:
    """A p with three digits, "below 0.001" where there would be none; a dash for NaN."""
    return "below 0.001" if p < 0.001 else number(p)


def difference(one: Difference | MeanDifference) -> str:
    """A difference of AUCs and its 95 % interval: "−0.065 (−0.128 to −0.022)"."""  # noqa: RUF002
    if isnan(one.difference):
        return NOTHING
    value, low, high = (number(v).replace("-", "−") for v in (one.difference, one.low, one.high))  # noqa: RUF001
    if one.low == one.high:
        return f"{value} (no interval)"
    return f"{value} ({low} to {high})"


def rule(name: str) -> str:
    """An operating point's rule as a reader knows it: "sensitivity ≥ 0.90"."""
    return name.replace(">=", "≥")


def quoted(name: str) -> str:
    """A name that a user chose, told apart from the words around it: “data”."""
    return f"“{name}”"


def one_or_each(said: Mapping[str, str]) -> str:
    """What is said of several findings: once where it is the same of all.

    Args:
        said: title of a finding -> what is said of it; at least one.
    """
    groups: dict[str, list[str]] = {}
    for title, text in said.items():
        groups.setdefault(text, []).append(title)
    if len(groups) == 1:
        return next(iter(groups))
    return "; ".join(f"{', '.join(titles)}: {text}" for text, titles in groups.items())


def unbroken(text: str) -> Markup:
    """The text for a page, where no line breaks within an interval in brackets."""
    spans = re.sub(INTERVAL, r'<span class="nb">\g<0></span>', str(escape(text)))
    return Markup(spans)  # noqa: S704  # escaped above
