"""The settings of a training run: one typed tree, and its named instances in `recipes/*.yaml`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from mrknee.errors import MrkneeError, SettingsError
from mrknee.exams import Findings
from mrknee.exams.axes import parse_axes
from mrknee.networks.settings import NetworkSettings
from mrknee.ranges import SEED, WORKERS, Range
from mrknee.suggestions import SETTINGS, meant
from mrknee.tensors.augmentation import Augmentation
from mrknee.tensors.preparation import Preparation
from mrknee.training.recipe_tree import dump, read_tree, setting_hints, wrong_kind

LoggerName = Literal["tensorboard", "wandb", "mlflow"]

_MANY = 1_000_000
"""More exams, slices or steps than any data set of knees has, and than any counter here needs."""

RANGES: Mapping[str, Range] = {
    "optimizer.learning_rate": Range(0, 1000, above=True),
    "optimizer.weight_decay": Range(0, 1000),
    "optimizer.momentum": Range(0, 1, below=True),
    "optimizer.clip_norm": Range(0, 1e6),
    "schedule.patience": Range(0, 100_000, whole=True),
    "schedule.factor": Range(0, 1, above=True, below=True),
    "schedule.threshold": Range(0, 1, below=True),
    "schedule.warmup": Range(0, 1, below=True),
    "selection.fraction": Range(0, 1, above=True, below=True),
    "selection.early_stop": Range(0, 100_000, whole=True),
    "network.frozen_stages": Range(0, 1000, whole=True),
    "network.dropout": Range(0, 1, below=True),
    "preparation.mean": Range(-1000, 1000),
    "preparation.sd": Range(0.001, 1000),
    "epochs": Range(1, 100_000, whole=True),
    "batch_exams": Range(1, 4096, whole=True),
    "batch_slices": Range(1, _MANY, whole=True),
    "accumulate": Range(1, 100_000, whole=True),
    "slices_at_once": Range(-1, _MANY, whole=True),
    "seed": SEED,
    "save_every": Range(0, _MANY, whole=True),
    "log_train": Range(1, _MANY, whole=True),
    "log_valid": Range(1, _MANY, whole=True),
    "sensitivity": Range(0, 1, above=True, below=True),
    "max_exams": Range(1, _MANY, whole=True),
    "workers": WORKERS,
}
"""Setting -> what it may be. A limit that mathematics doesn't give (a share lies between 0 and 1)
is far beyond what makes sense: it is there to refuse a slip, not to advise. What is not here is
checked by the settings of its part (preparation, augmentation, network)."""

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
        weights: where it starts: download (the library's ImageNet weights for the encoders), lite0
            (the optional extra), a FILE of encoder weights, run:PATH (all that fits of a trained
            run, which may have other findings or series), or none (random).
        preparation: from stack to input.
        augmentation: what is drawn for training; all zero trains on the exams as they are.
        optimizer: how weights are stepped.
        schedule: how the learning rate moves.
        selection: which epoch is kept.
        pos_weight: balanced weighs a finding's positive exams by negatives / positives among the
            exams trained on; none weighs all alike.
        epochs: at most this many.
        batch_exams: exams a batch, at most; where several processes train, of all together.
        batch_slices: maximum number of slices per batch, all series together, so that memory
            suffices whatever exams come together; an exam with more is a batch of its own. Only
            exams are counted where not given.
        slices_at_once: slices that go through an encoder together while training, so that memory
            is that of so many slices, whatever the batch, for one more forward pass; gradients are
            the same to rounding. 0 takes all slices of a batch; -1 takes 4 on a processor and 64
            on a GPU. With network.batchnorm trained, whose statistics are the batch's, -1 takes
            all, and another number is refused.
        accumulate: batches a step of the optimizer; the gradient is that of the mean over the
            labels of all of them, also where an epoch ends with fewer.
        seed: of weights, splits, shuffling and augmentation.
        precision: 32-true, bf16-mixed, 16-mixed (on a GPU), or auto: bf16-mixed where the
            processor has instructions for it, else 32-true (without them bfloat16 is up to 70 times
            slower).
        save_every: save what --resume goes on from every so many steps, and after every epoch; 0
            saves after every epoch only. At most so many steps are lost when a run is killed.
        keep_every_epoch: keep every epoch's weights, named after their AUCs.
        loggers: where curves go beside metrics.csv: tensorboard, wandb, mlflow, several (a list,
            or names with commas or spaces between), or none.
        log_train: a log line every so many training exams.
        log_valid: a log line every so many validation exams.
        calibration: what is fitted on the inner exams so that a probability of 0.3 means three of
            ten: platt (slope and intercept per finding), or none. Without inner exams nothing is
            fitted.
        sensitivity: of the second operating point fixed on the inner exams; the first is Youden's.
        max_exams: train and select on at most so many exams, drawn from `train` at its mix of
            labels, for a quick look; all where not given.
        workers: processes that read exams; -1 takes one a core but one, 4 at most.
        allow_missing_plane: accept exams that lack series.
        soft_labels: take any number from 0 to 1 for a label, such as the share of readers who saw
            the finding; else only 0, 1 and nothing.
        axes: the order of the files' axes where it is another than slices,rows,cols, such as
            rows,cols,slices; where not given, stacks that seem to be in another order are refused.

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
    save_every: int = 50
    keep_every_epoch: bool = False
    loggers: list[LoggerName] | str | None = "tensorboard"
    log_train: int = 50
    log_valid: int = 10
    calibration: Literal["platt", "none"] = "platt"
    sensitivity: float = 0.9
    max_exams: int | None = None
    workers: int = -1
    allow_missing_plane: bool = False
    soft_labels: bool = False
    axes: str | None = None

    def __post_init__(self) -> None:
        if self.axes is not None:
            object.__setattr__(self, "axes", ",".join(parse_axes(self.axes)))
        if self.findings is not None:
            given = self.findings.split(",") if isinstance(self.findings, str) else self.findings
            object.__setattr__(
                self, "findings", list(Findings.usual(n.strip().lower() for n in given))
            )
        object.__setattr__(self, "loggers", logger_names(self.loggers))
        for name, allowed in RANGES.items():
            value: Any = self
            for part in name.split("."):
                value = getattr(value, part)
            if value is not None or name not in ("batch_slices", "max_exams"):
                allowed.check(f"the setting {name}", value)

        if self.slices_at_once > 0 and self.network.batchnorm == "trained":
            raise SettingsError(
                "slices_at_once and network.batchnorm trained can't be used together",
                code="setting",
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
        return dump(self.to_dict())


def with_statistics(recipe: Recipe, given: Collection[str]) -> Recipe:
    """The recipe with the mean and SD that its encoder expects, where they were not given.

    Args:
        recipe: the recipe; its `preparation.mean` and `preparation.sd` may be mere defaults.
        given: dotted names of the settings that a recipe's file or the command line states.
    """
    if "preparation.mean" in given and "preparation.sd" in given:
        return recipe
    from mrknee.networks.encoders import input_statistics  # it imports torch and timm

    mean, sd = input_statistics(recipe.network.encoder)
    preparation = recipe.preparation
    if "preparation.mean" not in given:
        preparation = replace(preparation, mean=mean)
    if "preparation.sd" not in given:
        preparation = replace(preparation, sd=sd)
    return replace(recipe, preparation=preparation)


def flat_settings(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of each setting of a recipe's tree."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat_settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def unknown_setting(name: str) -> MrkneeError:
    """The error for a setting that doesn't exist: which one was probably meant."""
    near = meant(name, setting_hints(Recipe), SETTINGS)
    return SettingsError(
        f"no such setting: {name}" + (f"; did you mean {near}?" if near else ""),
        code="unknown-setting",
        advice="`mrknee train --help` lists all settings",
    )


def logger_names(given: list[LoggerName] | str | None) -> list[LoggerName]:
    """`tensorboard`, `tensorboard,wandb`, `tensorboard wandb`, `[wandb]` or `none` as a list.

    Raises:
        MrkneeError: another name, one name twice, or none beside others.
    """
    names: list[Any] = list(given or [])
    if isinstance(given, str):
        names = given.strip("[]").replace(",", " ").split()
    known = get_args(LoggerName)
    if names in (["none"], ["null"]):
        return []
    odd = [name for name in names if name not in known]
    if odd or len(set(names)) < len(names) or given == "":
        near = meant(odd[0], known, {}) if odd else None
        raise SettingsError(
            "the setting loggers can't be used",
            code="setting",
            expected=f"some of {', '.join(known)}, each once; or none",
            found=str(given),
            advice=None if near is None else f"did you mean {near}?",
        )
    return [name for name in known if name in names]


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
        raise SettingsError(
            f"there is no recipe {name_or_file!r}",
            code="recipe",
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
            if name not in setting_hints(Recipe):
                raise unknown_setting(name)
            *parents, last = name.split(".")
            branch = tree
            for parent in parents:
                branch = branch.setdefault(parent, {})
            branch[last] = value
            expected = wrong_kind(value, setting_hints(Recipe)[name])
            if expected is not None:
                raise SettingsError(
                    f"the setting {name} can't be used",
                    code="setting",
                    expected=expected,
                    found=repr(value),
                )
        recipe = parser.instantiate(parser.parse_object({"recipe": tree})).recipe
    except MrkneeError:
        raise
    except Exception as error:  # jsonargparse raises several kinds; each says which setting
        raise SettingsError(
            "a recipe can't be read", code="recipe", file=path, found=str(error).strip()
        ) from None
    assert isinstance(recipe, Recipe)  # noqa: S101  # for the type checker
    return with_statistics(recipe, dict(flat_settings(tree)))
