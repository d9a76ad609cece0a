"""The commands as functions: train, compare, check, export, validate-maps, ...

Each function takes paths or objects and returns an object. The other commands are methods
(`predict`, `explain`) or functions of other modules (`evaluate`, `make_phantom`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

from mrknee.errors import ModelError, SettingsError
from mrknee.exams import Dataset, open_dataset, split_of
from mrknee.extras import data_frame
from mrknee.files import owned_folder
from mrknee.inference.model import Model, ModelPaths, load_model, paths_of
from mrknee.metrics.predictions import Predictions, prediction_files
from mrknee.outputs import check_output_file, check_output_folder
from mrknee.run_folder import RunFolder

if TYPE_CHECKING:
    from pandas import DataFrame

    from mrknee.checks.facts import Checkup
    from mrknee.explanations.map_validation import MapValidation
    from mrknee.export.onnx import Exported
    from mrknee.metrics.comparison import Comparison
    from mrknee.metrics.scorecard import Scorecard
    from mrknee.models.catalogue import EncoderTable

__all__ = [
    "Run",
    "check_dataset",
    "compare",
    "export_onnx",
    "list_encoders",
    "train",
    "validate_maps",
]


class Run:
    """A run folder written by training; accepted wherever the path of a run folder is.

    Args:
        folder: the run folder.

    Attributes:
        folder: the run folder.

    Example:
        >>> import mrknee
        >>> run = mrknee.Run("runs/first")
        >>> run.scorecard.split
        'valid'
        >>> model = mrknee.load_model(run)
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)

    def __fspath__(self) -> str:
        return fspath(self.folder)

    @property
    def scorecard(self) -> Scorecard:
        """The scores of the best epoch on `valid` (on the inner split if there is no `valid`).

        Raises:
            DataError: the run is not finished, or the file can't be read.
        """
        from mrknee.metrics.scorecard import Scorecard

        return Scorecard.read(RunFolder(self.folder).scorecard)

    def load_model(self) -> Model:
        """Loads the model of the best epoch, as `mrknee.load_model(run)` does."""
        return load_model(self)

    def to_frame(self) -> DataFrame:
        """Returns losses and AUCs as a pandas DataFrame: one row per epoch, as in `metrics.csv`.

        Raises:
            ModelError: the run has no metrics yet.
            PlatformError: pandas is not installed.
        """
        rows = RunFolder(self.folder).read_metrics()
        epochs = [int(row.pop("epoch")) for row in rows]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        return data_frame(columns, epochs, "epoch")

    def __repr__(self) -> str:
        if not RunFolder(self.folder).scorecard.is_file():
            return f"Run({str(self.folder)!r}: not finished)"
        card = self.scorecard
        mean = card.mean
        return (
            f"Run({str(self.folder)!r}: mean AUC {mean.value:.3f} ({mean.low:.3f} to "
            f"{mean.high:.3f}) on {card.n_exams} exams of {card.split})"
        )


def train(
    data: Dataset | str | PathLike[str],
    recipe: str | PathLike[str] = "default",
    *,
    out: str | PathLike[str],
    resume: bool = False,
    **settings: object,
) -> Run:
    """Trains one network for all findings and writes a run folder.

    Args:
        data: the folder of a data set, with `train/` and, usually, `valid/`; or an opened data set,
            whose folder is used with its findings, axes, soft labels and allowance for missing
            series, unless `settings` changes them.
        recipe: name of a recipe (`default`, `demo`, `frozen`, `reference`, `rsna2026`,
            `rsna2026-small`, `small`), or a YAML file.
        out: the run folder to write; must be empty or missing, unless `resume` is true.
        resume: continue an interrupted run with the same settings, or start it if there is none.
        settings: changes to the recipe, with the names listed by `mrknee train --help`: `epochs=2`,
            `seed=1`, `**{"network.encoder": "resnet50"}`. Types and ranges are those of a recipe
            file (`mrknee.training.recipe.Recipe`).

    Returns:
        The run: `run.scorecard`, `run.load_model()`, `run.to_frame()`.

    Raises:
        MrkneeError: the data set or a setting can't be used, the folder contains something else, or
            memory is exhausted.

    Example:
        >>> import mrknee
        >>> small = {"preparation.size": 64, "selection.fraction": 0.34}
        >>> run = mrknee.train("knees", recipe="small", out="runs/new", epochs=1, **small)
        >>> run.scorecard.n_exams
        6
        >>> list(run.to_frame().index)
        [1]
    """
    from mrknee.training.recipe import load_recipe_for
    from mrknee.training.run import train as train_run

    root, changes = data_and_changes(data, settings)
    check_output_folder(Path(out))
    train_run(root, Path(out), load_recipe_for(root, fspath(recipe), changes), resume=resume)
    return Run(out)


def data_and_changes(
    data: Dataset | str | PathLike[str], settings: Mapping[str, object]
) -> tuple[Path, dict[str, object]]:
    """Returns a data set's folder, and the changes to a recipe for training on it.

    Args:
        data: the folder, or an opened data set, whose options become changes.
        settings: changes, which have precedence; paths become text.
    """
    if isinstance(data, Dataset):
        settings = {**data.opened_with, **settings}
        data = data.root
    changes = {n: fspath(v) if isinstance(v, PathLike) else v for n, v in settings.items()}
    return Path(data), changes


def compare(
    first: Predictions | str | Path,
    second: Predictions | str | Path,
    data: Dataset | str | Path,
    *,
    others: Sequence[Predictions | str | Path] = (),
    split: str = "valid",
    names: Sequence[str] | None = None,
    out: str | Path | None = None,
    seed: int = 0,
) -> Comparison:
    """Compares models with paired tests on the same exams, each model with the first.

    Args:
        first: predictions of a model, or their file; comma-separated files are joined as one
            model.
        second: predictions of another model.
        data: the data set, opened or its folder; its label files are read.
        others: predictions of further models.
        split: the predicted split if `data` is a folder; ignored for an opened data set.
        names: one name per model; None uses the paths of the files.
        out: a folder to write `comparison.json` to; None writes nothing.
        seed: seed of resampling; the same seed gives the same numbers.

    Raises:
        MrkneeError: predictions and labels can't be used or don't match, two models are the same,
            or `out` can't be written to.

    Example:
        >>> import mrknee
        >>> data = mrknee.open_dataset("knees", split="valid")
        >>> a = mrknee.load_model("runs/first").predict(data)
        >>> b = mrknee.load_model("runs/second").predict(data)
        >>> found = mrknee.compare(a, b, data, names=["first", "second"])
        >>> list(found.to_frame()["finding"])
        ['abnormal', 'acl', 'meniscus', 'mean']
    """
    from mrknee.metrics.comparison import compare_tables

    root, split = split_of(data, split)
    tables = [first, second, *others]
    if out is None:
        return compare_tables(tables, root, split=split, names=names, seed=seed)
    out = Path(out)
    files = [f for t in tables if not isinstance(t, Predictions) for f in prediction_files(t)]
    check_output_folder(out, ["comparison.json"], [*files, root])
    with owned_folder(out):
        comparison = compare_tables(tables, root, split=split, names=names, seed=seed)
        comparison.write(out / "comparison.json")
    return comparison


def check_dataset(
    path: Dataset | str | Path, *, axes: str | None = None, allow_missing_plane: bool = False
) -> Checkup:
    """Checks a data set and lists all problems before training.

    Args:
        path: the folder of a data set with its splits; or a folder that contains the folders of
            series directly; or an opened data set, whose splits are all checked, with its axes and
            allowance for missing series.
        axes: the order of axes in the files, such as `rows,cols,slices`; None expects
            `slices,rows,cols`.
        allow_missing_plane: exams that lack series are no problem.

    Returns:
        The problems and the contents of the data set: `.ok`, `.problems`, `.to_frame()`.

    Raises:
        DataError: the folder doesn't exist or has no split.

    Example:
        >>> import mrknee
        >>> checkup = mrknee.check_dataset("knees")
        >>> checkup.ok
        True
        >>> checkup.splits["valid"].exams
        6
    """
    from mrknee.checks.check import check

    if isinstance(path, Dataset):
        axes = axes or path.opened_with.get("axes")
        allow_missing_plane |= path.opened_with.get("allow_missing_plane", False)
        path = path.root
    return check(path, axes=axes, allow_missing_plane=allow_missing_plane)


def export_onnx(
    model: ModelPaths,
    out: str | Path,
    *,
    int8: bool = False,
    data: Dataset | str | Path | None = None,
    split: str = "valid",
    auc_limit: float = 0.005,
) -> Exported:
    """Exports a trained model as one ONNX file, which predicts without torch.

    The file is written only if its logits agree with those of the run folder within 1e-4.

    Args:
        model: a run folder, or a `Run`.
        out: the file to write, such as `model.onnx`; `load_model` accepts it.
        int8: quantise the encoders to 8 bits: smaller, faster and less accurate.
        data: with `int8`, a data set whose training exams determine the scales.
        split: with `int8`, the labelled split on which AUCs before and after are compared.
        auc_limit: with `int8`, the maximum decrease of a finding's AUC.

    Returns:
        The differences between file and run folder, and the loss of accuracy due to 8 bits.

    Raises:
        MrkneeError: there is no model, it can't be exported, the file differs from it, or 8 bits
            lose too much accuracy; only one of `int8` and `data` is given; or `out` can't be
            written.

    Example:
        >>> import mrknee
        >>> exported = mrknee.export_onnx("runs/first", "model.onnx")
        >>> exported.parity.logit < 1e-4
        True
        >>> mrknee.load_model("model.onnx").findings
        Findings(abnormal, acl, meniscus)
    """
    folders = paths_of(model)
    root = None if data is None else split_of(data, split)[0]
    check_output_file(Path(out), [*folders, *([] if root is None else [root])])
    if len(folders) > 1:
        raise ModelError(
            "an ensemble can't be exported",
            code="cannot-export",
            expected="one run folder",
            found=", ".join(map(str, folders)),
            advice="export each model; load_model loads several files as an ensemble",
        )
    if int8 != (root is not None):
        raise SettingsError(
            "--int8 and --data must be given together",
            code="options-together",
            expected="--int8 and --data, or neither",
            found="--int8 alone" if int8 else "--data alone",
        )
    from mrknee.export.onnx import Int8, export

    return export(folders[0], out, int8=None if root is None else Int8(root, split, auc_limit))


def list_encoders() -> EncoderTable:
    """Lists the encoders in the catalogue; any other model name of timm works too.

    Returns:
        One entry per encoder: name, width, parameters, pixel statistics, weights, licence.

    Example:
        >>> import mrknee
        >>> [entry.name for entry in mrknee.list_encoders()][:3]
        ['alexnet', 'vgg16', 'resnet50']
    """
    from mrknee.models.catalogue import EncoderTable

    return EncoderTable()


def validate_maps(
    model: Model | ModelPaths,
    data: Dataset | str | Path,
    *,
    split: str = "valid",
    out: str | Path | None = None,
) -> MapValidation:
    """Tests a model's heat maps on the exams that have a finding.

    Localisation: how often the slice and the pixel with most heat are in the lesion, compared with
    chance, and which share of the positive heat is; requires masks of the lesions, such as those of
    phantoms. Deletion: how much the logit decreases without the slices with most heat, compared
    with the same number of random slices; requires no masks. docs/background/explanations.md
    explains the limits of both.

    Args:
        model: a model, a run folder, an exported model, or an ensemble's members.
        data: a data set with labels, opened or its folder. Masks are read from
            `lesions/SPLIT/FINDING/SERIES/ID.npy` in the folder, if present.
        split: the split to explain if `data` is a folder; ignored for an opened data set.
        out: a folder to write `maps.json` to; None writes nothing.

    Returns:
        The scores per finding, with intervals and numbers of exams: `.findings`, `.table()`.

    Raises:
        MrkneeError: no exam is labelled with a finding of the model; model, exams or masks can't be
            used; or `out` can't be written to.

    Example:
        >>> import mrknee
        >>> found = mrknee.validate_maps("runs/first", "knees")
        >>> found.findings["acl"].n_positive
        2
    """
    from mrknee.explanations.map_validation import validate_maps as validate

    def run_validation() -> MapValidation:
        loaded = model if isinstance(model, Model) else load_model(model)
        return validate(loaded, data if isinstance(data, Dataset) else open_dataset(data, split))

    if out is None:
        return run_validation()
    inputs = [] if isinstance(model, Model) else list(paths_of(model))
    check_output_folder(Path(out), ["maps.json"], [*inputs, split_of(data, split)[0]])
    with owned_folder(Path(out)):
        result = run_validation()
        result.write(Path(out) / "maps.json")
    return result
