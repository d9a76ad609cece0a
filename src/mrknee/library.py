"""The verbs of the command line as functions: train, compare, check, export, validate-maps, ...

Each takes paths or objects and returns an object. The others are methods of objects (`predict`,
`explain`) or lie where their objects are (`evaluate`, `make_phantom`).
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrknee.errors import ModelError, SettingsError
from mrknee.exams import Dataset, open_dataset, split_of
from mrknee.extras import data_frame
from mrknee.files import owned_folder
from mrknee.inference.model import Model, ModelPaths, load_model, paths_of
from mrknee.outputs import check_output_file, check_output_folder
from mrknee.run_folder import RunFolder
from mrknee.scoring.predictions import Predictions, named_files

if TYPE_CHECKING:
    from pandas import DataFrame

    from mrknee.checkup.facts import Checkup
    from mrknee.inference.export import Exported
    from mrknee.inference.map_validation import MapValidation
    from mrknee.networks.catalogue import EncoderTable
    from mrknee.scoring.comparison import Comparison
    from mrknee.scoring.scorecard import Scorecard

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
    """A run folder that training wrote; it can be given wherever the folder's path can.

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
        """How good the best epoch is on `valid` (on the inner exams where there is no `valid`).

        Raises:
            DataError: the run is not finished, or the file can't be read.
        """
        from mrknee.scoring.scorecard import Scorecard

        return Scorecard.read(RunFolder(self.folder).scorecard)

    def load_model(self) -> Model:
        """The model of the best epoch; as `mrknee.load_model(run)`."""
        return load_model(self)

    def to_frame(self) -> DataFrame:
        """Loss and AUCs as a pandas DataFrame: one row per epoch, columns as in `metrics.csv`.

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
    **settings: Any,  # noqa: ANN401  # whatever the setting is
) -> Run:
    """Trains one network for all findings and writes a run folder.

    Args:
        data: a data set's folder, with `train/` and, normally, `valid/`; or an opened data set:
            then its folder is taken, and findings, axes and the allowance for missing series that
            it was opened with hold unless they are set.
        recipe: a recipe's name (`default`, `reference`, `demo`), or its YAML file.
        out: the run folder to write; must be empty or not there, unless `resume`.
        resume: go on with an interrupted run of the same settings, or start it where there is
            none.
        settings: changes to the recipe, by the names that `mrknee train --help` lists: `epochs=2`,
            `seed=1`, `**{"network.encoder": "resnet50"}`.

    Returns:
        The run: `run.scorecard`, `run.load_model()`, `run.to_frame()`.

    Raises:
        MrkneeError: the data set or a setting can't be used, the folder holds something else, or
            memory has run out.

    Example:
        >>> import mrknee
        >>> small = {"preparation.size": 64, "selection.fraction": 0.34}
        >>> run = mrknee.train("knees", recipe="demo", out="runs/new", epochs=1, **small)
        >>> run.scorecard.n_exams
        6
        >>> list(run.to_frame().index)
        [1]
    """
    from mrknee.training.recipe import load_recipe
    from mrknee.training.run import train as train_run

    if isinstance(data, Dataset):
        settings = {**data.opened_with, **settings}
        data = data.root
    plain = {n: fspath(v) if isinstance(v, PathLike) else v for n, v in settings.items()}
    check_output_folder(Path(out))
    train_run(Path(data), Path(out), load_recipe(fspath(recipe), plain), resume=resume)
    return Run(out)


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
    """Do models differ? Paired tests on the same exams, every model against the first.

    Args:
        first: a model's predictions, or their file; several files with commas between are one
            model.
        second: another model's.
        data: the data set, opened or its folder; its label files are read.
        others: more models' predictions.
        split: the split that was predicted, of a folder; an opened data set knows its own.
        names: what the models are called, one name per model; None takes their files' paths.
        out: a folder to write `comparison.json` to; None writes nothing.
        seed: of resampling and random exchanges; the same seed gives the same numbers.

    Raises:
        MrkneeError: predictions and labels can't be used or don't belong together, the models are
            not different ones, or `out` can't be written to.

    Example:
        >>> import mrknee
        >>> data = mrknee.open_dataset("knees", split="valid")
        >>> a = mrknee.load_model("runs/first").predict(data)
        >>> b = mrknee.load_model("runs/second").predict(data)
        >>> found = mrknee.compare(a, b, data, names=["first", "second"])
        >>> list(found.to_frame()["finding"])
        ['abnormal', 'acl', 'meniscus', 'mean']
    """
    from mrknee.scoring.comparison import compare_tables

    root, split = split_of(data, split)
    tables = [first, second, *others]
    if out is None:
        return compare_tables(tables, root, split=split, names=names, seed=seed)
    out = Path(out)
    files = [f for t in tables if not isinstance(t, Predictions) for f in named_files(t)]
    check_output_folder(out, ["comparison.json"], [*files, root])
    with owned_folder(out):
        comparison = compare_tables(tables, root, split=split, names=names, seed=seed)
        comparison.write(out / "comparison.json")
    return comparison


def check_dataset(path: Dataset | str | Path, *, axes: str | None = None) -> Checkup:
    """Lists what is wrong with a data set: everything that would spoil a run, before it starts.

    Args:
        path: the data set's folder, with its splits; or a folder that holds the series' folders
            itself; or an opened data set, of which all splits are looked at.
        axes: the order of the files' axes, such as `rows,cols,slices`; None expects
            `slices,rows,cols`.

    Returns:
        The problems, and what the data set holds: `.ok`, `.problems`, `.to_frame()`.

    Raises:
        DataError: there is no such folder, or no split in it.

    Example:
        >>> import mrknee
        >>> checkup = mrknee.check_dataset("knees")
        >>> checkup.ok
        True
        >>> checkup.splits["valid"].exams
        6
    """
    from mrknee.checkup.check import check

    return check(path.root if isinstance(path, Dataset) else path, axes=axes)


def export_onnx(
    model: ModelPaths,
    out: str | Path,
    *,
    int8: bool = False,
    data: Dataset | str | Path | None = None,
    split: str = "valid",
    auc_limit: float = 0.005,
) -> Exported:
    """Writes a trained model as one ONNX file that reads exams anywhere, without torch.

    It is written only if it says what the run folder says, to 1e-4 in every logit.

    Args:
        model: a run folder, or a `Run`.
        out: the file to write, such as `model.onnx`; `load_model` takes it.
        int8: compute the encoders in 8 bits: smaller, faster, and less exact.
        data: with `int8`, a data set: scales come from its training exams.
        split: with `int8`, its labelled split that AUCs before and after are compared on.
        auc_limit: with `int8`, refuse if a finding's AUC falls by more than this.

    Returns:
        How far the file is from the run folder, and what 8 bits cost.

    Raises:
        MrkneeError: there is no model, it can't be exported, the file would differ from it, or 8
            bits cost too much; `int8` and `data` are not given together; or `out` can't be written.

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
            "an ensemble can't be exported as one file",
            code="cannot-export",
            expected="one run folder",
            found=", ".join(map(str, folders)),
            advice="export each model; load_model takes several files as an ensemble",
        )
    if int8 != (root is not None):
        raise SettingsError(
            "--int8 and --data must be given together",
            code="options-together",
            expected="--int8 and --data, or neither",
            found="--int8 alone" if int8 else "--data alone",
        )
    from mrknee.inference.export import Int8, export

    return export(folders[0], out, int8=None if root is None else Int8(root, split, auc_limit))


def list_encoders() -> EncoderTable:
    """The encoders known by name; any other name that timm knows works too.

    Returns:
        One entry per encoder: name, width, parameters, pixel statistics, weights, licence.

    Example:
        >>> import mrknee
        >>> [entry.name for entry in mrknee.list_encoders()][:3]
        ['alexnet', 'vgg16', 'resnet50']
    """
    from mrknee.networks.catalogue import EncoderTable

    return EncoderTable()


def validate_maps(
    model: Model | ModelPaths,
    data: Dataset | str | Path,
    *,
    split: str = "valid",
    out: str | Path | None = None,
) -> MapValidation:
    """Are a model's heat maps worth anything? Measured on the exams that have a finding.

    Localisation: how often the slice and the pixel with most heat lie in the lesion, against
    chance, and how much of the positive heat does; it needs masks of the lesions, as the phantom
    has them. Deletion: how far the logit falls without the hottest slices, against as many slices
    drawn at random; it needs none. Read docs/explanations.md for what they don't show.

    Args:
        model: a model, a run folder, an exported model, or an ensemble's members.
        data: a data set, opened or its folder, with labels. Masks are read from
            `lesions/SPLIT/FINDING/SERIES/ID.npy` in it, where they are there.
        split: the split to explain, of a folder; an opened data set knows its own.
        out: a folder to write `maps.json` to; None writes nothing.

    Returns:
        The scores by finding, with intervals and numbers of exams: `.findings`, `.table()`.

    Raises:
        MrkneeError: no exam is known to have a finding of the model; model, exams or masks can't
            be used; or `out` can't be written to.

    Example:
        >>> import mrknee
        >>> found = mrknee.validate_maps("runs/first", "knees")
        >>> found.findings["acl"].n_positive
        2
    """
    from mrknee.inference.map_validation import validate_maps as validate

    def made() -> MapValidation:
        loaded = model if isinstance(model, Model) else load_model(model)
        return validate(loaded, data if isinstance(data, Dataset) else open_dataset(data, split))

    if out is None:
        return made()
    reads = [] if isinstance(model, Model) else list(paths_of(model))
    check_output_folder(Path(out), ["maps.json"], [*reads, split_of(data, split)[0]])
    with owned_folder(Path(out)):
        found = made()
        found.write(Path(out) / "maps.json")
    return found
