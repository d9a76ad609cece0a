"""The plan of an experiment: arms (named changes to a recipe) and seeds, read from a YAML file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from mrknee.errors import SettingsError
from mrknee.ranges import SEED
from mrknee.settings import Settings, invalid_setting, unknown_setting
from mrknee.suggestions import suggest
from mrknee.training.recipe import Recipe, flat_settings, load_recipe, recipe_names
from mrknee.training.recipe_yaml import read_yaml

_ARM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}")
_CHANGES = "settings of a recipe with their values, {} for none"


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
    seen: dict[str, str] = {}
    for name in given:
        if not isinstance(name, str) or not _ARM.fullmatch(name):
            raise invalid_setting(
                "arms",
                why="an arm's name becomes a folder's",
                expected="names of letters, digits and . _ + = -, that begin with a letter or a "
                "digit, of at most 100 characters",
                found=repr(name),
            )
        if name.lower() in seen:
            raise invalid_setting(
                "arms",
                expected="names that differ in more than upper and lower case",
                found=f"{seen[name.lower()]} and {name}",
            )
        seen[name.lower()] = name
    return {name: _flat(f"arms.{name}", one) for name, one in given.items()}


def _seeds(given: object) -> list[int]:
    expected = f"a list of seeds, each {SEED} and once"
    if not isinstance(given, list) or not given:
        raise invalid_setting("seeds", expected=expected, found=repr(given))
    odd = [seed for seed in given if seed not in SEED or given.count(seed) > 1]
    if odd:
        raise invalid_setting("seeds", expected=expected, found=repr(odd[0]))
    return given


class Plan(Settings):
    """The plan of an experiment.

    Raises:
        SettingsError: a key is unknown, or a value can't be used.
    """

    keys_listed_in: ClassVar[str] = "docs/how-to/experiments.md describes plans"

    recipe: str = "default"
    """The recipe that the arms change: a name, or a YAML file, relative to the plan's folder."""

    settings: Annotated[dict[str, Any], BeforeValidator(lambda given: _flat("settings", given))] = (
        Field(default_factory=dict)
    )
    """Changes to the recipe in all arms, such as `epochs: 10` or `findings: [acl]`."""

    arms: Annotated[dict[str, dict[str, Any]], BeforeValidator(_arms)]
    """Name -> changes to the recipe, after those of all arms. The key `recipe` in an arm names
    another recipe for it."""

    seeds: Annotated[list[int], BeforeValidator(_seeds)]
    """Seeds; each arm is trained once with each of them."""

    baseline: str
    """The arm that all others are compared with."""


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
        if plan.baseline not in plan.arms:
            near = suggest(plan.baseline, plan.arms, {})
            raise invalid_setting(
                "baseline",
                expected="one of the arms: " + ", ".join(plan.arms),
                found=plan.baseline,
                advice=None if near is None else f"did you mean {near}?",
            )
    except SettingsError as fault:
        raise fault if fault.file else fault.in_file(file) from None
    return plan


def arm_recipe(plan: Plan, file: Path, arm: str) -> tuple[str, dict[str, Any]]:
    """Returns the recipe of an arm (a name or a file), and the changes to its settings.

    Args:
        plan: the plan.
        file: the plan's file; recipe files are relative to its folder.
        arm: name of the arm.
    """
    changes = {**plan.settings, **plan.arms[arm]}
    recipe = str(changes.pop("recipe", plan.recipe))
    return recipe if recipe in recipe_names() else str(file.parent / recipe), changes


def arm_recipes(plan: Plan, file: Path) -> dict[str, Recipe]:
    """Returns the complete recipe of each arm, with the plan's first seed.

    Raises:
        SettingsError: a recipe or a setting of an arm can't be used, or two arms are the same.
    """
    recipes: dict[str, Recipe] = {}
    for arm in plan.arms:
        try:
            name, changes = arm_recipe(plan, file, arm)
            recipes[arm] = load_recipe(name, {**changes, "seed": plan.seeds[0]})
        except SettingsError as fault:
            error = fault.about(f"arm {arm}")
            raise error if fault.file else error.in_file(file) from None
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
