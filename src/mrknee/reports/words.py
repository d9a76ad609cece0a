"""Formatting of numbers with their intervals, and of names, for pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from math import isnan
from types import MappingProxyType

from markupsafe import Markup, escape

from mrknee.metrics.comparison import Difference, MeanDifference
from mrknee.metrics.proportions import Proportion

INTERVAL = r"(−?\d\.\d+ )?\([^()]{1,28}\)"  # noqa: RUF001
"""Regular expression of an interval in brackets, with the decimal number before it."""

TITLES = {"abnormal": "abnormal", "acl": "ACL tear", "meniscus": "meniscal tear"}
"""Titles of MRNet's findings; other findings are shown by name."""

NOTHING = "—"
"""Shown for a number that can't be computed."""


def title_of(finding: str, titles: Mapping[str, str] = MappingProxyType({})) -> str:
    """Returns the title of a finding.

    Args:
        finding: name of the finding.
        titles: finding -> title declared by the data set, which takes precedence.
    """
    return titles.get(finding) or TITLES.get(finding, finding)


def heading(finding: str, titles: Mapping[str, str] = MappingProxyType({})) -> str:
    """Returns the title of a finding with a capital letter; arguments as of `title_of`."""
    title = title_of(finding, titles)
    return title[0].upper() + title[1:]


def number(value: float, digits: int = 3) -> str:
    """Returns a number with `digits` decimals, halves rounded up (0.965 is 0.97); NaN: a dash."""
    if isnan(value):
        return NOTHING
    shown = Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return str(shown if shown else abs(shown))  # no sign if it rounds to 0


def with_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """Returns a number and its 95 % interval: "0.915 (0.862–0.948)"."""  # noqa: RUF002
    if isnan(value):
        return NOTHING
    if isnan(low):
        return f"{number(value, digits)} (no interval)"
    return f"{number(value, digits)} ({number(low, digits)}–{number(high, digits)})"  # noqa: RUF001


def share(one: Proportion) -> str:
    """Returns a share with count and Wilson interval: "49 of 54 (91 %; 80–96 %)"."""  # noqa: RUF002
    if isnan(one.value):
        return f"{one.count} of {one.n}"
    return f"{one.count} of {one.n} ({percent(one.value, one.low, one.high)})"


def percent(value: float, low: float, high: float) -> str:
    """Returns a share in percent with its interval: "91 %; 80–96 %"."""  # noqa: RUF002
    if isnan(value):
        return NOTHING
    return f"{100 * value:.0f} %; {100 * low:.0f}–{100 * high:.0f} %"  # noqa: RUF001


def p_value(p: float) -> str:
    """Returns a p value with three decimals, or "below 0.001"; NaN: a dash."""
    return "below 0.001" if p < 0.001 else number(p)


def difference(one: Difference | MeanDifference) -> str:
    """Returns a difference of AUCs and its 95 % interval: "−0.065 (−0.128 to −0.022)"."""  # noqa: RUF002
    if isnan(one.difference):
        return NOTHING
    value, low, high = (number(v).replace("-", "−") for v in (one.difference, one.low, one.high))  # noqa: RUF001
    if one.low == one.high:
        return f"{value} (no interval)"
    return f"{value} ({low} to {high})"


def rule(name: str) -> str:
    """Returns the rule of an operating point for display: "sensitivity ≥ 0.90"."""
    return name.replace(">=", "≥")


def quoted(name: str) -> str:
    """Returns a user-defined name in quotation marks: “data”."""
    return f"“{name}”"


def one_or_each(texts: Mapping[str, str]) -> str:
    """Joins texts about several findings; equal texts appear once.

    Args:
        texts: title of a finding -> text; at least one.
    """
    groups: dict[str, list[str]] = {}
    for title, text in texts.items():
        groups.setdefault(text, []).append(title)
    if len(groups) == 1:
        return next(iter(groups))
    return "; ".join(f"{', '.join(titles)}: {text}" for text, titles in groups.items())


def unbroken(text: str) -> Markup:
    """Returns the text as HTML without line breaks inside intervals in brackets."""
    spans = re.sub(INTERVAL, r'<span class="nb">\g<0></span>', str(escape(text)))
    return Markup(spans)  # noqa: S704  # escaped above
