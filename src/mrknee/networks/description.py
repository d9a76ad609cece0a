"""What is said of a trained model: the kinds and ranges of its parts, and their digest.

A run folder's model.json and an exported file's metadata share most of their parts. All that
changes a result is checked here when a model is opened. Importing this file imports neither torch
nor scipy, nor a library for schemas: opening an exported model would wait for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrknee.errors import ModelError, MrkneeError
from mrknee.exams import MRNET_SERIES, PLANES, Findings, SeriesList
from mrknee.exams.series import WEIGHTINGS
from mrknee.tensors.settings import PreparationSettings, known_settings

LARGEST = 1e6
"""Of a calibration's slope and intercept. Fitted ones are around 1; beyond this every probability
is 0 or 1, and products leave the range of 32-bit numbers."""


@dataclass(frozen=True)
class Kind:
    """One value: what it should be, in words, and whether it is."""

    expected: str
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class Maybe:
    """A value that may be null."""

    given: Shape


@dataclass(frozen=True)
class Row:
    """A list of any length, all of one shape."""

    each: Shape


@dataclass(frozen=True)
class Table:
    """An object whose values are all of one shape.

    Attributes:
        each: the shape.
        names: the names it may have; None allows any.
        complete: whether all of `names` have to be there.
    """

    each: Shape
    names: tuple[str, ...] | None = None
    complete: bool = False


@dataclass(frozen=True)
class Parts:
    """An object of named parts.

    Attributes:
        needed: name -> shape of those that have to be there.
        optional: name -> shape of those that may be missing.
        others: whether parts of other names are let through unread.
    """

    needed: Mapping[str, Shape] = field(default_factory=dict)
    optional: Mapping[str, Shape] = field(default_factory=dict)
    others: bool = False


Shape = Kind | Maybe | Row | Table | Parts


def number(low: float, high: float, *, above: bool = False) -> Kind:
    """A number from `low` (or above it) to `high`; neither text nor true or false counts as one."""
    return Kind(
        f"a number {'above' if above else 'from'} {low:g} to {high:g}",
        lambda one: (
            type(one) in (int, float) and (low < one if above else low <= one) and one <= high
        ),
    )


def whole(low: int = 0, high: int = 2**64) -> Kind:
    """A whole number from `low` to `high`."""
    return Kind(
        f"a whole number from {low} to {high}", lambda one: type(one) is int and low <= one <= high
    )


def one_of(*choices: str) -> Kind:
    """One of these texts."""
    return Kind(
        " or ".join(map(repr, choices)), lambda one: isinstance(one, str) and one in choices
    )


TEXT = Kind("text", lambda one: isinstance(one, str))
SWITCH = Kind("true or false", lambda one: isinstance(one, bool))
ANY = Kind("anything", lambda _: True)
FINITE = number(-3.4e38, 3.4e38)
_SETTINGS = Table(ANY)

SERIES = Parts(
    {
        "name": TEXT,
        "plane": one_of(*PLANES),
        "weighting": Maybe(one_of(*WEIGHTINGS)),
        "fat_suppressed": Maybe(SWITCH),
    }
)

PROVENANCE = Parts(
    optional={
        "data": TEXT,
        "trained_on": whole(),
        "series": Table(whole()),
        "planes": Table(whole()),  # what earlier versions called it
        "titles": Table(TEXT),
        "selected_on": Parts({"part": one_of("inner", "valid"), "exams": whole()}),
        "seed": whole(),
        "run": TEXT,
        "recipe": Parts(
            optional={
                "network": _SETTINGS,
                "preparation": _SETTINGS,
                "augmentation": _SETTINGS,
                "optimizer": _SETTINGS,
                "schedule": _SETTINGS,
                "selection": _SETTINGS,
            },
            others=True,
        ),
        "environment": Parts(optional={"packages": Table(TEXT)}, others=True),
        "epoch": whole(),
        "metrics": Table(Maybe(FINITE)),
    },
    others=True,
)
"""What training notes of a model's origin: all of it may be missing, and there may be more."""


def decisions_shape(findings: tuple[str, ...]) -> Parts:
    """What training fits on the inner exams, for a model of these findings."""

    def of_each(shape: Shape) -> Table:
        return Table(shape, findings, complete=True)

    calibration = Parts(
        {
            "method": one_of("platt", "temperature"),  # the latter: earlier versions
            "slopes": of_each(number(0, LARGEST, above=True)),
            "intercepts": of_each(number(-LARGEST, LARGEST)),
            "prevalences": of_each(Maybe(number(0, 1))),
            "exams": of_each(whole()),
            "reasons": Table(TEXT, findings),
        }
    )
    point = Parts(
        {
            "rule": TEXT,
            "threshold": Maybe(number(0, 1)),
            "n_positive": whole(),
            "n_negative": whole(),
            "reason": Maybe(TEXT),
        }
    )
    return Parts(
        optional={
            "calibration": Maybe(calibration),
            "operating_points": Table(Row(point), findings),
        }
    )


def check_model(said: Mapping[str, Any], more: Mapping[str, Shape], file: Path | None) -> None:
    """Checks what a model's file says: every part that changes a result, in kind and range.

    Args:
        said: findings, preparation, provenance and decisions, and what else its format holds.
        more: the other parts of the format; all have to be there.
        file: where it was read, for the error.

    Raises:
        MrkneeError: a part is missing, of another kind or out of range; decisions for other
            findings; or training without any series.
    """
    first = Parts({"findings": Row(TEXT), **more}, {"series": Row(SERIES)}, others=True)
    check(said, first, "the description", file)
    findings = Findings(said["findings"])
    rest = Parts(
        {
            "preparation": Table(ANY),
            "provenance": PROVENANCE,
            "decisions": decisions_shape(findings),
        },
        others=True,
    )
    check(said, rest, "the description", file)
    PreparationSettings(**known_settings(said["preparation"]))
    series = series_of(said)
    counts = said["provenance"].get("series", said["provenance"].get("planes"))
    if counts is not None and (set(counts) != set(series.names) or not any(counts.values())):
        raise ModelError(
            "the model was trained on other series than it reads",
            code="description",
            file=file,
            expected="in provenance.series, an exam of at least one of " + ", ".join(series.names),
            found=repr(counts),
        )


def check(value: object, shape: Shape, where: str, file: Path | None) -> None:
    """Refuses a value of another shape.

    Raises:
        MrkneeError: it names the part, what it should be, and what it is.
    """

    def refuse(expected: str, found: str) -> MrkneeError:
        return ModelError(
            "the model's description can't be used",
            code="description",
            file=file,
            expected=f"{where}: {expected}",
            found=found,
            advice="copy the model again, or make it again",
        )

    if isinstance(shape, Kind):
        if not shape.fits(value):
            raise refuse(shape.expected, repr(value))
    elif isinstance(shape, Maybe):
        if value is not None:
            check(value, shape.given, where, file)
    elif isinstance(shape, Row):
        if not isinstance(value, list):
            raise refuse("a list", repr(value))
        for place, one in enumerate(value):
            check(one, shape.each, f"{where}[{place}]", file)
    elif not isinstance(value, dict):
        raise refuse("an object of named parts", repr(value))
    else:
        shapes = _shapes(shape, value, refuse)
        for name, one in shapes.items():
            inside = name if where == "the description" else f"{where}.{name}"
            check(value[name], one, inside, file)


def _shapes(
    shape: Table | Parts, value: Mapping[str, Any], refuse: Callable[[str, str], MrkneeError]
) -> dict[str, Shape]:
    """The shape of each part that is there; refuses parts that are missing or not known."""
    if isinstance(shape, Table):
        known = dict.fromkeys(value if shape.names is None else shape.names, shape.each)
        needed = known.keys() if shape.complete else set()
    else:
        known, needed = {**shape.needed, **shape.optional}, shape.needed.keys()
    missing = [name for name in known if name in needed and name not in value]
    if missing:
        raise refuse("the parts " + ", ".join(known), f"no {missing[0]!r}")
    unknown = [name for name in value if name not in known]
    if unknown and not (isinstance(shape, Parts) and shape.others):
        raise refuse("the parts " + (", ".join(known) or "of no name"), f"{unknown[0]!r}")
    return {name: known[name] for name in value if name in known}


def series_of(said: Mapping[str, Any]) -> SeriesList:
    """The series that a model reads: MRNet's where its description, an earlier one, states none."""
    content = said.get("series")
    return MRNET_SERIES if content is None else SeriesList.from_dicts(content)


def trained_series(series: SeriesList, provenance: Mapping[str, Any]) -> SeriesList:
    """The series that at least one training exam had; all of them where it isn't noted."""
    counts = provenance.get("series", provenance.get("planes"))
    if counts is None:
        return series
    return series.only(name for name in series.names if counts.get(name, 0) > 0)


def digest_of(description: Mapping[str, Any]) -> str:
    """The sha256 of all parts but `digest`, whatever their order and the spaces between them.

    It tells damage and mix-ups, not malice: whoever edits a file can compute it again.
    """
    parts = {name: one for name, one in description.items() if name != "digest"}
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
