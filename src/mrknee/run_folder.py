"""The run folder: names of its files, and the formats shared by several packages."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path

from mrknee.errors import ModelError
from mrknee.files import exists, is_dir, is_file
from mrknee.untrusted import read_json, read_text

WEIGHTS_FILE, MODEL_FILE = "weights.safetensors", "model.json"
"""The files of a model folder: `best`, `last`, each folder in `epochs`."""

ENSEMBLE_FILE = "ensemble.json"
"""The file that lists the runs of a folder with several trainings, which form an ensemble."""

CROSS_VALIDATION_FILE = "cross_validation.json"
"""The file that identifies such a folder: recipe, folds and seeds."""

RESULTS_FILE = "results.csv"
"""The table of the runs of such a folder."""

PARTS = ("train", "inner", "valid")
"""Parts of a run's exams: for training, for epoch selection and calibration, for validation."""

_MAX_MEMBERS = 1000  # limit of the members of an ensemble
_ENSEMBLE_BYTES = 1_000_000
_SPLIT_BYTES = 10_000_000  # about 700,000 exams
_SPLIT_HEADER = "exam,part"


class RunFolder:
    """The paths of a run folder; nothing is read or written on creation.

    Args:
        path: the run folder.

    Attributes:
        path: the run folder.
        settings: the recipe with all defaults, as YAML.
        environment: per start: completed epochs, versions, machine, command; a JSON list.
        split: the part of each exam; `read_split`.
        data: sizes and samples of the exams' files, and their labels.
        metrics: losses and AUCs per epoch; `read_metrics`.
        log: the printed output.
        scorecard: scores of the best epoch; written last.
        best, last: folders with the model of the best and of the latest epoch.
        epochs: models of all epochs, if the recipe keeps them.
        ensemble: list of the runs in the folder, if they form an ensemble; `ensemble_members`.
        out_of_fold: the ensemble's predictions of `train`, by the runs that held an exam out.
        state, previous_state: checkpoints from which `--resume` continues.
        marker: exists while a process is training.
        tensorboard: folder of TensorBoard.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = path = Path(path)
        self.settings = path / "settings.yaml"
        self.environment = path / "environment.json"
        self.split = path / "split.csv"
        self.data = path / "data.json"
        self.metrics = path / "metrics.csv"
        self.log = path / "log.txt"
        self.scorecard = path / "scorecard.json"
        self.best = path / "best"
        self.last = path / "last"
        self.epochs = path / "epochs"
        self.ensemble = path / ENSEMBLE_FILE
        self.out_of_fold = path / "predictions-out-of-fold.csv"
        self.state = path / "resume" / "last.ckpt"
        self.previous_state = path / "resume" / "previous.ckpt"
        self.marker = path / ".running"
        self.tensorboard = path / "tensorboard"

    def predictions(self, part: str) -> Path:
        """Returns the file of the best epoch's predictions on a part, one of `PARTS`."""
        return self.path / f"predictions-{part}.csv"

    @classmethod
    def containing(cls, model: str | PathLike[str]) -> RunFolder:
        """Returns the run folder that a model belongs to; it need not exist.

        Args:
            model: the run folder, one of its models, or a file exported into it.
        """
        model = Path(model)
        if is_dir(model / "best"):
            return cls(model)
        parent = model.resolve().parent
        return cls(parent.parent if parent.name == "epochs" else parent)

    @staticmethod
    def model_in(path: str | PathLike[str]) -> Path:
        """Returns the folder with the model: the best epoch of a run, or the folder itself."""
        path = Path(path)
        return path / "best" if is_dir(path / "best") else path

    def read_split(self) -> Mapping[str, frozenset[str]] | None:
        """Reads the parts of the exams.

        Returns:
            Part (one of `PARTS`) -> ids; None if the file is missing.

        Raises:
            ModelError: the file has another format.
        """
        if not exists(self.split):
            return None
        text = read_text(self.split, "split of the run", at_most=_SPLIT_BYTES, kind=ModelError)
        header, *lines = text.removesuffix("\n").split("\n")
        if header != _SPLIT_HEADER:
            raise self._split_error(_SPLIT_HEADER, header[:80])
        parts: dict[str, set[str]] = {}
        for number, line in enumerate(lines, start=2):
            exam_id, _, part = line.rpartition(",")
            ids = parts.setdefault(part, set())
            if part not in PARTS or exam_id in ids:
                raise self._split_error(
                    "an exam's id and train, inner or valid, each exam once per part",
                    f"line {number}: {line[:80]!r}",
                )
            ids.add(exam_id)
        return {part: frozenset(ids) for part, ids in parts.items()}

    def _split_error(self, expected: str, found: str) -> ModelError:
        return ModelError(
            "the split of the run can't be read",
            code="run-folder",
            file=self.split,
            expected=expected,
            found=found,
        )

    def read_metrics(self) -> list[dict[str, float]]:
        """Reads the metrics per epoch; NaN if a metric couldn't be computed.

        Raises:
            ModelError: the run has no metrics yet.
        """
        if not is_file(self.metrics):
            raise ModelError(
                "the run has no metrics",
                code="run-folder",
                file=self.metrics,
                expected="a run folder with at least one completed epoch",
            )
        with self.metrics.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        return [{name: float(value or "nan") for name, value in row.items()} for row in rows]


def ensemble_members(path: Path) -> tuple[Path, ...] | None:
    """Returns the run folders of a folder that contains an ensemble; None if it contains none.

    Raises:
        ModelError: `ensemble.json` can't be read, or names a folder outside `path`.
    """
    file = RunFolder(path).ensemble
    if not is_file(file):
        return None
    content = read_json(file, "list of an ensemble's members", at_most=_ENSEMBLE_BYTES)
    members = content.get("members") if isinstance(content, dict) else None
    if not (
        isinstance(members, list)
        and 1 <= len(members) <= _MAX_MEMBERS
        and all(isinstance(name, str) and _is_inside(name) for name in members)
    ):
        raise ModelError(
            "the list of an ensemble's members can't be read",
            code="run-folder",
            file=file,
            expected=f'"members": from 1 to {_MAX_MEMBERS} names of folders in this folder',
            found=repr(members)[:80],
        )
    return tuple(path / name for name in members)


def _is_inside(name: str) -> bool:
    parts = Path(name).parts
    return bool(parts) and not Path(name).is_absolute() and ".." not in parts


def split_text(parts: Iterable[tuple[str, str]]) -> str:
    """Returns the contents of `split.csv`.

    Args:
        parts: pairs of an exam's id and its part, one of `PARTS`; an exam may be in two parts.
    """
    return f"{_SPLIT_HEADER}\n" + "".join(f"{i},{part}\n" for i, part in sorted(parts))


def metrics_text(rows: Sequence[Mapping[str, float]]) -> str:
    """Returns the contents of `metrics.csv`, one line per epoch; empty without epochs."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


_ANY = RunFolder("*")

RUN_FILES = tuple(
    str(file.relative_to(_ANY.path))
    for file in (
        *(_ANY.settings, _ANY.environment, _ANY.split, _ANY.data, _ANY.metrics, _ANY.log),
        *(_ANY.predictions("inner"), _ANY.predictions("valid"), _ANY.scorecard, _ANY.marker),
        *(
            _ANY.ensemble,
            _ANY.path / CROSS_VALIDATION_FILE,
            _ANY.out_of_fold,
            _ANY.path / RESULTS_FILE,
        ),
        *(_ANY.state.with_name("*.ckpt"), _ANY.tensorboard / "*"),
        *(
            folder / name
            for folder in (_ANY.path, _ANY.best, _ANY.last, _ANY.epochs / "*")
            for name in (MODEL_FILE, WEIGHTS_FILE)
        ),
    )
)
"""Patterns of the files of a run folder or a model folder, relative to it."""
