"""The plan of an experiment: arms (named changes to a recipe) and seeds, read from a YAML file."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from mrknee.errors import SettingsError
from mrknee.ranges import SEED
from mrknee.settings import Settings, invalid_setting, unknown_setting
from mrknee.suggestions import suggest
from mrknee.training.recipe import Recipe, flat_settings, load_recipe_for, recipe_names
from mrknee.training.recipe_yaml import read_yaml

_ARM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}")
_CHANGES = "settings of a recipe with their values, {} for none"

SEED_OFFSET = "seed_offset"
"""Key of an arm, beside settings: a number that is added to each seed of the plan."""


def _flat(name: str, given: object) -> dict[str, Any]:
    """Returns dotted setting -> value of a mapping whose settings are dotted or nested.

    Args:
        name: the mapping's place in the plan, for messages.
        given: the mapping; None counts as an empty one.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise invalid_setting(name, expected=_CHANGES, found=repr(given))
    flat: dict[str, Any] = {}
    for setting, value in flat_settings(given):
        if setting in flat:
            raise invalid_setting(
                name, expected="each setting once", found=f"{setting}, dotted and nested"
            )
        flat[setting] = value
    if "seed" in flat:
        raise invalid_setting(
            name,
            expected="settings other than seed",
            found=f"seed: {flat['seed']}",
            advice="list the seeds of all arms under seeds",
        )
    return flat


def _arms(given: object) -> dict[str, dict[str, Any]]:
    if not isinstance(given, Mapping) or not given:
        raise invalid_setting(
            "arms", expected="arms by name, each with settings", found=repr(given)
        )
    _check_names("arms", given)
    return {name: _arm(f"arms.{name}", one) for name, one in given.items()}


def _arm(name: str, given: object) -> dict[str, Any]:
    settings = _flat(name, given)
    offset = settings.get(SEED_OFFSET, 1)
    if type(offset) is not int or offset not in SEED or offset == 0:
        raise invalid_setting(
            f"{name}.{SEED_OFFSET}",
            expected="a whole number from 1, which is added to each seed of the plan",
            found=repr(offset),
        )
    return settings


def _combined(given: object) -> dict[str, list[str]]:
    if not isinstance(given, Mapping):
        raise invalid_setting("combined", expected="lists of arms by name", found=repr(given))
    _check_names("combined", given)
    for name, arms in given.items():
        if (
            not isinstance(arms, list)
            or len(arms) < 2
            or not all(isinstance(arm, str) for arm in arms)
            or len(set(arms)) < len(arms)
        ):
            raise invalid_setting(
                f"combined.{name}",
                expected="a list of at least two arms, each once",
                found=repr(arms),
            )
    return {name: list(arms) for name, arms in given.items()}


def _check_names(setting: str, given: Collection[object]) -> None:
    """Refuses names that can't become names of folders."""
    seen: dict[str, str] = {}
    for name in given:
        if not isinstance(name, str) or not _ARM.fullmatch(name):
            raise invalid_setting(
                setting,
                why="an arm's name becomes a folder's",
                expected="names of letters, digits and . _ + = -, that begin with a letter or a "
                "digit, of at most 100 characters",
                found=repr(name),
            )
        if name.lower() in seen:
            raise invalid_setting(
                setting,
                expected="names that differ in more than upper and lower case",
                found=f"{seen[name.lower()]} and {name}",
            )
        seen[name.lower()] = name


def _seeds(given: object) -> list[int]:
    expected = f"a list of seeds, each {SEED} and once"
    if not isinstance(given, list) or not given:
        raise invalid_setting("seeds", expected=expected, found=repr(given))
    odd = [seed for seed in given if seed not in SEED or given.count(seed) > 1]
    if odd:
        raise invalid_setting("seeds", expected=expected, found=repr(odd[0]))
    return given


def _common_settings(given: object) -> dict[str, Any]:
    settings = _flat("settings", given)
    if SEED_OFFSET in settings:
        raise invalid_setting(
            "settings",
            expected=f"settings of a recipe; {SEED_OFFSET} belongs to a single arm",
            found=f"{SEED_OFFSET}: {settings[SEED_OFFSET]}",
        )
    return settings


class Plan(Settings):
    """The plan of an experiment.

    Raises:
        SettingsError: a key is unknown, or a value can't be used.
    """

    keys_listed_in: ClassVar[str] = "docs/how-to/experiments.md describes plans"

    recipe: str = "default"
    """The recipe that the arms change: a name, or a YAML file, relative to the plan's folder."""

    settings: Annotated[dict[str, Any], BeforeValidator(_common_settings)] = Field(
        default_factory=dict
    )
    """Changes to the recipe in all arms, such as `epochs: 10` or `findings: [acl]`."""

    arms: Annotated[dict[str, dict[str, Any]], BeforeValidator(_arms)]
    """Name -> changes to the recipe, after those of all arms. The key `recipe` in an arm names
    another recipe for it; `seed_offset` is added to each seed, for arms that differ in it only."""

    combined: Annotated[dict[str, list[str]], BeforeValidator(_combined)] = Field(
        default_factory=dict
    )
    """Name -> arms whose networks are used together, like one arm. The probability of a finding is
    the mean over those of these arms that learn it: three networks of one finding each become one
    system, three networks of the same findings an ensemble."""

    compare: list[str] | None = None
    """The arms and combined arms that are compared, in the order of tables; all if not given. The
    others are only trained, as parts of combined arms."""

    seeds: Annotated[list[int], BeforeValidator(_seeds)]
    """Seeds; each arm is trained once with each of them."""

    baseline: str
    """The arm that all others are compared with; it may be a combined one."""

    other_baselines: dict[str, str | None] = Field(default_factory=dict)
    """Arm -> the arm that it is compared with in place of `baseline`; null: with none."""

    primary: str | None = None
    """The arm whose difference in mean AUC is the primary result of the experiment. It is excluded
    from Holm's correction; this is honest only if it was stated before the first result."""

    margin: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Differences in AUC up to this size don't matter; each comparison gets a verdict (better,
    worse, equivalent, not settled). No verdicts if not given."""

    within: str | None = None
    """A finding; the AUCs of the others are also computed among the exams that have it only."""

    @property
    def compared(self) -> list[str]:
        """Names of the arms and combined arms that are compared, the baseline first."""
        names = [*self.arms, *self.combined] if self.compare is None else self.compare
        return sorted(names, key=lambda name: name != self.baseline)

    @property
    def first_arm(self) -> str:
        """Name of the baseline, or of its first arm if it is a combined one."""
        return self.members(self.baseline)[0]

    @property
    def compared_arms(self) -> list[str]:
        """Names of the arms that are compared, alone or as parts of combined arms."""
        return [a for a in self.arms if any(a in self.members(name) for name in self.compared)]

    @property
    def seed_offsets(self) -> dict[str, int]:
        """Arm -> the number that is added to each seed."""
        return {arm: int(changes.get(SEED_OFFSET, 0)) for arm, changes in self.arms.items()}

    def members(self, name: str) -> list[str]:
        """Returns the arms that an arm or combined arm consists of."""
        return self.combined.get(name, [name])

    def seed(self, arm: str, seed: int) -> int:
        """Returns the seed that an arm is trained with, for a seed of the plan."""
        return seed + self.seed_offsets[arm]


def read_plan(file: Path) -> Plan:
    """Reads a plan and checks its baseline; the arms' recipes are checked by `arm_recipes`.

    Raises:
        SettingsError: the file can't be read, a key is unknown or missing, or a value can't be
            used.
    """
    try:
        tree = read_yaml(file, "plan", example="seeds: [0, 1, 2]")
        for name in tree:
            if name not in Plan.model_fields:
                raise unknown_setting(name, Plan)
        missing = [n for n, one in Plan.model_fields.items() if one.is_required() and n not in tree]
        if missing:
            raise SettingsError(
                f"a plan lacks {missing[0]}",
                code="setting",
                expected="arms, seeds and baseline",
                found=", ".join(tree),
            )
        plan = Plan.model_validate(tree)
        _check_references(plan)
    except SettingsError as fault:
        raise fault if fault.file else fault.in_file(file) from None
    return plan


def _check_references(plan: Plan) -> None:
    """Refuses names of arms that the plan doesn't have, where it refers to arms."""

    def refuse(setting: str, name: str, known: Collection[str]) -> None:
        if name not in known:
            near = suggest(name, known, {})
            raise invalid_setting(
                setting,
                expected="one of the arms: " + ", ".join(known),
                found=name,
                advice=None if near is None else f"did you mean {near}?",
            )

    every = [*plan.arms, *plan.combined]
    _check_names("combined", every)
    for name, arms in plan.combined.items():
        for arm in arms:
            refuse(f"combined.{name}", arm, plan.arms)
    for name in plan.compare or ():
        refuse("compare", name, every)
    if plan.compare is not None and len(set(plan.compare)) < len(plan.compare):
        raise invalid_setting("compare", expected="each arm once", found=", ".join(plan.compare))
    compared = plan.compared
    refuse("baseline", plan.baseline, compared)
    for name, other in plan.other_baselines.items():
        for one in (name, other):
            if one is not None:
                refuse("other_baselines", one, compared)
        if name == plan.baseline or name == other:
            raise invalid_setting(
                "other_baselines",
                expected="arms other than the baseline, each compared with another arm",
                found=f"{name}: {other}",
            )
    if plan.primary is not None:
        refuse("primary", plan.primary, compared)
        if plan.primary == plan.baseline:
            raise invalid_setting(
                "primary",
                expected="an arm other than the baseline, which it is compared with",
                found=plan.primary,
                advice=None if len(compared) > 1 else "leave primary out for a single arm",
            )


def arm_recipe(plan: Plan, file: Path, arm: str) -> tuple[str, dict[str, Any]]:
    """Returns the recipe of an arm (a name or a file), and the changes to its settings.

    Args:
        plan: the plan.
        file: the plan's file; recipe files are relative to its folder.
        arm: name of the arm.
    """
    changes = {**plan.settings, **plan.arms[arm]}
    recipe = str(changes.pop("recipe", plan.recipe))
    changes.pop(SEED_OFFSET, None)
    return recipe if recipe in recipe_names() else str(file.parent / recipe), changes


def arm_recipes(plan: Plan, file: Path, data: Path) -> dict[str, Recipe]:
    """Returns the complete recipe of each arm, with the plan's first seed.

    Args:
        plan: the plan.
        file: the plan's file; recipe files are relative to its folder.
        data: the data set's folder (`load_recipe_for`).

    Raises:
        SettingsError: a recipe or a setting of an arm can't be used, or two arms are the same.
    """
    recipes: dict[str, Recipe] = {}
    for arm in plan.arms:
        try:
            name, changes = arm_recipe(plan, file, arm)
            for seed in plan.seeds:
                SEED.check("a seed", plan.seed(arm, seed))
            seed = plan.seed(arm, plan.seeds[0])
            recipes[arm] = load_recipe_for(data, name, {**changes, "seed": seed})
        except SettingsError as fault:
            error = fault.about(f"arm {arm}")
            raise error if fault.file else error.in_file(file) from None
        if recipes[arm].folds is not None:
            raise SettingsError(
                f"arm {arm} has folds",
                code="setting",
                file=file,
                expected="no setting folds: the folds of an experiment are data sets, given one "
                "after another in place of DATA",
                found=f"folds {recipes[arm].folds}",
            )
        same = [other for other, one in recipes.items() if other != arm and one == recipes[arm]]
        if same:
            raise SettingsError(
                "two arms have the same settings",
                code="setting",
                file=file,
                expected="arms that differ from each other",
                found=f"{same[0]} and {arm}",
                advice="to repeat an arm, add seeds",
            )
    return recipes
