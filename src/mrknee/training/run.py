"""A recipe and a data set become a run folder.

```
RUN/
├── settings.yaml            the whole recipe, every default written out
├── environment.json         of each start: versions, machine, command
├── split.csv                exam,part: which exams were trained on, which selected the epoch
├── best/  last/             weights.safetensors + model.json; predict takes RUN or either of them
├── epochs/                  every epoch's, where the recipe keeps them
├── resume/last.ckpt         what --resume goes on from
├── log.txt  metrics.csv  tensorboard/
├── predictions-inner.csv    the best epoch's predictions on the exams that selected it
├── predictions-valid.csv    ... and on valid
└── scorecard.json           AUCs on valid, with intervals
```
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch.utils.data import DataLoader

from mrknee.errors import MrkneeError
from mrknee.exams import ExamFolder, Findings, inner_split
from mrknee.files import whole_file
from mrknee.networks.checkpoint import load_checkpoint
from mrknee.networks.network import Network
from mrknee.networks.reader import Reader, device_here
from mrknee.scoring.predictions import Predictions
from mrknee.scoring.scorecard import Scorecard, score
from mrknee.tensors.batches import Batch, ExamDataset, load_batches
from mrknee.training.environment import describe_environment
from mrknee.training.module import TrainingModule
from mrknee.training.objective import positive_weights
from mrknee.training.recipe import Recipe, load_recipe
from mrknee.training.record import RunRecord

RESUME = Path("resume", "last.ckpt")
OPTIMISTIC = "optimistic: the epoch was selected on these exams"


@dataclass(frozen=True)
class Parts:
    """Which exams do what.

    Attributes:
        train: the folder of training exams, with labels.
        fit: positions in it of the exams trained on.
        selecting: the folder of the exams that select the epoch, and `chosen` their positions.
        valid: the folder of validation exams; None where the data set has none.
    """

    train: ExamFolder
    fit: Sequence[int]
    selecting: ExamFolder
    chosen: Sequence[int]
    valid: ExamFolder | None


def train(data: Path, out: Path, recipe: Recipe, *, resume: bool = False) -> Scorecard:
    """Trains by the recipe and writes the run folder.

    Args:
        data: a data set in MRNet's layout, with a `train` split and, normally, `valid`.
        out: the run folder; must be empty or not there, unless `resume`.
        recipe: the settings.
        resume: go on with an interrupted run of the same settings; a finished one is left as it
            is. More `epochs` than before are allowed.

    Returns:
        The scorecard on `valid` (on the inner exams where there is no `valid`).

    Raises:
        MrkneeError: the data set or a setting can't be used, or the folder holds something else.
    """
    parts = divide(data, recipe)
    split = _split_table(parts)
    done = _check_folder(out, recipe, split, resume)
    if done is not None:
        return done
    lightning.seed_everything(recipe.seed, workers=True, verbose=False)
    findings = parts.train.findings
    assert findings is not None  # noqa: S101  # divide has refused folders without labels
    interrupted = (out / RESUME).exists()
    network = Network(recipe.network, findings, "none" if interrupted else recipe.weights)
    fit_labels = parts.train.labels[parts.fit]
    balanced = positive_weights(fit_labels, findings)
    weights = balanced if recipe.pos_weight == "balanced" else torch.ones(len(findings))
    module = TrainingModule(Reader(recipe.preparation, network), recipe, weights)
    provenance = {"data": str(data.name), "trained_on": len(parts.fit), "recipe": recipe.to_dict()}
    _claim_folder(out, recipe, split)
    record = RunRecord(out, recipe, provenance)
    with _quiet_lightning():
        trainer = _trainer(out, recipe, record)
        trainer.fit(
            module,
            _loader(parts.train, parts.fit, recipe, training=True),
            _loader(parts.selecting, parts.chosen, recipe),
            ckpt_path=str(out / RESUME) if interrupted else None,
            weights_only=True,
        )
    card = _evaluate(module.reader, parts, recipe, out)
    record.say(card.table())
    return card


def divide(data: Path, recipe: Recipe) -> Parts:
    """Opens the data set and says which exams are trained on and which select the epoch."""

    def open_split(split: str) -> ExamFolder:
        return ExamFolder.of_split(
            data, split, findings=recipe.findings, allow_missing_plane=recipe.allow_missing_plane
        )

    exams = open_split("train")
    if exams.findings is None:
        raise MrkneeError(
            "there are no labels to train with",
            file=data,
            expected="label files train-<finding>.csv, one a finding",
        )
    valid = open_split("valid") if (data / "valid").is_dir() else None
    if recipe.selection.part == "valid":
        if valid is None or valid.findings != exams.findings:
            raise MrkneeError(
                "the epoch can't be selected on valid",
                file=data / "valid",
                expected="a split valid with labels for " + ", ".join(exams.findings),
                found="no such split" if valid is None else ", ".join(valid.findings or ["none"]),
                advice="select on an inner split of train: --selection.part inner",
            )
        return Parts(exams, range(len(exams)), valid, range(len(valid)), valid)
    fit, inner = inner_split(exams.labels, recipe.selection.fraction, recipe.seed)
    return Parts(exams, fit.tolist(), exams, inner.tolist(), valid)


def _split_table(parts: Parts) -> str:
    rows = [(parts.train.ids[i], "train") for i in parts.fit]
    if parts.selecting is parts.train:
        rows += [(parts.train.ids[i], "inner") for i in parts.chosen]
    if parts.valid is not None:
        rows += [(exam_id, "valid") for exam_id in parts.valid.ids]
    return "exam,part\n" + "".join(f"{i},{part}\n" for i, part in sorted(rows))


def _check_folder(out: Path, recipe: Recipe, split: str, resume: bool) -> Scorecard | None:
    """Refuses a folder that can't be trained in; returns a finished run's scorecard."""
    settings = out / "settings.yaml"
    if not out.exists() or not any(out.iterdir()):
        return None
    if not resume or not settings.exists():
        raise MrkneeError(
            "the run folder is not empty",
            file=out,
            expected="an empty or new folder, or --resume on an interrupted run",
            advice="name another folder with --out, or go on with --resume",
        )
    before, now = load_recipe(str(settings)).to_dict(), recipe.to_dict()
    changed = [n for n in now if now[n] != before[n] and n not in ("epochs", "workers")]
    if changed:
        raise MrkneeError(
            "the run was started with other settings",
            file=settings,
            expected=", ".join(f"{name}={before[name]}" for name in changed),
            found=", ".join(f"{name}={now[name]}" for name in changed),
            advice="resume with the settings it was started with, or start a new run",
        )
    if (out / "split.csv").read_text() != split:
        raise MrkneeError(
            "the run was started with other exams",
            file=out / "split.csv",
            expected="the data set it was started with",
            found="other exams, or other labels",
            advice="resume with the same data set, or start a new run",
        )
    if (out / "scorecard.json").exists() and recipe.epochs <= before["epochs"]:
        return Scorecard.read(out / "scorecard.json")
    return None


def _claim_folder(out: Path, recipe: Recipe, split: str) -> None:
    """Writes what says whose folder it is; nothing that could fail comes before training now."""
    out.mkdir(parents=True, exist_ok=True)
    environment = out / "environment.json"
    starts = json.loads(environment.read_text()) if environment.exists() else []
    contents = {
        "split.csv": split,
        "settings.yaml": recipe.to_yaml(),
        "environment.json": json.dumps([*starts, describe_environment()], indent=2) + "\n",
    }
    for name, text in contents.items():
        with whole_file(out / name) as beside:
            beside.write_text(text)


def _loader(
    exams: ExamFolder, positions: Sequence[int], recipe: Recipe, *, training: bool = False
) -> DataLoader[Batch | MrkneeError]:
    augmentation = recipe.augmentation if training and recipe.augmentation.any else None
    return load_batches(
        ExamDataset(exams, recipe.preparation, augmentation, recipe.seed),
        positions,
        recipe.batch_exams,
        shuffle_seed=recipe.seed if training else None,
        workers=recipe.workers,
    )


def _trainer(out: Path, recipe: Recipe, record: RunRecord) -> lightning.Trainer:
    loggers: list[Logger] = [TensorBoardLogger(out, name="", version="tensorboard")]
    return lightning.Trainer(
        accelerator=device_here(),
        devices=1,
        max_epochs=recipe.epochs,
        precision=recipe.precision,
        gradient_clip_val=recipe.optimizer.clip_norm or None,
        logger=loggers,
        callbacks=[record],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic="warn",
        default_root_dir=out,
    )


def _evaluate(reader: Reader, parts: Parts, recipe: Recipe, out: Path) -> Scorecard:
    """Reads the selecting exams and valid once with the best epoch, and scores valid."""
    best = load_checkpoint(out / "best").network
    reader.network.load_state_dict(best.state_dict())
    reader.to(device_here())  # Lightning leaves it on the CPU

    def predict(exams: ExamFolder, positions: Sequence[int], part: str) -> Scorecard:
        notes = [] if part == "valid" and recipe.selection.part == "inner" else [OPTIMISTIC]
        if part == "inner":
            notes.append("valid was not scored: it is missing or has other findings")
        batches = _loader(exams, positions, recipe)
        ids, probabilities = reader.read(batches, len(positions), f"reading {part}")
        findings = Findings(reader.network.findings)
        Predictions(ids, findings, probabilities).write(out / f"predictions-{part}.csv")
        labels = exams.labels[list(positions)]
        return score(findings, labels, probabilities, split=part, seed=recipe.seed, notes=notes)

    if recipe.selection.part == "inner":
        card = predict(parts.selecting, parts.chosen, "inner")
    if parts.valid is not None and parts.valid.findings == parts.train.findings:
        card = predict(parts.valid, range(len(parts.valid)), "valid")
    card.write(out / "scorecard.json")
    return card


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's greetings and its advice on settings that are chosen on purpose are not shown."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # few batches, few workers, an infrequent log: all as the recipe says
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            # Lightning 2.6 calls what torch 2.15 has renamed
            warnings.filterwarnings("ignore", message=".*LeafSpec", module="lightning")
            yield
    finally:
        logger.setLevel(level)
