"""Assignment of exams to parts: trained on, selecting the epoch, or validation."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int64
from torch.utils.data import DataLoader

from mrknee.errors import DataError, MrkneeError, SettingsError
from mrknee.exams import Dataset, StackSizes, assign_folds, has_canonical_sides, inner_split
from mrknee.exams.sides import SIDES_FILE
from mrknee.run_folder import split_text
from mrknee.training.recipe import MIRROR, Recipe
from mrknee.transforms.batches import Batch, EpochBatches, ExamDataset, load_batches
from mrknee.transforms.preparation import Preparation

KEPT_FRAMES_BYTES = 1_000_000_000
"""Memory for framed exams of a part, if feature maps are stored: framing them again in
each epoch takes longer than training what follows the encoders."""


@dataclass(frozen=True)
class Parts:
    """The exams that are trained on, select the epoch, or validate.

    Attributes:
        train: the split of training exams, with labels.
        train_positions: positions in `train` of the exams trained on.
        selection: the split of the exams that select the epoch: `train` or `valid`.
        selection_positions: positions in `selection` of the exams that select the epoch.
        valid: the validation split, with the findings of `train` and NaN for missing labels; None
            if the data set has no such split. With `recipe.fold`, it has the exams of that fold
            of `train`, and `train` has the others.
        canonical_sides: whether all knees are shown as one side (`sides.csv`).
    """

    train: Dataset
    train_positions: Sequence[int]
    selection: Dataset
    selection_positions: Sequence[int]
    valid: Dataset | None
    canonical_sides: bool = False

    @property
    def unread(self) -> tuple[Path, ...]:
        """Unexpected files in the folders of the stacks, which are ignored (`Dataset.unread`)."""
        unread = self.train.unread + (() if self.valid is None else self.valid.unread)
        return tuple(dict.fromkeys(unread))  # a fold is of the same folder

    @property
    def scores_valid(self) -> bool:
        """Whether valid exists and has at least one label."""
        return self.valid is not None and not bool(np.isnan(self.valid.labels).all())

    def exams_per_series(self) -> dict[str, int]:
        """Returns series -> number of training exams that have it."""
        present = [self.train.series_of(position) for position in self.train_positions]
        return {name: sum(name in names for names in present) for name in self.train.series.names}

    def split_csv(self) -> str:
        """Returns `split.csv`: one line per used exam, with its part."""
        rows = [(self.train.ids[i], "train") for i in self.train_positions]
        if self.selection is self.train:
            rows += [(self.train.ids[i], "inner") for i in self.selection_positions]
        if self.valid is not None:
            rows += [(exam_id, "valid") for exam_id in self.valid.ids]
        return split_text(rows)


def split_exams(data: Path, recipe: Recipe) -> Parts:
    """Opens the data set and chooses the exams that are trained on and that select the epoch.

    The split is stratified by the labels of all findings of the data set, whether learned or not:
    networks for different findings use the same exams and can be compared. Exams of one group
    (`groups.csv`) are in the same part.

    With `recipe.folds`, the exams of one fold of `train` take the place of `valid`, which is not
    read. The folds depend on labels and groups only, so they are the same for all seeds.

    Raises:
        MrkneeError: the data set can't be used; the recipe has folds and doesn't set which is held
            out; or it mirrors exams whose sides are canonical.
    """
    canonical = _refuse_mirroring(data, recipe)
    exams = open_training_exams(data, recipe)
    findings = exams.findings or ()
    all_labels = exams.labels
    if recipe.findings is not None:
        all_labels = open_training_exams(data, recipe.replace(findings=None)).labels
    valid = None
    if recipe.folds is not None:
        held_out = _held_out(all_labels, exams, recipe)
        valid = _some_exams(exams, np.flatnonzero(held_out))
        exams, all_labels = _some_exams(exams, np.flatnonzero(~held_out)), all_labels[~held_out]
    elif (data / "valid").is_dir():  # labels may be missing: the other findings are scored
        valid = _open_split(data, "valid", recipe, findings, allow_missing_labels=True)
    used = np.arange(len(exams))
    if recipe.max_exams is not None and recipe.max_exams < len(exams):
        _, used = inner_split(all_labels, recipe.max_exams / len(exams), recipe.seed)
    if recipe.selection.part == "valid":
        if valid is None or np.isnan(valid.labels).all():
            raise DataError(
                "the epoch can't be selected on valid",
                code="no-labels",
                file=data / "valid",
                expected="a split valid with labels for " + ", ".join(findings),
                found="no such split" if valid is None else "no label for these findings",
                advice="select on an inner split of train: --selection.part inner",
            )
        return Parts(exams, used.tolist(), valid, range(len(valid)), valid, canonical)
    groups = None if exams.groups is None else [exams.groups[position] for position in used]
    train, inner = inner_split(all_labels[used], recipe.selection.fraction, recipe.seed, groups)
    return Parts(exams, used[train].tolist(), exams, used[inner].tolist(), valid, canonical)


def open_training_exams(data: Path, recipe: Recipe) -> Dataset:
    """Opens the split `train` with the findings and series of a recipe.

    Raises:
        DataError: the split can't be used, or has no labels.
    """
    exams = _open_split(data, "train", recipe, recipe.findings)
    if exams.findings is None:
        raise DataError(
            "there are no labels to train with",
            code="no-labels",
            file=data,
            expected="one label file train-<finding>.csv per finding",
        )
    return exams


def _open_split(
    data: Path,
    split: str,
    recipe: Recipe,
    findings: Iterable[str] | None,
    *,
    allow_missing_labels: bool = False,
) -> Dataset:
    opened = Dataset.of_split(
        data,
        split,
        findings=findings,
        allow_missing_plane=recipe.allow_missing_plane,
        axes=recipe.axes,
        allow_missing_labels=allow_missing_labels,
        soft_labels=recipe.soft_labels,
        series=recipe.series,
    )
    opened.refuse_other_axes()
    return opened


def _refuse_mirroring(data: Path, recipe: Recipe) -> bool:
    """Refuses a recipe that mirrors exams with canonical sides; returns whether sides are."""
    canonical = has_canonical_sides(data)
    if canonical and recipe.augmentation.mirror > 0:
        raise SettingsError(
            "exams with canonical sides can't be mirrored in training",
            code="setting",
            file=data / SIDES_FILE,
            expected=f"{MIRROR} 0: the import has mirrored exams so that all knees look like one "
            "side",
            found=f"{MIRROR} {recipe.augmentation.mirror:g}",
            advice=f"set {MIRROR} to 0",
        )
    return canonical


def _held_out(
    labels: Float[np.ndarray, "exams findings"], exams: Dataset, recipe: Recipe
) -> Bool[np.ndarray, " exams"]:
    """Returns which exams of `train` are in the fold that is held out."""
    if recipe.folds is None or recipe.fold is None:
        raise SettingsError(
            "it isn't stated which fold is held out",
            code="setting",
            expected=f"fold, from 1 to {recipe.folds}",
            found=f"folds {recipe.folds}, without fold",
            advice="to train all folds, use `mrknee train` or `mrknee.cross_validate`",
        )
    fold_of = assign_folds(labels, recipe.folds, exams.groups)
    held_out: Bool[np.ndarray, " exams"] = fold_of == recipe.fold - 1
    return held_out


def _some_exams(exams: Dataset, positions: Int64[np.ndarray, " some"]) -> Dataset:
    """Returns the data set with the exams at the given positions only."""
    some = copy.copy(exams)
    some.ids = tuple(exams.ids[position] for position in positions)
    some.files = {exam_id: exams.files[exam_id] for exam_id in some.ids}
    some.labels = exams.labels[positions]
    if exams.groups is not None:
        some.groups = tuple(exams.groups[position] for position in positions)
    return some


def stack_sizes(exams: Dataset, positions: Sequence[int]) -> dict[str, dict[str, list[int]]]:
    """Returns the range of stack sizes that a network is trained on, for its provenance.

    Predictions of exams outside this range get a remark (`mrknee.exams.plausibility`).

    Args:
        exams: the training split; of uint8 files only the headers are read.
        positions: positions of the exams trained on, at least one.

    Returns:
        Series -> slices, rows and cols, each with minimum and maximum.
    """
    shapes: dict[str, list[tuple[int, int, int]]] = {}
    for position in positions:
        for name, shape in exams.shapes(position).items():
            shapes.setdefault(name, []).append(shape)
    return {name: StackSizes.of(shapes[name]).to_dict() for name in shapes}


def make_loader(
    exams: Dataset,
    positions: Sequence[int],
    recipe: Recipe,
    *,
    training: bool = False,
    share: tuple[int, int] = (0, 1),
) -> DataLoader[Batch | MrkneeError]:
    """Returns a loader of the exams of a part in batches; if `training`, shuffled and augmented.

    `share` is (rank, number of processes) if the exams of each batch are divided among processes.
    """
    augmentation = recipe.augmentation if training and recipe.augmentation.any else None
    preparation = Preparation.of(recipe.preparation)
    if training:
        preparation = preparation.replace(read_slices=None)
    return load_batches(
        ExamDataset(
            exams,
            preparation,
            augmentation,
            recipe.seed,
            recipe.slices_per_series if training else None,
            KEPT_FRAMES_BYTES if recipe.feature_cache is not None and recipe.workers == 0 else 0,
        ),
        positions,
        recipe.batch_exams,
        batch_slices=recipe.batch_slices,
        shuffle_seed=recipe.seed if training else None,
        workers=recipe.workers,
        share=share,
    )


def skip_batches(loader: DataLoader[Batch | MrkneeError], epoch: int, batches: int) -> None:
    """Lets a loader start in the given epoch after the given number of batches."""
    _batch_sampler(loader).skip_batches(epoch, batches)


def count_steps(loader: DataLoader[Batch | MrkneeError], recipe: Recipe) -> int:
    """Returns the number of optimizer steps of all epochs; each epoch's last may be smaller."""
    batches = _batch_sampler(loader)
    if recipe.batch_slices is None:
        return recipe.epochs * -(-len(batches) // recipe.accumulate)
    return sum(-(-len(batches.all_batches(e)) // recipe.accumulate) for e in range(recipe.epochs))


def _batch_sampler(loader: DataLoader[Batch | MrkneeError]) -> EpochBatches:
    assert isinstance(loader.batch_sampler, EpochBatches)  # noqa: S101  # created by make_loader
    return loader.batch_sampler
