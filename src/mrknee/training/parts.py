"""Which exams do what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from mrknee.errors import DataError, MrkneeError
from mrknee.exams import Dataset, StackSizes, inner_split
from mrknee.run_folder import split_text
from mrknee.tensors.batches import Batch, EpochBatches, ExamDataset, load_batches
from mrknee.tensors.preparation import Preparation
from mrknee.training.recipe import Recipe


@dataclass(frozen=True)
class Parts:
    """Which exams do what.

    Attributes:
        train: the folder of training exams, with labels.
        fit: positions in it of the exams trained on.
        selecting: the folder of the exams that select the epoch, and `chosen` their positions.
        valid: the folder of validation exams, with the findings of `train`: labels that it lacks
            are NaN; None where the data set has none.
    """

    train: Dataset
    fit: Sequence[int]
    selecting: Dataset
    chosen: Sequence[int]
    valid: Dataset | None

    @property
    def unread(self) -> tuple[Path, ...]:
        """Files among the stacks that are not read; see `Dataset.unread`."""
        return self.train.unread + (() if self.valid is None else self.valid.unread)

    @property
    def scores_valid(self) -> bool:
        """Whether valid is there and has a label of any finding."""
        return self.valid is not None and not bool(np.isnan(self.valid.labels).all())

    def series(self) -> dict[str, int]:
        """Series -> how many of the exams trained on have it."""
        having = [self.train.series_of(position) for position in self.fit]
        return {name: sum(name in those for those in having) for name in self.train.series.names}

    def table(self) -> str:
        """`split.csv`: a line an exam that is used, with its part."""
        rows = [(self.train.ids[i], "train") for i in self.fit]
        if self.selecting is self.train:
            rows += [(self.train.ids[i], "inner") for i in self.chosen]
        if self.valid is not None:
            rows += [(exam_id, "valid") for exam_id in self.valid.ids]
        return split_text(rows)


def divide(data: Path, recipe: Recipe) -> Parts:
    """Opens the data set and says which exams are trained on and which select the epoch.

    The exams are drawn by the labels of all findings there are, learned or not: networks of
    different findings train and select on the same exams, and can be compared. Exams of one group
    (`groups.csv`) are in one part.
    """

    def open_split(
        split: str, findings: Iterable[str] | None, *, allow_missing_labels: bool = False
    ) -> Dataset:
        opened = Dataset.of_split(
            data,
            split,
            findings=findings,
            allow_missing_plane=recipe.allow_missing_plane,
            axes=recipe.axes,
            allow_missing_labels=allow_missing_labels,
            soft_labels=recipe.soft_labels,
        )
        opened.refuse_other_axes()
        return opened

    exams = open_split("train", recipe.findings)
    if exams.findings is None:
        raise DataError(
            "there are no labels to train with",
            code="no-labels",
            file=data,
            expected="label files train-<finding>.csv, one a finding",
        )
    patterns = exams.labels if recipe.findings is None else open_split("train", None).labels
    used = np.arange(len(exams))
    if recipe.max_exams is not None and recipe.max_exams < len(exams):
        _, used = inner_split(patterns, recipe.max_exams / len(exams), recipe.seed)
    valid = None
    if (data / "valid").is_dir():  # may lack labels of some findings: the others are scored
        valid = open_split("valid", exams.findings, allow_missing_labels=True)
    if recipe.selection.part == "valid":
        if valid is None or np.isnan(valid.labels).all():
            raise DataError(
                "the epoch can't be selected on valid",
                code="no-labels",
                file=data / "valid",
                expected="a split valid with labels for " + ", ".join(exams.findings),
                found="no such split" if valid is None else "no label of any of these findings",
                advice="select on an inner split of train: --selection.part inner",
            )
        return Parts(exams, used.tolist(), valid, range(len(valid)), valid)
    groups = None if exams.groups is None else [exams.groups[position] for position in used]
    fit, inner = inner_split(patterns[used], recipe.selection.fraction, recipe.seed, groups)
    return Parts(exams, used[fit].tolist(), exams, used[inner].tolist(), valid)


def stack_sizes(exams: Dataset, positions: Sequence[int]) -> dict[str, dict[str, list[int]]]:
    """The smallest and largest stacks that a network is trained on, for its provenance.

    Exams of other sizes are marked when they are read (`mrknee.exams.plausibility`).

    Args:
        exams: the training exams; uint8 files are opened, not read.
        positions: those trained on, at least one.

    Returns:
        Series -> slices, rows and cols, each with its minimum and maximum.
    """
    shapes: dict[str, list[tuple[int, int, int]]] = {}
    for position in positions:
        for name, shape in exams.shapes(position).items():
            shapes.setdefault(name, []).append(shape)
    return {name: StackSizes.of(shapes[name]).to_dict() for name in shapes}


def load_part(
    exams: Dataset,
    positions: Sequence[int],
    recipe: Recipe,
    *,
    training: bool = False,
    share: tuple[int, int] = (0, 1),
) -> DataLoader[Batch | MrkneeError]:
    """The exams of a part in batches; when training, shuffled and augmented.

    `share` is (rank, processes) where each batch is dealt to several processes.
    """
    augmentation = recipe.augmentation if training and recipe.augmentation.any else None
    return load_batches(
        ExamDataset(exams, Preparation.of(recipe.preparation), augmentation, recipe.seed),
        positions,
        recipe.batch_exams,
        batch_slices=recipe.batch_slices,
        shuffle_seed=recipe.seed if training else None,
        workers=recipe.workers,
        share=share,
    )


def skip_batches(loader: DataLoader[Batch | MrkneeError], epoch: int, batches: int) -> None:
    """Lets a loader start in this epoch after so many of its batches."""
    _batches_of(loader).skip_batches(epoch, batches)


def count_steps(loader: DataLoader[Batch | MrkneeError], recipe: Recipe) -> int:
    """How many steps the optimizer makes in all epochs; an epoch's last may have fewer batches."""
    batches = _batches_of(loader)
    if recipe.batch_slices is None:
        return recipe.epochs * -(-len(batches) // recipe.accumulate)
    return sum(-(-len(batches.all_batches(e)) // recipe.accumulate) for e in range(recipe.epochs))


def _batches_of(loader: DataLoader[Batch | MrkneeError]) -> EpochBatches:
    assert isinstance(loader.batch_sampler, EpochBatches)  # noqa: S101  # load_part's
    return loader.batch_sampler
