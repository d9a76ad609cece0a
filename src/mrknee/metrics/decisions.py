"""Decisions: calibration and operating points, as stored with a model.

A separate module, because it imports scipy, which a prediction with an ONNX file doesn't need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from mrknee.errors import ModelError
from mrknee.metrics.calibration import Calibration
from mrknee.metrics.operating_point import OperatingPoint


@dataclass(frozen=True)
class Decisions:
    """Calibration and thresholds, fitted on exams that the network was not trained on.

    Attributes:
        calibration: calibration of the network's probabilities; None if none was fitted.
        operating_points: finding -> thresholds on calibrated probabilities; may be empty.
    """

    calibration: Calibration | None = None
    operating_points: Mapping[str, tuple[OperatingPoint, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Decisions:
        """Creates decisions from the output of `to_dict`.

        Raises:
            ModelError: the content is invalid.
        """
        calibration = content.get("calibration")
        points = content.get("operating_points", {})
        if not isinstance(points, dict) or not all(isinstance(p, list) for p in points.values()):
            raise ModelError(
                "the model's operating points can't be read",
                code="operating-points",
                expected="a list of operating points per finding",
                found=repr(points),
            )
        return cls(
            None if calibration is None else Calibration.from_dict(calibration),
            {name: tuple(map(OperatingPoint.from_dict, points[name])) for name in points},
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-compatible dict."""
        return {
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "operating_points": {
                name: [point.to_dict() for point in points]
                for name, points in self.operating_points.items()
            },
        }
