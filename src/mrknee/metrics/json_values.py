"""Conversion of frozen dataclasses to JSON-compatible values and back (NaN as null)."""

from __future__ import annotations

import dataclasses
import math
import sys
import types
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_json_values(value: object) -> Any:  # noqa: ANN401 - any JSON value
    """Converts nested dataclasses and mappings to dicts, tuples to lists, and NaN to None."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_json_values(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: to_json_values(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [to_json_values(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def from_json_values(kind: type[T], content: Mapping[str, Any]) -> T:
    """Creates a dataclass from the output of `to_json_values`.

    Fields may be numbers, strings, other dataclasses, tuples of one type, and any of these or None.

    Raises:
        KeyError: a field is missing.
        TypeError, ValueError: a field has the wrong type.
    """
    hints = get_type_hints(kind)
    return kind(**{name: _value(hint, content[name]) for name, hint in hints.items()})


def nan_if_none(value: float | None) -> float:
    """Returns the value as a float, and NaN for None."""
    return math.nan if value is None else float(value)


def checked_number(value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Returns a number read from JSON as a float, after checking that it is finite and in range.

    Raises:
        ValueError: the value is not a number (strings and booleans are not) or is out of range.
    """
    largest = sys.float_info.max  # integers can be larger
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, found {value!r}")
    if max(low, -largest) <= value <= min(high, largest):
        return float(value)
    raise ValueError(f"expected a finite number from {low:g} to {high:g}, found {value!r}")


def checked_count(value: object) -> int:
    """Returns a count read from JSON, after checking that it is an integer of at least 0.

    Raises:
        ValueError: the value is not an integer, or is negative.
    """
    if type(value) is not int or value < 0:
        raise ValueError(f"expected an integer of at least 0, found {value!r}")
    return value


def _value(hint: object, content: Any) -> object:  # noqa: ANN401 - any JSON value
    """Converts a JSON value to the type of a field."""
    if hint is float:
        return nan_if_none(content)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return from_json_values(hint, content)
    if get_origin(hint) is tuple:
        return tuple(_value(get_args(hint)[0], item) for item in content)
    if get_origin(hint) is types.UnionType:
        return None if content is None else _value(get_args(hint)[0], content)
    return content
