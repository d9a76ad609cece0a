"""What turns probabilities into decisions.

Its own file, because it imports scipy, which a prediction with an ONNX file can do without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from mrknee.errors import ModelError
from mrknee.scoring.calibration import Calibration
from mrknee.scoring.operating_point import OperatingPoint


@dataclass(frozen=True)
class Decisions:
    """Calibration and thresholds, fitted on exams that the network was not trained on.

    Attributes:
        calibration: what the network's probabilities are calibrated with; None where nothing was
            fitted.
        operating_points: finding -> its thresholds on calibrated probabilities; empty where none
            was fixed.
    """

    calibration: Calibration | None = None
    operating_points: Mapping[str, tuple[OperatingPoint, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Decisions:
        """Reads what `to_dict` returned.

        Raises:
            ModelError: it is something else.
        """
        fitted = content.get("calibration")
        points = content.get("operating_points", {})
        if not isinstance(points, dict) or not all(isinstance(p, list) for p in points.values()):
            raise ModelError(
                "the model's operating points can't be read",
                code="operating-points",
                expected="a list of them for each finding",
                found=repr(points),
            )
        return cls(
            None if fitted is None else Calibration.from_dict(fitted),
            {name: tuple(map(OperatingPoint.from_dict, points[name])) for name in points},
        )

    def to_dict(self) -> dict[str, Any]:
        """The same in plain form, for JSON."""
        return {
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "operating_points": {
                name: [point.to_dict() for point in points]
                for name, points in self.operating_points.items()
            },
        }
