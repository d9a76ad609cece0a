"""The settings of a training run: a tree of typed settings, with instances in `recipes/*.yaml`.

Importing this module imports neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from mrknee.errors import MrkneeError, SettingsError
from mrknee.files import is_file
from mrknee.models.settings import NetworkSettings
from mrknee.ranges import SEED, WORKERS
from mrknee.settings import Settings, invalid_setting, unknown_setting
from mrknee.suggestions import suggest
from mrknee.training.recipe_yaml import dump, read_yaml
from mrknee.transforms.settings import AugmentationSettings, PreparationSettings

LoggerName = Literal["tensorboard", "wandb", "mlflow"]

_RECIPES = Path(__file__).parent / "recipes"

_MAX_COUNT = 1_000_000
"""Upper limit of exams, slices and steps, larger than any data set of knees needs. Like other
limits without a mathematical reason, it catches typing errors and is not a recommendation."""

MIRROR = "augmentation.mirror"
"""The setting that contradicts canonical sides."""

Count = Annotated[int, Field(ge=1, le=_MAX_COUNT)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]
EpochsOrNone = Annotated[int, Field(ge=0, le=100_000)]
Share = Annotated[float, Field(gt=0, lt=1)]
ShareOrNone = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    """Settings of the optimizer; the defaults are those of the reference system."""

    section: ClassVar[str] = "optimizer"

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """`adam` (weight decay added to the gradient, as PyTorch's Adam does), `adamw` (decoupled), or
    `sgd` (with Nesterov momentum if momentum is above 0)."""

    learning_rate: Annotated[float, Field(gt=0, le=1000)] = 1e-5
    """Initial learning rate of the schedule."""

    weight_decay: Annotated[float, Field(ge=0, le=1000)] = 0.01
    """Weight decay."""

    momentum: ShareOrNone = 0.9
    """Momentum of sgd."""

    clip_norm: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Maximum norm of the gradients, which are scaled down to it; 0 turns clipping off."""

    stage_decay: Annotated[float, Field(ge=0.01, le=1)] = 1.0
    """Layer-wise decay of the learning rate of the encoders: the last stage has `learning_rate`
    times this factor, the stage before it times its square, and so on down to the input. Everything
    outside the encoders keeps the full rate. 1 gives all stages the same rate."""

    head_learning_rate: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Initial learning rate of everything outside the encoders, such as the last layer and
    attention; `learning_rate` if not given. The schedule changes both by the same factors."""

    decay_norms: bool = True
    """Apply weight decay also to biases, to the weights of normalisation layers, and to what timm
    excludes for the encoder, such as position embeddings."""


class ScheduleSettings(Settings):
    """Settings of the learning rate; the defaults are those of the reference system."""

    section: ClassVar[str] = "schedule"

    name: Literal["plateau", "cosine", "one_cycle", "constant"] = "plateau"
    """`plateau` (cut by `factor` when the selection loss has not fallen by the relative `threshold`
    for more than `patience` epochs), `cosine` (to 0 at the last step, after a linear `warmup`),
    `one_cycle` (PyTorch's OneCycleLR: half a cosine up to `learning_rate` in the share `pct_start`
    of the steps, then half a cosine down; momentum stays), or `constant`."""

    patience: EpochsOrNone = 3
    """Patience of plateau, in epochs."""

    factor: Share = 0.3
    """Factor of plateau."""

    threshold: ShareOrNone = 1e-4
    """Relative threshold of plateau."""

    warmup: ShareOrNone = 0.0
    """Share of all steps in which the learning rate rises from 0, for cosine."""

    pct_start: Share = 0.3
    """Share of all steps in which the learning rate rises, for one_cycle. It starts at a 25th of
    `learning_rate` and ends at a 10,000th of that start."""


class SelectionSettings(Settings):
    """Settings of the selection of the best epoch, and of early stopping."""

    section: ClassVar[str] = "selection"

    part: Literal["inner", "valid"] = "inner"
    """`inner` (a stratified share of the training exams that is not trained on; `valid` is used
    once, at the end), or `valid` (as in the post; the result is optimistic and marked as such)."""

    fraction: Share = 0.15
    """Share of the training exams in the inner part."""

    metric: Literal["mean_auc", "loss"] = "mean_auc"
    """Metric that selects the epoch: `mean_auc` (highest) or `loss` (lowest)."""

    early_stop: EpochsOrNone = 10
    """Stop when the metric has not improved for this many epochs; 0 never stops."""

    @property
    def monitor(self) -> str:
        """Name of the metric among the metrics of an epoch."""
        return {"mean_auc": "auc_mean", "loss": "loss"}[self.metric]

    @property
    def mode(self) -> Literal["max", "min"]:
        """Whether a higher or a lower value of the metric is better."""
        return "max" if self.metric == "mean_auc" else "min"


def _parse_findings(given: object) -> object:
    """Converts `acl,meniscus` or a list of names to a list in the usual order."""
    names = given.strip("[]").split(",") if isinstance(given, str) else given
    names = list(names) if isinstance(names, tuple) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return given
    from mrknee.exams import Findings  # it imports numpy

    try:
        return list(Findings.usual(name.strip().lower() for name in names))
    except MrkneeError as error:
        raise invalid_setting(
            "findings",
            why=error.what,
            expected=error.expected or "each finding once",
            found=error.found,
        ) from None


def _parse_series(given: object) -> object:
    """Converts `axial,sagittal` or a list of names to a list in lower case."""
    names = given.strip("[]").split(",") if isinstance(given, str) else given
    names = list(names) if isinstance(names, tuple) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return given
    names = [name.strip().lower() for name in names]
    if not all(names) or len(set(names)) < len(names) or not names:
        raise invalid_setting("series", expected="names of series, each once", found=str(given))
    return names


def _parse_loggers(given: object) -> object:
    """Converts names with commas or spaces between them, `[wandb]`, `none` or a list to a list."""
    names = given.strip("[]").replace(",", " ").split() if isinstance(given, str) else given
    names = list(names) if isinstance(names, tuple) else names
    if names is None or names in (["none"], ["null"]):
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return given
    known = get_args(LoggerName)
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < len(names) or given == "":
        suggestion = suggest(unknown[0], known, {}) if unknown else None
        raise invalid_setting(
            "loggers",
            expected=f"some of {', '.join(known)}, each once; or none",
            found=str(given),
            advice=None if suggestion is None else f"did you mean {suggestion}?",
        )
    return [name for name in known if name in names]


def _parse_axes(given: object) -> object:
    """Converts `rows, cols, slices` to `rows,cols,slices`."""
    if not isinstance(given, str):
        return given
    from mrknee.exams.axes import parse_axes  # it imports numpy

    try:
        return ",".join(parse_axes(given))
    except MrkneeError as error:
        raise invalid_setting("axes", expected=error.expected, found=error.found) from None


class Recipe(Settings):
    """All settings of a training run.

    Raises:
        SettingsError: a setting is unknown, has the wrong type or is out of range, or settings
            contradict each other.
    """

    findings: Annotated[
        list[str] | None,
        BeforeValidator(_parse_findings, json_schema_input_type=list[str] | str | None),
    ] = None
    """Findings to learn, each with a label file: a list, or names separated by commas; all that
    have a label file if not given. One name trains the earlier post's single-finding system."""

    series: Annotated[
        list[str] | None,
        BeforeValidator(_parse_series, json_schema_input_type=list[str] | str | None),
    ] = None
    """Series to use: a list, or names separated by commas; all of the data set if not given. Each
    exam must have at least one of them."""

    network: NetworkSettings = NetworkSettings()
    """The network."""

    weights: str = "download"
    """Initial weights: `download` (the library's ImageNet weights for the encoders), `lite0` (the
    optional extra), a FILE of encoder weights, run:PATH (all matching weights of a trained run,
    which may have other findings or series), or `none` (random)."""

    preparation: PreparationSettings = PreparationSettings()
    """Conversion of stacks to the network's input."""

    augmentation: AugmentationSettings = AugmentationSettings()
    """Random augmentation of the training exams."""

    optimizer: OptimizerSettings = OptimizerSettings()
    """The optimizer."""

    schedule: ScheduleSettings = ScheduleSettings()
    """The schedule of the learning rate."""

    selection: SelectionSettings = SelectionSettings()
    """Selection of the best epoch, and early stopping."""

    pos_weight: Literal["balanced", "none"] = "balanced"
    """Weight of the positive exams of each finding: `balanced` (negatives / positives among the
    exams trained on), or `none` (1)."""

    finding_weights: dict[str, Annotated[float, Field(gt=0, le=1000)]] | None = None
    """Weight of each finding's labels in the loss, for example {acl: 2.0}; findings that are not
    named have 1. As in PyTorch's BCEWithLogitsLoss, the mean is over labels, not over weights, so
    larger weights give larger gradients."""

    epochs: Epochs = 50
    """Maximum number of epochs."""

    batch_exams: Annotated[int, Field(ge=1, le=4096)] = 1
    """Maximum number of exams per batch, in all processes together."""

    batch_slices: Count | None = None
    """Maximum number of slices per batch, all series together, which limits memory; an exam with
    more slices is a batch of its own. No limit if not given."""

    slices_at_once: Annotated[int, Field(ge=-1, le=_MAX_COUNT)] = 0
    """Number of slices that pass through an encoder together in training. Lower numbers save memory
    with any batch, at the cost of one more forward pass; gradients are the same to rounding. 0
    takes all slices of a batch; -1 takes 4 on a processor and 64 on a GPU. With network.batchnorm
    trained, which needs the statistics of the batch, -1 takes all, and positive numbers are
    refused."""

    slices_per_series: Count | None = None
    """Maximum number of slices of each series that an exam is trained on in an epoch. A longer
    series is divided into as many equal segments, and one slice of each is drawn at random. Exams
    that are only read keep all their slices. No limit if not given."""

    feature_cache: Annotated[str, Field(min_length=1)] | None = None
    """Folder in which the feature maps of frozen encoders are stored (as float16), so that they are
    computed only once, and an epoch trains only what comes after them. Runs can share a folder.
    Requires that all stages are frozen (network.frozen_stages) and that slices are not augmented,
    except by mirroring. Not used if not given."""

    accumulate: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Gradient accumulation: batches per optimizer step. The gradient is that of the mean loss over
    the labels of these batches, also if an epoch ends with fewer."""

    ema: Share | None = None
    """Decay per optimizer step of an exponential moving average of the weights, such as 0.999. The
    averaged weights are those that are evaluated, selected and saved. Not used if not given."""

    average_last: Count | None = None
    """Number of epochs whose final weights are averaged, the current epoch included. The averaged
    weights are those that are evaluated, selected and saved. The state for --resume contains the
    weights of all these epochs. Not used if not given."""

    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    """Number of folds of a cross-validation: `train` is divided into as many parts of about equal
    size and prevalences, with complete groups (groups.csv). One network is trained per fold, on the
    other folds, and predicts the fold; the split `valid` is not read. No folds if not given."""

    fold: Annotated[int, Field(ge=1, le=100)] | None = None
    """The fold that is held out, from 1 to `folds`; all in turn if not given."""

    seed: Annotated[int, Field(ge=SEED.low, le=SEED.high)] = 0
    """Seed of weights, splits, shuffling and augmentation."""

    precision: Literal["32-true", "bf16-mixed", "16-mixed", "auto"] = "32-true"
    """32-true, bf16-mixed, 16-mixed (on a GPU), or auto: bf16-mixed if the processor has
    instructions for it, else 32-true (without them bfloat16 is up to 70 times slower)."""

    save_every: Annotated[int, Field(ge=0, le=_MAX_COUNT)] = 50
    """Steps between saves of the state for --resume, the maximum lost when a run is killed; the
    state is also saved after every epoch, and with 0 only then."""

    keep_every_epoch: bool = False
    """Keep the weights of every epoch, in folders named after the AUCs."""

    loggers: Annotated[
        list[LoggerName],
        BeforeValidator(_parse_loggers, json_schema_input_type=list[LoggerName] | str | None),
    ] = ["tensorboard"]  # noqa: RUF012  # pydantic copies it
    """Loggers of curves, in addition to metrics.csv: tensorboard, wandb, mlflow, several (a list or
    names separated by commas or spaces), or none."""

    log_train: Count = 50
    """Training exams between log lines."""

    log_valid: Count = 10
    """Validation exams between log lines."""

    calibration: Literal["platt", "none"] = "platt"
    """Calibration fitted on the inner exams, so that 0.3 means three of ten: platt (slope and
    intercept per finding), or none. Without inner exams, nothing is fitted."""

    sensitivity: Share = 0.9
    """Sensitivity of the second operating point fixed on the inner exams; the first is Youden's."""

    max_exams: Count | None = None
    """Maximum number of exams to train and select on, drawn from `train` with the same mix of
    labels, for quick experiments; all if not given."""

    workers: Annotated[int, Field(ge=WORKERS.low, le=WORKERS.high)] = -1
    """Number of processes that read exams; -1 takes one per core except one, at most 4."""

    allow_missing_plane: bool = False
    """Accept exams that lack series."""

    soft_labels: bool = False
    """Accept any number from 0 to 1 as a label, such as the share of readers who saw the finding;
    otherwise only 0, 1 and empty."""

    axes: Annotated[str | None, BeforeValidator(_parse_axes)] = None
    """Order of the axes in the files if it isn't slices,rows,cols, for example rows,cols,slices; if
    not given, stacks that seem to have another order are refused."""

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Any:  # noqa: ANN401  # itself
        if self.slices_at_once > 0 and self.network.batchnorm == "trained":
            raise SettingsError(
                "slices_at_once and network.batchnorm trained can't be used together",
                code="setting",
                expected="slices_at_once 0 (statistics of complete batches), or "
                "network.batchnorm frozen",
                found=f"slices_at_once {self.slices_at_once}, network.batchnorm trained",
                advice="to save memory with trained statistics, reduce batch_exams or batch_slices",
            )
        if self.feature_cache is not None and self.changing_slices:
            raise SettingsError(
                "feature_cache can't be used with slices that differ in each epoch",
                code="setting",
                expected="augmentation by mirroring only, and no slices_per_series",
                found=", ".join(self.changing_slices),
                advice="set them to 0, or train without feature_cache",
            )
        if self.fold is not None and (self.folds is None or self.fold > self.folds):
            raise SettingsError(
                "the setting fold can't be used",
                code="setting",
                expected="folds, and a fold from 1 to their number",
                found=f"fold {self.fold}, "
                + ("without folds" if self.folds is None else f"folds {self.folds}"),
            )
        if self.ema is not None and self.average_last is not None:
            raise SettingsError(
                "ema and average_last can't be used together",
                code="setting",
                expected="one average of the weights: over steps (ema) or epochs (average_last)",
                found=f"ema {self.ema:g}, average_last {self.average_last}",
            )
        return self

    @property
    def changing_slices(self) -> list[str]:
        """The settings, as text, by which an exam's slices differ in each epoch."""
        changing = [
            f"augmentation.{name}"
            for name in ("rotation", "translation", "gamma", "bias_field", "noise")
            if getattr(self.augmentation, name)
        ]
        if self.slices_per_series is not None:
            changing.append(f"slices_per_series {self.slices_per_series}")
        return changing

    def to_yaml(self) -> str:
        """Returns all settings as YAML, which `load_recipe` can read."""
        return dump(self.to_dict())


FROM_ENCODER = frozenset({"preparation.mean", "preparation.sd"})
"""Settings that follow the encoder unless a recipe states them."""


def recipe_names() -> list[str]:
    """Returns the names of the recipes that come with the package."""
    return sorted(file.stem for file in _RECIPES.glob("*.yaml"))


def load_recipe(name_or_file: str = "default", changes: Mapping[str, Any] | None = None) -> Recipe:
    """Reads a recipe and changes some of its settings.

    Args:
        name_or_file: a name from `recipe_names()` or a YAML file, valid also without the changes.
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
    return _with_encoder_statistics(recipe, dict(flat_settings(tree)))


def load_recipe_for(
    data: Path, name_or_file: str = "default", changes: Mapping[str, Any] | None = None
) -> Recipe:
    """Reads a recipe, as `load_recipe`, for training on a data set.

    If all knees of the data set are shown as one side (`has_canonical_sides`), exams are not
    mirrored by a recipe of the package: `augmentation.mirror` is 0 unless `changes` contain it.

    Args:
        data: the data set's folder.
        name_or_file: as for `load_recipe`.
        changes: as for `load_recipe`.

    Raises:
        MrkneeError: as `load_recipe`; or `sides.csv` is invalid.
    """
    from mrknee.exams import has_canonical_sides  # it imports numpy

    recipe = load_recipe(name_or_file, changes)
    stated = {"augmentation", MIRROR} & set(changes or ())
    if name_or_file in recipe_names() and not stated and has_canonical_sides(data):
        return recipe.replace(augmentation=recipe.augmentation.replace(mirror=0.0))
    return recipe


def read_recipe(name_or_file: str) -> tuple[Recipe, dict[str, Any]]:
    """Reads a recipe; returns it together with the tree of the settings that its file states.

    Settings that depend on others, such as the mean that an encoder expects, have their defaults.

    Raises:
        SettingsError: no such recipe, a file that can't be read, or settings that can't be used.
    """
    packaged = _RECIPES / f"{name_or_file}.yaml"
    file = packaged if name_or_file in recipe_names() else Path(name_or_file)
    if not is_file(file):
        raise SettingsError(
            f"there is no recipe {name_or_file!r}",
            code="recipe",
            expected="a YAML file, or one of " + ", ".join(recipe_names()),
        )
    tree = read_yaml(file)
    try:
        return Recipe.model_validate(tree), tree
    except SettingsError as error:
        raise error.in_file(file) from None


def flat_settings(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted name and value of each setting of a recipe's tree."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat_settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def with_defaults(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the saved settings of a recipe, with defaults for those of later versions.

    Args:
        saved: settings as returned by `Recipe.to_dict`, in this or an earlier version.
    """
    settings = Recipe().to_dict()
    for name, value in saved.items():
        section = settings.get(name)
        if isinstance(section, dict) and isinstance(value, Mapping):
            section.update(value)
        else:
            settings[name] = value
    return settings


def _with_encoder_statistics(recipe: Recipe, given: Collection[str]) -> Recipe:
    """Fills in the mean and SD that the encoder expects, unless they are given."""
    missing = [name for name in FROM_ENCODER if name not in given]
    if not missing:
        return recipe
    from mrknee.models.encoders import input_statistics  # it imports torch and timm

    mean, sd = input_statistics(recipe.network.encoder)
    expected = {"preparation.mean": mean, "preparation.sd": sd}
    changes = {name.removeprefix("preparation."): expected[name] for name in missing}
    return recipe.replace(preparation=recipe.preparation.replace(**changes))
