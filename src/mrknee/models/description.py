"""Validation of a trained model's description: types and ranges of its entries, and the digest.

A run folder's model.json and an exported file's metadata share most entries. All entries that
affect results are validated here when a model is opened. Importing this module imports neither
torch nor scipy nor a schema library, which would delay the opening of exported models.
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
from mrknee.settings import settings_from_model
from mrknee.transforms.settings import PreparationSettings

LARGEST = 1e6
"""Maximum magnitude of a calibration's slope and intercept. Fitted values are around 1; beyond this
limit every probability is 0 or 1, and products exceed the range of 32-bit numbers."""


@dataclass(frozen=True)
class Scalar:
    """A single value.

    Attributes:
        expected: description of valid values, for messages.
        fits: returns whether a value is valid.
    """

    expected: str
    fits: Callable[[Any], bool]


@dataclass(frozen=True)
class Nullable:
    """A value that may be null."""

    given: Shape


@dataclass(frozen=True)
class Row:
    """A list of any length, all of whose elements have one shape."""

    each: Shape


@dataclass(frozen=True)
class Table:
    """An object whose values all have one shape.

    Attributes:
        each: the shape of the values.
        names: the permitted keys; None permits any.
        complete: whether all of `names` are required.
    """

    each: Shape
    names: tuple[str, ...] | None = None
    complete: bool = False


@dataclass(frozen=True)
class Fields:
    """An object with named fields.

    Attributes:
        needed: name -> shape of the required fields.
        optional: name -> shape of the optional fields.
        others: whether other fields are permitted; they are not validated.
    """

    needed: Mapping[str, Shape] = field(default_factory=dict)
    optional: Mapping[str, Shape] = field(default_factory=dict)
    others: bool = False


Shape = Scalar | Nullable | Row | Table | Fields
"""The expected form of a JSON value."""


def number(low: float, high: float, *, above: bool = False) -> Scalar:
    """Returns the shape of a number from `low` (or above it) to `high`."""
    return Scalar(
        f"a number {'above' if above else 'from'} {low:g} to {high:g}",
        lambda one: (
            type(one) in (int, float) and (low < one if above else low <= one) and one <= high
        ),
    )


def whole() -> Scalar:
    """Returns the shape of a whole number from 0."""
    high = 2**64
    return Scalar(
        f"a whole number from 0 to {high}", lambda one: type(one) is int and 0 <= one <= high
    )


def one_of(*choices: str) -> Scalar:
    """Returns the shape of a text that is one of the choices."""
    return Scalar(
        " or ".join(map(repr, choices)), lambda one: isinstance(one, str) and one in choices
    )


TEXT = Scalar("text", lambda one: isinstance(one, str))
SWITCH = Scalar("true or false", lambda one: isinstance(one, bool))
ANY = Scalar("anything", lambda _: True)
FINITE = number(-3.4e38, 3.4e38)
_SETTINGS = Table(ANY)

SERIES = Fields(
    {
        "name": TEXT,
        "plane": one_of(*PLANES),
        "weighting": Nullable(one_of(*WEIGHTINGS)),
        "fat_suppressed": Nullable(SWITCH),
    }
)

PROVENANCE = Fields(
    optional={
        "data": TEXT,
        "trained_on": whole(),
        "series": Table(whole()),
        "planes": Table(whole()),  # its name in earlier versions
        "titles": Table(TEXT),
        "selected_on": Fields({"part": one_of("inner", "valid"), "exams": whole()}),
        "seed": whole(),
        "run": TEXT,
        "recipe": Fields(
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
        "environment": Fields(optional={"packages": Table(TEXT)}, others=True),
        "epoch": whole(),
        "metrics": Table(Nullable(FINITE)),
    },
    others=True,
)
"""The origin of a model as recorded by training; all fields are optional, others are permitted."""


def decisions_shape(findings: tuple[str, ...]) -> Fields:
    """Returns the shape of the decisions that training fits on the inner split."""

    def of_each(shape: Shape) -> Table:
        return Table(shape, findings, complete=True)

    calibration = Fields(
        {
            "method": one_of("platt", "temperature"),  # the latter: earlier versions
            "slopes": of_each(number(0, LARGEST, above=True)),
            "intercepts": of_each(number(-LARGEST, LARGEST)),
            "prevalences": of_each(Nullable(number(0, 1))),
            "exams": of_each(whole()),
            "reasons": Table(TEXT, findings),
        }
    )
    point = Fields(
        {
            "rule": TEXT,
            "threshold": Nullable(number(0, 1)),
            "n_positive": whole(),
            "n_negative": whole(),
            "reason": Nullable(TEXT),
        }
    )
    return Fields(
        optional={
            "calibration": Nullable(calibration),
            "operating_points": Table(Row(point), findings),
        }
    )


def check_model(
    description: Mapping[str, Any], more: Mapping[str, Shape], file: Path | None
) -> None:
    """Validates types and ranges of all entries of a description that affect results.

    Args:
        description: findings, preparation, provenance, decisions, and the entries in `more`.
        more: name -> shape of further required entries of the format.
        file: the source, for error messages.

    Raises:
        MrkneeError: an entry is missing, of another type or out of range; decisions belong to other
            findings; or the model was trained without any series.
    """
    first = Fields({"findings": Row(TEXT), **more}, {"series": Row(SERIES)}, others=True)
    check(description, first, "the description", file)
    findings = Findings(description["findings"])
    rest = Fields(
        {
            "preparation": Table(ANY),
            "provenance": PROVENANCE,
            "decisions": decisions_shape(findings),
        },
        others=True,
    )
    check(description, rest, "the description", file)
    settings_from_model(PreparationSettings, description["preparation"], file)
    series = series_of(description)
    provenance = description["provenance"]
    counts = provenance.get("series", provenance.get("planes"))
    if counts is not None and (set(counts) != set(series.names) or not any(counts.values())):
        raise ModelError(
            "the model was trained on other series than those of its input",
            code="description",
            file=file,
            expected="in provenance.series, a positive number of exams for at least one of "
            + ", ".join(series.names),
            found=repr(counts),
        )


def check(value: object, shape: Shape, where: str, file: Path | None) -> None:
    """Checks that a value has a shape.

    Args:
        value: the value.
        shape: the expected shape.
        where: path of the value in the description, for error messages.
        file: the source, for error messages.

    Raises:
        ModelError: the value, or a value inside it, has another shape.
    """

    def refuse(expected: str, found: str) -> MrkneeError:
        return ModelError(
            "the model's description can't be used",
            code="description",
            file=file,
            expected=f"{where}: {expected}",
            found=found,
            advice="copy or train the model again",
        )

    if isinstance(shape, Scalar):
        if not shape.fits(value):
            raise refuse(shape.expected, repr(value))
    elif isinstance(shape, Nullable):
        if value is not None:
            check(value, shape.given, where, file)
    elif isinstance(shape, Row):
        if not isinstance(value, list):
            raise refuse("a list", repr(value))
        for place, one in enumerate(value):
            check(one, shape.each, f"{where}[{place}]", file)
    elif not isinstance(value, dict):
        raise refuse("an object", repr(value))
    else:
        shapes = _shapes(shape, value, refuse)
        for name, one in shapes.items():
            inside = name if where == "the description" else f"{where}.{name}"
            check(value[name], one, inside, file)


def _shapes(
    shape: Table | Fields, value: Mapping[str, Any], refuse: Callable[[str, str], MrkneeError]
) -> dict[str, Shape]:
    """Returns the shape of each present entry; refuses missing and unknown entries."""
    if isinstance(shape, Table):
        known = dict.fromkeys(value if shape.names is None else shape.names, shape.each)
        needed = known.keys() if shape.complete else set()
    else:
        known, needed = {**shape.needed, **shape.optional}, shape.needed.keys()
    missing = [name for name in known if name in needed and name not in value]
    if missing:
        raise refuse("the entries " + ", ".join(known), f"no {missing[0]!r}")
    unknown = [name for name in value if name not in known]
    if unknown and not (isinstance(shape, Fields) and shape.others):
        expected = f"only the entries {', '.join(known)}" if known else "no entries"
        raise refuse(expected, f"{unknown[0]!r}")
    return {name: known[name] for name in value if name in known}


def series_of(description: Mapping[str, Any]) -> SeriesList:
    """Returns the series of a model's input; MRNet's for descriptions of earlier versions."""
    content = description.get("series")
    return MRNET_SERIES if content is None else SeriesList.from_dicts(content)


def trained_series(series: SeriesList, provenance: Mapping[str, Any]) -> SeriesList:
    """Returns the series that at least one training exam had; all series if not recorded."""
    counts = provenance.get("series", provenance.get("planes"))
    if counts is None:
        return series
    return series.only(name for name in series.names if counts.get(name, 0) > 0)


def digest_of(description: Mapping[str, Any]) -> str:
    """Computes the sha256 of all entries except `digest`, independent of order and whitespace.

    It detects damage and mix-ups, not manipulation, because anyone can recompute it.
    """
    parts = {name: one for name, one in description.items() if name != "digest"}
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
