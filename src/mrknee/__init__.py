"""mrknee reads knee MRI exams with one multi-task network.

    import mrknee

    data = mrknee.open_dataset("MRNet-v1.0", split="valid")
    model = mrknee.load_model("runs/first")
    table = model.predict(data)
    why = model.explain(data["1130"])

The names below are loaded when they are first used, so that `import mrknee` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mrknee.errors import (
        DataError,
        ModelError,
        MrkneeError,
        OutputError,
        PlatformError,
        SettingsError,
        TrainingError,
    )
    from mrknee.exams import Exam, open_dataset
    from mrknee.inference.explanation import Explanation
    from mrknee.inference.model import load_model
    from mrknee.scoring.predictions import Predictions
    from mrknee.sources.phantom import make_phantom

__version__ = "0.1.0"

_HOME = {
    "DataError": "mrknee.errors",
    "Exam": "mrknee.exams",
    "Explanation": "mrknee.inference.explanation",
    "ModelError": "mrknee.errors",
    "MrkneeError": "mrknee.errors",
    "OutputError": "mrknee.errors",
    "PlatformError": "mrknee.errors",
    "Predictions": "mrknee.scoring.predictions",
    "SettingsError": "mrknee.errors",
    "TrainingError": "mrknee.errors",
    "load_model": "mrknee.inference.model",
    "make_phantom": "mrknee.sources.phantom",
    "open_dataset": "mrknee.exams",
}

__all__ = [
    "DataError",
    "Exam",
    "Explanation",
    "ModelError",
    "MrkneeError",
    "OutputError",
    "PlatformError",
    "Predictions",
    "SettingsError",
    "TrainingError",
    "load_model",
    "make_phantom",
    "open_dataset",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mrknee' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
