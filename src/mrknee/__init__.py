"""mrknee: one multi-task network for several findings in knee MRI exams.

The public interface, from a data set to predictions, scores and explanations:

    import mrknee

    data = mrknee.open_dataset("MRNet-v1.0", split="valid")
    model = mrknee.load_model("runs/first")
    table = model.predict(data)
    card = mrknee.evaluate(table, data)
    why = model.explain(data["1130"])

Each name in `__all__` is imported when it is first used, so that `import mrknee` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mrknee.checks.facts import Checkup
    from mrknee.cross_validation import cross_validate
    from mrknee.errors import (
        DataError,
        ModelError,
        MrkneeError,
        OutputError,
        PlatformError,
        SettingsError,
        TrainingError,
    )
    from mrknee.exams import Dataset, Exam, open_dataset
    from mrknee.explanations.explanation import Explanation
    from mrknee.inference.model import load_model
    from mrknee.library import (
        Run,
        check_dataset,
        compare,
        export_onnx,
        list_encoders,
        train,
        validate_maps,
    )
    from mrknee.metrics.comparison import Comparison
    from mrknee.metrics.predictions import Predictions
    from mrknee.metrics.scorecard import Scorecard
    from mrknee.progress import show_progress
    from mrknee.reports.evaluation import evaluate
    from mrknee.sources.phantom import make_phantom

__version__ = "0.1.0"

_HOME = {
    "Checkup": "mrknee.checks.facts",
    "Comparison": "mrknee.metrics.comparison",
    "DataError": "mrknee.errors",
    "Dataset": "mrknee.exams",
    "Exam": "mrknee.exams",
    "Explanation": "mrknee.explanations.explanation",
    "ModelError": "mrknee.errors",
    "MrkneeError": "mrknee.errors",
    "OutputError": "mrknee.errors",
    "PlatformError": "mrknee.errors",
    "Predictions": "mrknee.metrics.predictions",
    "Run": "mrknee.library",
    "Scorecard": "mrknee.metrics.scorecard",
    "SettingsError": "mrknee.errors",
    "TrainingError": "mrknee.errors",
    "check_dataset": "mrknee.library",
    "compare": "mrknee.library",
    "cross_validate": "mrknee.cross_validation",
    "evaluate": "mrknee.reports.evaluation",
    "export_onnx": "mrknee.library",
    "list_encoders": "mrknee.library",
    "load_model": "mrknee.inference.model",
    "make_phantom": "mrknee.sources.phantom",
    "open_dataset": "mrknee.exams",
    "show_progress": "mrknee.progress",
    "train": "mrknee.library",
    "validate_maps": "mrknee.library",
}

__all__ = [
    "Checkup",
    "Comparison",
    "DataError",
    "Dataset",
    "Exam",
    "Explanation",
    "ModelError",
    "MrkneeError",
    "OutputError",
    "PlatformError",
    "Predictions",
    "Run",
    "Scorecard",
    "SettingsError",
    "TrainingError",
    "check_dataset",
    "compare",
    "cross_validate",
    "evaluate",
    "export_onnx",
    "list_encoders",
    "load_model",
    "make_phantom",
    "open_dataset",
    "show_progress",
    "train",
    "validate_maps",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mrknee' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
