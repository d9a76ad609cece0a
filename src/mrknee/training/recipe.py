"""The settings of a training run: one typed tree, and its named instances in `recipes/*.yaml`.

Importing this file imports neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from mrknee.errors import MrkneeError, SettingsError
from mrknee.networks.settings import NetworkSettings
from mrknee.ranges import SEED, WORKERS
from mrknee.settings import Settings, cannot_be_used, unknown_setting
from mrknee.suggestions import meant
from mrknee.tensors.settings import AugmentationSettings, PreparationSettings
from mrknee.training.recipe_tree import dump, read_tree

LoggerName = Literal["tensorboard", "wandb", "mlflow"]

_RECIPES = Path(__file__).parent / "recipes"

_MANY = 1_000_000
"""More exams, slices or steps than any data set of knees has, and than any counter here needs. Like
other limits that mathematics doesn't give, it is there to refuse a slip, not to advise."""

Count = Annotated[int, Field(ge=1, le=_MANY)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]
EpochsOrNone = Annotated[int, Field(ge=0, le=100_000)]
Share = Annotated[float, Field(gt=0, lt=1)]
ShareOrNone = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    """How weights are stepped; the defaults are the reference system's."""

    section: ClassVar[str] = "optimizer"

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """`adam` (weight decay added to the gradient, as PyTorch's Adam does), `adamw` (decoupled), or
    `sgd` (with Nesterov momentum where momentum is above 0)."""

    learning_rate: Annotated[float, Field(gt=0, le=1000)] = 1e-5
    """The learning rate that the schedule starts from."""

    weight_decay: Annotated[float, Field(ge=0, le=1000)] = 0.01
    """Weight decay."""

    momentum: ShareOrNone = 0.9
    """Of sgd."""

    clip_norm: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Gradients of a larger norm are scaled down to it; 0 leaves them alone."""


class ScheduleSettings(Settings):
    """How the learning rate moves; the defaults are the reference system's."""

    section: ClassVar[str] = "schedule"

    name: Literal["plateau", "cosine", "constant"] = "plateau"
    """`plateau` (cut by `factor` when the selection loss has not fallen by the relative `threshold`
    for more than `patience` epochs), `cosine` (to 0 at the last step, after a linear `warmup`), or
    `constant`."""

    patience: EpochsOrNone = 3
    """Epochs, of plateau."""

    factor: Share = 0.3
    """Of plateau."""

    threshold: ShareOrNone = 1e-4
    """Relative, of plateau."""

    warmup: ShareOrNone = 0.0
    """Share of all steps in which the rate rises from 0, of cosine."""


class SelectionSettings(Settings):
    """On which exams the epoch is selected, and when training stops early."""

    section: ClassVar[str] = "selection"

    part: Literal["inner", "valid"] = "inner"
    """`inner` (a stratified share of the training exams that is not trained on; `valid` is touched
    once, at the end), or `valid` (as the post does; the result is optimistic and marked so)."""

    fraction: Share = 0.15
    """The inner share of the training exams."""

    metric: Literal["mean_auc", "loss"] = "mean_auc"
    """What the best epoch has most of: `mean_auc`, or least of: `loss`."""

    early_stop: EpochsOrNone = 10
    """Stop when the metric has not improved for this many epochs; 0 never stops."""

    @property
    def monitor(self) -> str:
        """The metric's name among an epoch's metrics."""
        return {"mean_auc": "auc_mean", "loss": "loss"}[self.metric]

    @property
    def mode(self) -> Literal["max", "min"]:
        """Whether more or less of it is better."""
        return "max" if self.metric == "mean_auc" else "min"


def _finding_names(given: object) -> object:
    """`acl,meniscus` or a list of names as a list, in the usual order."""
    names = given.strip("[]").split(",") if isinstance(given, str) else given
    names = list(names) if isinstance(names, tuple) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return given
    from mrknee.exams import Findings  # it imports numpy

    try:
        return list(Findings.usual(name.strip().lower() for name in names))
    except MrkneeError as fault:
        raise cannot_be_used(
            "findings",
            why=fault.what,
            expected=fault.expected or "each finding once",
            found=fault.found,
        ) from None


def _logger_names(given: object) -> object:
    """`tensorboard`, `tensorboard,wandb`, `tensorboard wandb`, `[wandb]`, `none` or a list."""
    names = given.strip("[]").replace(",", " ").split() if isinstance(given, str) else given
    names = list(names) if isinstance(names, tuple) else names
    if names is None or names in (["none"], ["null"]):
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return given
    known = get_args(LoggerName)
    odd = [name for name in names if name not in known]
    if odd or len(set(names)) < len(names) or given == "":
        near = meant(odd[0], known, {}) if odd else None
        raise cannot_be_used(
            "loggers",
            expected=f"some of {', '.join(known)}, each once; or none",
            found=str(given),
            advice=None if near is None else f"did you mean {near}?",
        )
    return [name for name in known if name in names]


def _axes_names(given: object) -> object:
    """`rows, cols, slices` without the spaces."""
    if not isinstance(given, str):
        return given
    from mrknee.exams.axes import parse_axes  # it imports numpy

    try:
        return ",".join(parse_axes(given))
    except MrkneeError as fault:
        raise cannot_be_used("axes", expected=fault.expected, found=fault.found) from None


class Recipe(Settings):
    """All settings of a training run.

    Raises:
        SettingsError: a setting that doesn't exist, of another type or out of its range, or
            settings that contradict each other.
    """

    findings: Annotated[
        list[str] | None,
        BeforeValidator(_finding_names, json_schema_input_type=list[str] | str | None),
    ] = None
    """Which findings to learn, each with a label file: a list, or names with commas between; all
    there are where not given. One name trains the earlier post's single-finding system."""

    network: NetworkSettings = NetworkSettings()
    """The network."""

    weights: str = "download"
    """Where it starts: `download` (the library's ImageNet weights for the encoders), `lite0` (the
    optional extra), a FILE of encoder weights, run:PATH (all that fits of a trained run, which may
    have other findings or series), or `none` (random)."""

    preparation: PreparationSettings = PreparationSettings()
    """From stack to input."""

    augmentation: AugmentationSettings = AugmentationSettings()
    """What is drawn for training."""

    optimizer: OptimizerSettings = OptimizerSettings()
    """How weights are stepped."""

    schedule: ScheduleSettings = ScheduleSettings()
    """How the learning rate moves."""

    selection: SelectionSettings = SelectionSettings()
    """Which epoch is kept."""

    pos_weight: Literal["balanced", "none"] = "balanced"
    """`balanced` weighs a finding's positive exams by negatives / positives among the exams trained
    on; `none` weighs all alike."""

    epochs: Epochs = 50
    """At most this many."""

    batch_exams: Annotated[int, Field(ge=1, le=4096)] = 1
    """Exams per batch, at most; where several processes train, of all together."""

    batch_slices: Count | None = None
    """Maximum number of slices per batch, all series together, so that memory suffices whatever
    exams come together; an exam with more is a batch of its own. Only exams are counted where not
    given."""

    slices_at_once: Annotated[int, Field(ge=-1, le=_MANY)] = 0
    """Slices that go through an encoder together while training, so that memory is that of so many
    slices, whatever the batch, for one more forward pass; gradients are the same to rounding. 0
    takes all slices of a batch; -1 takes 4 on a processor and 64 on a GPU. With network.batchnorm
    trained, whose statistics are the batch's, -1 takes all, and another number is refused."""

    accumulate: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Batches per step of the optimizer; the gradient is that of the mean over the labels of all of
    them, also where an epoch ends with fewer."""

    seed: Annotated[int, Field(ge=SEED.low, le=SEED.high)] = 0
    """Of weights, splits, shuffling and augmentation."""

    precision: Literal["32-true", "bf16-mixed", "16-mixed", "auto"] = "32-true"
    """32-true, bf16-mixed, 16-mixed (on a GPU), or auto: bf16-mixed where the processor has
    instructions for it, else 32-true (without them bfloat16 is up to 70 times slower)."""

    save_every: Annotated[int, Field(ge=0, le=_MANY)] = 50
    """Save what --resume goes on from every so many steps, and after every epoch; 0 saves after
    every epoch only. At most so many steps are lost when a run is killed."""

    keep_every_epoch: bool = False
    """Keep every epoch's weights, named after their AUCs."""

    loggers: Annotated[
        list[LoggerName],
        BeforeValidator(_logger_names, json_schema_input_type=list[LoggerName] | str | None),
    ] = ["tensorboard"]  # noqa: RUF012  # pydantic copies it
    """Where curves go beside metrics.csv: tensorboard, wandb, mlflow, several (a list, or names
    with commas or spaces between), or none."""

    log_train: Count = 50
    """A log line every so many training exams."""

    log_valid: Count = 10
    """A log line every so many validation exams."""

    calibration: Literal["platt", "none"] = "platt"
    """What is fitted on the inner exams so that a probability of 0.3 means three of ten: platt
    (slope and intercept per finding), or none. Without inner exams nothing is fitted."""

    sensitivity: Share = 0.9
    """Of the second operating point fixed on the inner exams; the first is Youden's."""

    max_exams: Count | None = None
    """Train and select on at most so many exams, drawn from `train` at its mix of labels, for a
    quick look; all where not given."""

    workers: Annotated[int, Field(ge=WORKERS.low, le=WORKERS.high)] = -1
    """Processes that read exams; -1 takes one per core but one, 4 at most."""

    allow_missing_plane: bool = False
    """Accept exams that lack series."""

    soft_labels: bool = False
    """Take any number from 0 to 1 for a label, such as the share of readers who saw the finding;
    else only 0, 1 and nothing."""

    axes: Annotated[str | None, BeforeValidator(_axes_names)] = None
    """The order of the files' axes where it is another than slices,rows,cols, such as
    rows,cols,slices; where not given, stacks that seem to be in another order are refused."""

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Any:  # noqa: ANN401  # itself
        if self.slices_at_once > 0 and self.network.batchnorm == "trained":
            raise SettingsError(
                "slices_at_once and network.batchnorm trained can't be used together",
                code="setting",
                expected="batch statistics of whole batches: slices_at_once 0; or frozen ones: "
                "network.batchnorm frozen",
                found=f"slices_at_once {self.slices_at_once}, network.batchnorm trained",
                advice="to save memory with trained statistics, lower batch_exams or batch_slices",
            )
        return self

    def to_yaml(self) -> str:
        """The whole tree as YAML; `load_recipe` reads it back."""
        return dump(self.to_dict())


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(file.stem for file in _RECIPES.glob("*.yaml"))


def load_recipe(name_or_file: str = "default", changes: Mapping[str, Any] | None = None) -> Recipe:
    """Reads a recipe and changes some of its settings.

    Args:
        name_or_file: a name from `recipe_names()` or a YAML file, which has to be right by itself.
        changes: dotted setting -> value, for example {"network.encoder": "resnet50"}.

    Raises:
        SettingsError: no such recipe, a file that can't be read, or settings that can't be used.
    """
    recipe, tree = read_recipe(name_or_file)
    for name, value in (changes or {}).items():
        *parents, last = name.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
            if not isinstance(branch, dict):
                raise unknown_setting(name, Recipe)
        value = value.to_dict() if isinstance(value, Settings) else value
        branch[last] = dict(value) if isinstance(value, dict) else value
    if changes:
        recipe = Recipe.model_validate(tree)
    return _with_statistics(recipe, dict(flat_settings(tree)))


def read_recipe(name_or_file: str) -> tuple[Recipe, dict[str, Any]]:
    """A recipe as its file states it, and the tree of the settings that are stated.

    Settings that follow others, such as the mean that an encoder expects, have their defaults.

    Raises:
        SettingsError: no such recipe, a file that can't be read, or settings that can't be used.
    """
    named = _RECIPES / f"{name_or_file}.yaml"
    file = named if name_or_file in recipe_names() else Path(name_or_file)
    if not file.is_file():
        raise SettingsError(
            f"there is no recipe {name_or_file!r}",
            code="recipe",
            expected="a YAML file, or one of " + ", ".join(recipe_names()),
        )
    tree = read_tree(file)
    try:
        return Recipe.model_validate(tree), tree
    except SettingsError as fault:
        raise fault.in_file(file) from None


def flat_settings(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of each setting of a recipe's tree."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat_settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _with_statistics(recipe: Recipe, given: Collection[str]) -> Recipe:
    """The recipe with the mean and SD that its encoder expects, where they are not given."""
    missing = [name for name in ("mean", "sd") if f"preparation.{name}" not in given]
    if not missing:
        return recipe
    from mrknee.networks.encoders import input_statistics  # it imports torch and timm

    expected = dict(zip(("mean", "sd"), input_statistics(recipe.network.encoder), strict=True))
    changes = {name: expected[name] for name in missing}
    return recipe.replace(preparation=recipe.preparation.replace(**changes))
