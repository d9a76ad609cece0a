"""The settings of a training run: one typed tree, and its named instances in `recipes/*.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from mrknee.errors import MrkneeError
from mrknee.exams import Findings
from mrknee.networks.settings import NetworkSettings
from mrknee.tensors.augmentation import Augmentation
from mrknee.tensors.preparation import Preparation
from mrknee.training.recipe_tree import read_tree

LoggerName = Literal["tensorboard", "wandb", "mlflow"]

_RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class OptimizerSettings:
    """How weights are stepped; the defaults are the reference system's.

    Args:
        name: adam (weight decay added to the gradient, as PyTorch's Adam does), adamw
            (decoupled), or sgd (with Nesterov momentum where momentum is above 0).
        learning_rate: above 0.
        weight_decay: 0 or above.
        momentum: of sgd, 0 to below 1.
        clip_norm: gradients of a larger norm are scaled down to it; 0 leaves them alone.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 1e-5
    weight_decay: float = 0.01
    momentum: float = 0.9
    clip_norm: float = 0.0


@dataclass(frozen=True)
class ScheduleSettings:
    """How the learning rate moves; the defaults are the reference system's.

    Args:
        name: plateau (cut by `factor` when the selection loss has not fallen by the relative
            `threshold` for more than `patience` epochs), cosine (to 0 at the last step, after a
            linear `warmup`), or constant.
        patience: epochs, of plateau.
        factor: of plateau.
        threshold: relative, of plateau.
        warmup: share of all steps in which the rate rises from 0, of cosine.
    """

    name: Literal["plateau", "cosine", "constant"] = "plateau"
    patience: int = 3
    factor: float = 0.3
    threshold: float = 1e-4
    warmup: float = 0.0


@dataclass(frozen=True)
class SelectionSettings:
    """On which exams the epoch is selected, and when training stops early.

    Args:
        part: inner (a stratified share of the training exams that is not trained on; `valid` is
            touched once, at the end), or valid (as the post does; the result is optimistic and
            marked so).
        fraction: the inner share of the training exams.
        metric: what the best epoch has most of: mean_auc, or least of: loss.
        early_stop: stop when the metric has not improved for this many epochs; 0 never stops.
    """

    part: Literal["inner", "valid"] = "inner"
    fraction: float = 0.15
    metric: Literal["mean_auc", "loss"] = "mean_auc"
    early_stop: int = 10

    @property
    def monitor(self) -> str:
        """The metric's name among an epoch's metrics."""
        return {"mean_auc": "auc_mean", "loss": "loss"}[self.metric]

    @property
    def mode(self) -> Literal["max", "min"]:
        """Whether more or less of it is better."""
        return "max" if self.metric == "mean_auc" else "min"


@dataclass(frozen=True)
class Recipe:
    """All settings of a training run.

    Args:
        findings: which findings to learn, each with a label file: a list, or names with commas
            between; all there are where not given. One name trains the earlier post's
            single-finding system.
        network: the network.
        weights: where its encoders start: download (the library's ImageNet weights), lite0 (the
            optional extra), a FILE, or none (random).
        preparation: from stack to input.
        augmentation: what is drawn for training; all zero trains on the exams as they are.
        optimizer: how weights are stepped.
        schedule: how the learning rate moves.
        selection: which epoch is kept.
        pos_weight: balanced weighs a finding's positive exams by negatives / positives among the
            exams trained on; none weighs all alike.
        epochs: at most this many.
        batch_exams: exams a batch, at most; where several processes train, of all together.
        batch_slices: slices a batch, of all planes together, at most, so that memory suffices
            whatever exams come together; an exam that has more is a batch of its own. Only exams
            are counted where not given.
        slices_at_once: slices that go through an encoder together while training, so that memory
            is that of so many slices, whatever the batch, for one more forward pass; gradients are
            the same to rounding. 0 takes all slices of a batch; -1 takes 4 on a processor and 64
            on a GPU. Not with network.batchnorm trained, whose statistics are the batch's.
        accumulate: batches a step of the optimizer; the gradient is that of the mean over the
            labels of all of them, also where an epoch ends with fewer.
        seed: of weights, splits, shuffling and augmentation.
        precision: 32-true, bf16-mixed, 16-mixed (on a GPU), or auto: bf16-mixed where the
            processor has instructions for it, else 32-true (without them bfloat16 is up to 70 times
            slower).
        compile: let torch compile the encoders: the first steps take a minute or more, what those
            after them gain depends on network and machine (docs/training.md). Needs a C++ compiler.
        save_every: save what --resume goes on from every so many steps, and after every epoch; 0
            saves after every epoch only. At most so many steps are lost when a run is killed.
        keep_every_epoch: keep every epoch's weights, named after their AUCs.
        loggers: where curves go beside metrics.csv: tensorboard, wandb, mlflow, several, or none.
        log_train: a log line every so many training exams.
        log_valid: a log line every so many validation exams.
        calibration: what is fitted on the inner exams so that a probability of 0.3 means three of
            ten: platt (slope and intercept a finding), temperature (slope only), or none. Without
            inner exams nothing is fitted.
        sensitivity: of the second operating point fixed on the inner exams; the first is Youden's.
        max_exams: train and select on at most so many exams, drawn from `train` at its mix of
            labels, for a quick look; all where not given.
        workers: processes that read exams; -1 takes one a core but one, 4 at most.
        allow_missing_plane: accept exams that lack one or two planes.

    Raises:
        MrkneeError: settings that contradict each other.
    """

    findings: list[str] | str | None = None
    network: NetworkSettings = field(default_factory=NetworkSettings)
    weights: str = "download"
    preparation: Preparation = field(default_factory=Preparation)
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    pos_weight: Literal["balanced", "none"] = "balanced"
    epochs: int = 50
    batch_exams: int = 1
    batch_slices: int | None = None
    slices_at_once: int = 0
    accumulate: int = 1
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "auto"] = "32-true"
    compile: bool = False
    save_every: int = 50
    keep_every_epoch: bool = False
    loggers: list[LoggerName] = field(default_factory=lambda: ["tensorboard"])
    log_train: int = 50
    log_valid: int = 10
    calibration: Literal["platt", "temperature", "none"] = "platt"
    sensitivity: float = 0.9
    max_exams: int | None = None
    workers: int = -1
    allow_missing_plane: bool = False

    def __post_init__(self) -> None:
        if self.findings is not None:
            given = self.findings.split(",") if isinstance(self.findings, str) else self.findings
            object.__setattr__(self, "findings", list(Findings(given)))
        positive = {
            "epochs": self.epochs,
            "batch_exams": self.batch_exams,
            "batch_slices": 1 if self.batch_slices is None else self.batch_slices,
            "accumulate": self.accumulate,
            "log_train": self.log_train,
            "log_valid": self.log_valid,
            "optimizer.learning_rate": self.optimizer.learning_rate,
            "max_exams": 1 if self.max_exams is None else self.max_exams,
        }
        for name, value in positive.items():
            if value <= 0:
                raise MrkneeError(
                    f"the setting {name} can't be used", expected="above 0", found=str(value)
                )
        not_negative = {
            "seed": self.seed,
            "save_every": self.save_every,
            "optimizer.weight_decay": self.optimizer.weight_decay,
            "optimizer.clip_norm": self.optimizer.clip_norm,
            "schedule.patience": self.schedule.patience,
            "schedule.threshold": self.schedule.threshold,
            "selection.early_stop": self.selection.early_stop,
        }
        for name, value in not_negative.items():
            if value < 0:
                raise MrkneeError(
                    f"the setting {name} can't be used", expected="0 or above", found=str(value)
                )
        shares = {
            "selection.fraction": self.selection.fraction,
            "schedule.factor": self.schedule.factor,
            "sensitivity": self.sensitivity,
            "schedule.warmup": self.schedule.warmup or 0.5,  # 0, no warm-up, is fine
            "optimizer.momentum": self.optimizer.momentum or 0.5,  # 0, no momentum, is fine
        }
        for name, value in shares.items():
            if not 0 < value < 1:
                raise MrkneeError(
                    f"the setting {name} can't be used",
                    expected="between 0 and 1",
                    found=str(value),
                )

        if self.slices_at_once < -1:
            raise MrkneeError(
                "the setting slices_at_once can't be used",
                expected="a number of slices, 0 (all) or -1 (4 on a processor, 64 on a GPU)",
                found=str(self.slices_at_once),
            )
        if self.slices_at_once and self.network.batchnorm == "trained":
            raise MrkneeError(
                "slices_at_once and network.batchnorm trained can't be used together",
                expected="batch statistics of whole batches: slices_at_once 0; or frozen ones: "
                "network.batchnorm frozen",
                found=f"slices_at_once {self.slices_at_once}, network.batchnorm trained",
                advice="to save memory with trained statistics, lower batch_exams or batch_slices",
            )

    def to_dict(self) -> dict[str, Any]:
        """The whole tree as plain values."""
        return asdict(self)

    def to_yaml(self) -> str:
        """The whole tree as YAML; `load_recipe` reads it back."""
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False))


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(file.stem for file in _RECIPES.glob("*.yaml"))


def recipe_file(name_or_file: str) -> Path:
    """The YAML file of a recipe: one of the package's by its name, or the file itself.

    Raises:
        MrkneeError: neither a name nor a file.
    """
    named = _RECIPES / f"{name_or_file}.yaml"
    path = named if name_or_file in recipe_names() else Path(name_or_file)
    if not path.is_file():
        raise MrkneeError(
            f"there is no recipe {name_or_file!r}",
            expected="a YAML file, or one of " + ", ".join(recipe_names()),
        )
    return path


def load_recipe(name_or_file: str = "default", changes: Mapping[str, Any] | None = None) -> Recipe:
    """Reads a recipe and changes some of its settings.

    Args:
        name_or_file: a name from `recipe_names()` or a YAML file.
        changes: dotted setting -> value, for example {"network.encoder": "resnet50"}.

    Raises:
        MrkneeError: no such recipe, a setting that doesn't exist, or a value of another type.
    """
    from jsonargparse import ArgumentParser

    path = recipe_file(name_or_file)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--recipe", type=Recipe)
    try:
        tree = read_tree(path, Recipe)
        for name, value in (changes or {}).items():
            *parents, last = name.split(".")
            branch = tree
            for parent in parents:
                branch = branch.setdefault(parent, {})
            branch[last] = value
        recipe = parser.instantiate(parser.parse_object({"recipe": tree})).recipe
    except MrkneeError:
        raise
    except Exception as error:  # jsonargparse raises several kinds; each says which setting
        raise MrkneeError("a recipe can't be read", file=path, found=str(error).strip()) from None
    assert isinstance(recipe, Recipe)  # noqa: S101  # for the type checker
    return recipe
