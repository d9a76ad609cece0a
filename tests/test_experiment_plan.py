"""Plans of experiments: valid ones, and one error with a suggestion per fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrknee.errors import SettingsError
from mrknee.experiment_plan import Plan, arm_recipe, arm_recipes, read_plan

GOOD = """\
recipe: small
settings: {epochs: 2}
arms:
  plain:
  sgd: {optimizer.name: sgd}
seeds: [0, 5]
baseline: plain
"""

EXPERIMENTS = Path(__file__).parent.parent / "experiments"

PLANS = [file for file in sorted(EXPERIMENTS.glob("*.yaml")) if "arms:" in file.read_text()]
"""Other files there are recipes that plans change."""


def written(folder: Path, text: str) -> Path:
    """Writes the file of a plan."""
    file = folder / "plan.yaml"
    file.write_text(text)
    return file


def fault_of(file: Path) -> SettingsError:
    """Returns the error of a plan or of its arms."""
    with pytest.raises(SettingsError) as raised:
        arm_recipes(read_plan(file), file, file.parent)
    return raised.value


def test_arms_change_the_recipe(tmp_path: Path) -> None:
    """An arm has the recipe's settings, changed by those of all arms, then by its own."""
    file = written(tmp_path, GOOD)
    plan = read_plan(file)
    assert plan == Plan(
        recipe="small",
        settings={"epochs": 2},
        arms={"plain": {}, "sgd": {"optimizer.name": "sgd"}},
        seeds=[0, 5],
        baseline="plain",
    )
    recipes = arm_recipes(plan, file, file.parent)
    assert [recipe.epochs for recipe in recipes.values()] == [2, 2]
    assert [recipe.optimizer.name for recipe in recipes.values()] == ["adamw", "sgd"]
    assert recipes["sgd"].optimizer.weight_decay == 0.05, "the demo's, not the default"


def test_nested_settings_are_the_dotted_ones(tmp_path: Path) -> None:
    """`optimizer: {name: sgd}` changes one setting of the section and keeps the others."""
    file = written(tmp_path, GOOD.replace("{optimizer.name: sgd}", "{optimizer: {name: sgd}}"))
    plan = read_plan(file)
    assert plan.arms["sgd"] == {"optimizer.name": "sgd"}
    assert arm_recipes(plan, file, file.parent)["sgd"].optimizer.weight_decay == 0.05


def test_recipe_files_are_relative_to_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working directory has no effect; an arm may have a recipe of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "mine.yaml").write_text("epochs: 7\nweights: none\n")
    text = GOOD.replace("settings: {epochs: 2}\n", "").replace("plain:\n", "plain: {}\n")
    file = written(tmp_path / "plans", text.replace("{optimizer.name: sgd}", "{recipe: mine.yaml}"))
    plan = read_plan(file)
    recipes = arm_recipes(plan, file, file.parent)
    assert [recipe.epochs for recipe in recipes.values()] == [6, 7]
    assert arm_recipe(plan, file, "sgd") == (str(tmp_path / "plans" / "mine.yaml"), {})


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("arms:", "armz:", ["there is no setting armz", "did you mean arms?"]),
        ("baseline: plain\n", "", ["a plan lacks baseline"]),
        ("baseline: plain", "baseline: Plain", ["baseline", "did you mean plain?"]),
        ("seeds: [0, 5]", "seeds: [0, 0]", ["seeds", "once", "found: 0"]),
        ("seeds: [0, 5]", "seeds: [-1]", ["seeds", "from 0 to 4,294,967,295", "found: -1"]),
        ("seeds: [0, 5]", "seeds: 3", ["seeds", "a list of seeds", "found: 3"]),
        ("seeds: [0, 5]", "seeds: [true]", ["seeds", "found: True"]),
        ("plain:\n", "a/b:\n", ["an arm's name becomes a folder's", "'a/b'"]),
        ("plain:\n", "SGD:\n", ["differ in more than upper and lower case", "SGD and sgd"]),
        ("plain:\n", "plain: 5\n", ["arms.plain", "found: 5"]),
        ("optimizer.name: sgd", "optimizr.name: sgd", ["arm sgd: ", "did you mean optimizer.name"]),
        ("optimizer.name: sgd", "epochs: many", ["arm sgd: ", "a whole number", "'many'"]),
        ("optimizer.name: sgd", "recipe: x.yaml", ["arm sgd: there is no recipe", "x.yaml"]),
        ("optimizer.name: sgd", "seed: 3", ["arms.sgd", "list the seeds of all arms under seeds"]),
        (
            "{optimizer.name: sgd}",
            "{optimizer: {name: sgd}, optimizer.name: adam}",
            ["arms.sgd", "optimizer.name, dotted and nested"],
        ),
        ("{optimizer.name: sgd}", "{}", ["two arms have the same settings", "plain and sgd"]),
        ("settings: {epochs: 2}", "settings: 2", ["settings", "found: 2"]),
        ("recipe: small", "recipe: 3", ["the setting recipe can't be used", "in quotes"]),
        (GOOD, "", ["the plan is empty", "seeds: [0, 1, 2]"]),
        (GOOD, "[1, 2]", ["the plan can't be read"]),
        (GOOD, "arms: {a: {}}\narms: {b: {}}", ["the plan can't be read", "is repeated"]),
    ],
)
def test_a_fault_is_one_error(old: str, new: str, parts: list[str], tmp_path: Path) -> None:
    """The error names the file, the arm, the fault and the probable intention."""
    assert old in GOOD
    file = written(tmp_path, GOOD.replace(old, new))
    text = str(fault_of(file))
    assert f"file: {file}" in text
    for part in parts:
        assert part in text


COMBINED = """\
recipe: small
arms:
  joint: {}
  again: {seed_offset: 100}
  abnormal: {findings: abnormal}
  acl: {findings: acl}
combined:
  singles: [abnormal, acl]
  ensemble: [joint, again]
compare: [joint, ensemble, singles]
seeds: [0, 5]
baseline: singles
other_baselines: {ensemble: joint}
primary: joint
margin: 0.01
within: abnormal
"""


def test_combined_arms_consist_of_arms(tmp_path: Path) -> None:
    """They can be the baseline; arms that aren't compared are trained for them."""
    file = written(tmp_path, COMBINED)
    plan = read_plan(file)
    assert plan.compared == ["singles", "joint", "ensemble"]
    assert plan.members("singles") == ["abnormal", "acl"]
    assert plan.members("joint") == ["joint"]
    assert plan.first_arm == "abnormal"
    assert (plan.primary, plan.margin, plan.within) == ("joint", 0.01, "abnormal")
    without = written(tmp_path, COMBINED.replace("compare: [joint, ensemble, singles]\n", ""))
    assert read_plan(without).compared[0] == "singles"
    assert len(read_plan(without).compared) == 6


def test_arms_may_differ_in_the_seed_only(tmp_path: Path) -> None:
    """`seed_offset` is added to each seed, so that networks of an ensemble differ."""
    file = written(tmp_path, COMBINED)
    plan = read_plan(file)
    assert [plan.seed("joint", 5), plan.seed("again", 5)] == [5, 105]
    recipes = arm_recipes(plan, file, file.parent)
    assert (recipes["joint"].seed, recipes["again"].seed) == (0, 100)
    assert "seed_offset" not in arm_recipe(plan, file, "again")[1]


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("[abnormal, acl]", "[abnormal, acll]", ["combined.singles", "did you mean acl?"]),
        ("[abnormal, acl]", "[acl]", ["combined.singles", "at least two arms"]),
        ("[abnormal, acl]", "[acl, acl]", ["combined.singles", "each once"]),
        ("singles: [", "Joint: [", ["differ in more than upper and lower case"]),
        ("seed_offset: 100", "seed_offset: 0", ["arms.again.seed_offset", "from 1"]),
        ("margin: 0.01", "settings: {seed_offset: 5}", ["settings", "seed_offset: 5"]),
        ("compare: [joint, ", "compare: [jiont, ", ["compare", "did you mean joint?"]),
        ("compare: [joint, ", "compare: [joint, joint, ", ["compare", "each arm once"]),
        ("compare: [joint, ensemble, singles]", "compare: [joint]", ["baseline", "singles"]),
        ("{ensemble: joint}", "{ensemble: acl}", ["other_baselines", "found: acl"]),
        ("{ensemble: joint}", "{singles: joint}", ["other_baselines", "singles: joint"]),
        ("primary: joint", "primary: singles", ["primary", "an arm other than the baseline"]),
        ("primary: joint", "primary: jiont", ["primary", "did you mean joint?"]),
        ("margin: 0.01", "margin: 0", ["margin", "above 0"]),
    ],
)
def test_a_fault_of_a_combined_arm_is_one_error(
    old: str, new: str, parts: list[str], tmp_path: Path
) -> None:
    """Names of arms that the plan doesn't have are refused wherever it refers to arms."""
    assert old in COMBINED
    file = written(tmp_path, COMBINED.replace(old, new))
    text = str(fault_of(file))
    assert f"file: {file}" in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize("file", PLANS, ids=lambda file: file.stem)
def test_the_plans_of_this_repository_can_be_run(file: Path) -> None:
    """Each names arms and settings that exist."""
    plan = read_plan(file)
    assert list(arm_recipes(plan, file, file.parent)) == list(plan.arms)


def test_a_missing_plan_is_reported(tmp_path: Path) -> None:
    """A plan that doesn't exist is a missing plan, not a missing recipe."""
    assert "the plan is missing" in str(fault_of(tmp_path / "none.yaml"))
