"""What turns probabilities into decisions, from the plain form in which a model carries it.

Its own file, because it imports scipy, which a prediction with an ONNX file can do without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mrknee.errors import ModelError
from mrknee.scoring.calibration import Calibration
from mrknee.scoring.operating_point import OperatingPoint


def calibration_of(decisions: Mapping[str, Any]) -> Calibration | None:
    """What the probabilities are calibrated with; None where nothing was fitted."""
    fitted = decisions.get("calibration")
    return None if fitted is None else Calibration.from_dict(fitted)


def operating_points_of(decisions: Mapping[str, Any]) -> Mapping[str, tuple[OperatingPoint, ...]]:
    """Finding -> its thresholds on calibrated probabilities; empty where none was fixed."""
    points = decisions.get("operating_points", {})
    if not isinstance(points, dict) or not all(isinstance(one, list) for one in points.values()):
        raise ModelError(
            "the model's operating points can't be read",
            code="operating-points",
            expected="a list of them for each finding",
            found=repr(points),
        )
    return {name: tuple(OperatingPoint.from_dict(one) for one in points[name]) for name in points}
