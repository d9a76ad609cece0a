from __future__ import annotations

from pathlib import Path

import pytest

from mrknee.errors import MrkneeError, SettingsError
from mrknee.exams import Findings
from mrknee.models.prediction import device_here
from mrknee.training.estimate import AUTOMATIC_SLICES, slices_at_once
from mrknee.training.recipe import Recipe, load_recipe, recipe_names, with_defaults
from mrknee.transforms.settings import PreparationSettings


def test_reference_has_the_published_settings() -> None:
    """Every setting is that of the published system."""
    recipe = load_recipe("reference")
    assert recipe.network.encoder == "alexnet"
    assert not recipe.network.shared_encoder
    assert recipe.network.slice_pooling == "max"
    assert recipe.network.frozen_stages == 0
    assert recipe.network.dropout == 0
    assert recipe.weights == "download"
    assert (recipe.preparation.size, recipe.preparation.crop) == (256, 224)
    assert (recipe.preparation.mean, recipe.preparation.sd) == (58.09, 49.73)
    augmentation = recipe.augmentation
    assert (augmentation.rotation, augmentation.translation) == (25, 0.11)
    assert (augmentation.mirror, augmentation.draw) == (0.5, "plane")
    optimizer, schedule = recipe.optimizer, recipe.schedule
    assert (optimizer.name, optimizer.learning_rate, optimizer.weight_decay) == ("adam", 1e-5, 0.01)
    assert (schedule.name, schedule.patience) == ("plateau", 3)
    assert (schedule.factor, schedule.threshold) == (0.3, 1e-4)
    assert (recipe.selection.part, recipe.selection.early_stop) == ("valid", 0)
    assert (recipe.pos_weight, recipe.epochs, recipe.batch_exams) == ("balanced", 50, 1)
    assert (recipe.log_train, recipe.log_valid, recipe.keep_every_epoch) == (50, 10, True)


@pytest.mark.parametrize("name", recipe_names())
def test_packaged_recipe_survives_yaml(name: str, tmp_path: Path) -> None:
    """Each recipe of the package can be loaded, written as YAML and loaded again."""
    recipe = load_recipe(name)
    file = tmp_path / "settings.yaml"
    file.write_text(recipe.to_yaml())
    assert load_recipe(str(file)) == recipe


def test_default_does_not_select_on_valid() -> None:
    """By default, `valid` is used once, at the end."""
    assert load_recipe("default").selection.part == "inner"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("network.encoder", "resnet50"),
        ("network.encoder", "vgg16"),
        ("augmentation.rotation", 40.0),
        ("optimizer.name", "sgd"),
        ("epochs", 100),
    ],
)
def test_single_settings_can_be_changed(setting: str, value: object) -> None:
    """Backbone, rotation, optimizer and epochs, which the post proposes to vary, are settings."""
    changed = load_recipe("reference", {setting: value})
    branch: object = changed
    for name in setting.split("."):
        branch = getattr(branch, name)
    assert branch == value
    assert load_recipe("reference", {}) != changed


def test_findings_can_be_separated_by_commas() -> None:
    """`meniscus,acl` means both, in the usual order."""
    assert load_recipe("reference", {"findings": "meniscus,acl"}).findings == ["acl", "meniscus"]
    findings = Findings(["meniscus", "acl"])  # as in a data set
    assert load_recipe("reference", {"findings": findings}).findings == ["acl", "meniscus"]


def test_complete_section_can_be_changed() -> None:
    """It is given as settings or as a dictionary; its values replace those derived from others."""
    section = PreparationSettings(size=64, crop=48, mean=1.5)
    assert load_recipe("reference", {"preparation": section}).preparation == section
    changes = {"preparation": section.to_dict(), "preparation.crop": 32}
    changed = load_recipe("reference", changes)
    assert changed.preparation == section.replace(crop=32)
    assert changes["preparation"] == section.to_dict()


@pytest.mark.parametrize("name", ["", "epochs.x", "network.", "network..x", "network.encoder.x"])
def test_invalid_dotted_name_is_refused(name: str) -> None:
    """Refused: names below a setting that isn't a section, and names with empty parts."""
    with pytest.raises(SettingsError):
        load_recipe("reference", {name: 1})


def test_invalid_file_is_refused_despite_changes(tmp_path: Path) -> None:
    """An invalid file is refused even if a change would correct it; the error names the file."""
    file = tmp_path / "mine.yaml"
    file.write_text("epochs: 0\n")
    with pytest.raises(SettingsError, match="the setting epochs can't be used") as caught:
        load_recipe(str(file), {"epochs": 3})
    assert caught.value.file == str(file)


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 3},
        {"network.encodr": "alexnet"},
        {"epochs": "many"},
        {"epochs": 0},
        {"optimizer.name": "lion"},
        {"selection.part": "test"},
        {"selection.fraction": 1.5},
        {"network.slice_pooling": "median"},
        {"preparation.crop": 500},
        {"findings": "ACL tear"},
    ],
)
def test_invalid_setting_is_refused(changes: dict[str, object]) -> None:
    """Unknown settings, wrong types and contradictions are SettingsErrors."""
    with pytest.raises(MrkneeError):
        load_recipe("reference", changes)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("workers", 1_000_000),
        ("workers", -2),
        ("seed", 18446744073709551616),
        ("seed", -1),
        ("epochs", 10**9),
        ("batch_exams", 10**9),
        ("accumulate", 0),
        ("save_every", -1),
        ("log_train", 0),
        ("batch_slices", 0),
        ("max_exams", -5),
        ("optimizer.learning_rate", 0.0),
        ("optimizer.learning_rate", float("nan")),
        ("optimizer.weight_decay", -0.1),
        ("optimizer.momentum", 1.0),
        ("optimizer.clip_norm", -1.0),
        ("schedule.warmup", 1.0),
        ("schedule.factor", 0.0),
        ("selection.early_stop", -1),
        ("sensitivity", 1.0),
        ("network.frozen_stages", -1001),
        ("preparation.sd", 1e-9),
    ],
)
def test_number_out_of_range_is_refused(setting: str, value: float) -> None:
    """The error names the setting, its range and the value."""
    with pytest.raises(MrkneeError) as caught:
        load_recipe("default", {setting: value})
    assert setting.rpartition(".")[2] in caught.value.what
    assert caught.value.expected is not None
    assert str(value) in (caught.value.found or "")


def test_unknown_recipe_is_refused() -> None:
    """The error lists the existing recipes."""
    with pytest.raises(MrkneeError, match="reference"):
        load_recipe("refrence")


def test_file_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    """The error names the broken file."""
    file = tmp_path / "mine.yaml"
    file.write_text("epochs: [3")
    with pytest.raises(MrkneeError, match="mine"):
        load_recipe(str(file))


def test_default_settings_are_those_of_the_reference() -> None:
    """`Recipe()` differs from the reference in augmentation, selection and kept epochs only."""
    default, reference = Recipe().to_dict(), load_recipe("reference").to_dict()
    differing = {name for name in default if default[name] != reference[name]}
    assert differing == {"augmentation", "selection", "keep_every_epoch"}


def test_saved_settings_of_an_earlier_version_are_completed() -> None:
    """Settings that an earlier version lacked have their defaults; all others are kept."""
    default = load_recipe("default").to_dict()
    saved = {**default, "finding_weights": {"acl": 2.0}, "removed": 3}
    del saved["ema"]
    saved["optimizer"] = {"name": "adamw"}
    expected = {**default, "finding_weights": {"acl": 2.0}, "removed": 3}
    expected["optimizer"] = {**Recipe().to_dict()["optimizer"], "name": "adamw"}
    assert with_defaults(saved) == expected


def test_slices_at_once_needs_frozen_statistics() -> None:
    """With trained statistics, slices_at_once is refused, or not automatic."""
    automatic = {"slices_at_once": -1}
    trained = {**automatic, "network.batchnorm": "trained"}
    assert slices_at_once(load_recipe("default", automatic)) == AUTOMATIC_SLICES[device_here()]
    assert slices_at_once(load_recipe("default", trained)) is None
    with pytest.raises(MrkneeError, match="batchnorm trained can't be used together"):
        load_recipe("small", {"slices_at_once": 4})
    with pytest.raises(MrkneeError, match="slices_at_once can't be used"):
        load_recipe("default", {"slices_at_once": -2})
