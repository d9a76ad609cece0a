"""What turns probabilities into decisions, from the plain form in which a model carries it.

Its own file, because it imports scipy, which a prediction with an ONNX file can do without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mrknee.scoring.calibration import Calibration
from mrknee.scoring.operating_point import OperatingPoint


def calibration_of(decisions: Mapping[str, Any]) -> Calibration | None:
    """What the probabilities are calibrated with; None where nothing was fitted."""
    fitted = decisions.get("calibration")
    return None if fitted is None else Calibration.from_dict(fitted)


def operating_points_of(decisions: Mapping[str, Any]) -> Mapping[str, tuple[OperatingPoint, ...]]:
    """Finding -> its thresholds on calibrated probabilities; empty where none was fixed."""
    points: Mapping[str, Any] = decisions.get("operating_points", {})
    return {name: tuple(OperatingPoint.from_dict(one) for one in points[name]) for name in points}
