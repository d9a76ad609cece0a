from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mrknee.command_line import create_parser
from mrknee.commands import train
from mrknee.errors import SettingsError
from mrknee.settings import setting_schemas
from mrknee.training.arguments import train_arguments
from mrknee.training.recipe import Recipe, load_recipe


def parse(*arguments: str) -> dict[str, Any]:
    """Parses arguments of `mrknee train`."""
    return train_arguments(create_parser("mrknee train", train, abbreviated=False), arguments)


def parse_recipe(*arguments: str) -> Recipe:
    """Returns the recipe of `mrknee train DATA --out RUN` with more arguments."""
    settings = parse("DATA", "--out", "RUN", *arguments)
    del settings["data"], settings["out"], settings["seeds"], settings["resume"]
    return load_recipe(settings.pop("recipe"), settings)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--loggers", "tensorboard"), ["tensorboard"]),
        (("--loggers=tensorboard",), ["tensorboard"]),
        (("--loggers", "[tensorboard]"), ["tensorboard"]),
        (("--loggers", "none"), []),
        (("--loggers", "[]"), []),
        (("--loggers", "wandb,tensorboard"), ["tensorboard", "wandb"]),
        (("--loggers", "[mlflow, wandb]"), ["wandb", "mlflow"]),
        (("--loggers", "tensorboard", "wandb", "--epochs", "3"), ["tensorboard", "wandb"]),
        (("--loggers", "tensorboard wandb"), ["tensorboard", "wandb"]),
        ((), ["tensorboard"]),
    ],
)
def test_loggers_are_parsed_in_all_documented_forms(
    arguments: tuple[str, ...], expected: list[str]
) -> None:
    """Accepted: one name, several with commas, spaces or in brackets, or none."""
    assert parse_recipe(*arguments).loggers == expected


def test_data_set_may_follow_loggers_or_switch() -> None:
    """Only known names are parsed as loggers, and only true and false as the value of a switch."""
    parsed = parse("--out", "RUN", "--loggers", "tensorboard", "DATA")
    assert (parsed["data"], parsed["loggers"]) == (Path("DATA"), "tensorboard")
    parsed = parse("--out", "RUN", "--soft-labels", "DATA")
    assert (parsed["data"], parsed["soft_labels"]) == (Path("DATA"), True)


@pytest.mark.parametrize("loggers", ["tensorbord", "none,wandb", "wandb,wandb", ""])
def test_invalid_loggers_are_refused(loggers: str) -> None:
    """Refused: an unknown name, a repeated one, none together with others, and empty text."""
    with pytest.raises(SettingsError, match="the setting loggers can't be used"):
        parse_recipe(f"--loggers={loggers}")


def test_dashes_switches_and_numbers_are_parsed() -> None:
    """Values are parsed as in a recipe: 010 is ten, and floats accept integers."""
    recipe = parse_recipe(
        "--batch-exams", "010", "--optimizer.learning-rate", "1", "--keep-every-epoch"
    )
    assert recipe.batch_exams == 10
    assert recipe.optimizer.learning_rate == 1.0
    assert recipe.keep_every_epoch
    assert parse("DATA", "--out", "RUN", "--resume")["resume"]
    assert not parse_recipe("--keep-every-epoch", "false").keep_every_epoch
    assert not parse_recipe("--keep-every-epoch=false").keep_every_epoch
    assert parse_recipe("--weights", "1e3").weights == "1e3"
    assert parse_recipe("--preparation.mean", "-5e1").preparation.mean == -50
    assert parse_recipe("--findings", "meniscus,acl").findings == ["acl", "meniscus"]
    assert parse_recipe("--epochs", "3", "--epochs", "4").epochs == 4


def test_seeds_are_whole_numbers_with_commas(capsys: pytest.CaptureFixture[str]) -> None:
    """`--seeds` isn't a setting of the recipe; other text is one message."""
    assert parse("DATA", "--out", "RUN", "--seeds", "0,12")["seeds"] == (0, 12)
    with pytest.raises(SystemExit):
        parse("DATA", "--out", "RUN", "--seeds", "0;12")
    assert "whole numbers with commas between" in capsys.readouterr().err


def test_null_clears_setting_of_recipe(tmp_path: Path) -> None:
    """`null` removes the value of an optional setting."""
    file = tmp_path / "recipe.yaml"
    file.write_text("findings: [acl]\nbatch_slices: 100\nweights: none\n")
    recipe = parse_recipe("--recipe", str(file), "--findings", "null", "--batch_slices", "null")
    assert (recipe.findings, recipe.batch_slices) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch_size", "4"), "no such option: --batch_size; did you mean --batch_exams?"),
        (("--lr", "1"), "no such option: --lr; did you mean --optimizer.learning_rate?"),
        (("--epoch", "1"), "no such option: --epoch; did you mean --epochs?"),
        (("--gpus", "1"), "no such option: --gpus\n"),
        (("--network", "alexnet"), "no such option: --network; did you mean --network.encoder?"),
        (("--epochs", "--resume"), "argument --epochs: expected one argument"),
        (("--epochs",), "argument --epochs: expected one argument"),
        (("-e", "3"), "unrecognized arguments: -e 3"),
    ],
)
def test_invalid_option_prints_two_lines_and_suggestion(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, with the fault and the likely intention, but without the complete usage."""
    with pytest.raises(SystemExit) as exited:
        parse_recipe(*arguments)
    assert exited.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--epochs", "1:30"), "a whole number from 1 to 100,000"),
        (("--epochs", "1_000"), "a whole number from 1 to 100,000"),
        (("--epochs", "1e2"), "a whole number from 1 to 100,000"),
        (("--epochs", "0"), "a whole number from 1 to 100,000"),
        (("--epochs", "true"), "a whole number from 1 to 100,000"),
        (("--epochs", "[3"), "a whole number from 1 to 100,000"),
        (("--epochs", "9" * 10_000), "a whole number from 1 to 100,000"),
        (("--batch_slices", "many"), "a whole number from 1 to 1,000,000 or null"),
        (("--keep-every-epoch=yes",), "true or false"),
        (("--optimizer.learning_rate", ".inf"), "a number above 0 to 1000"),
        (("--precision", "fp16"), "one of 32-true, bf16-mixed, 16-mixed, auto"),
        (("--preparation.crop", "500"), "at most preparation.size"),
    ],
)
def test_settings_are_validated_as_in_a_recipe(arguments: tuple[str, ...], expected: str) -> None:
    """The error is the same as for a recipe file and from Python: setting, expected, found."""
    with pytest.raises(SettingsError) as caught:
        parse_recipe(*arguments)
    name = arguments[0].removeprefix("--").partition("=")[0].replace("-", "_")
    assert caught.value.what == f"the setting {name} can't be used"
    assert caught.value.expected == expected


def test_help_lists_every_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    """The help lists the settings by section, with the defaults of the named recipe."""
    with pytest.raises(SystemExit) as exited:
        parse("--help", "--recipe", "small")
    assert exited.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    for name in setting_schemas(Recipe):
        assert f"--{name} " in printed
    for section in ("network", "preparation", "optimizer", "schedule", "selection"):
        assert f"{section}: " in printed
    assert "a whole number from 1 to 4,096; default: 4" in printed
    assert "default: test_resnet" in printed
    assert "default: 58.09" in printed


def test_help_states_no_default_that_follows_the_encoder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`default` doesn't state a mean; its encoder's isn't known without importing torch."""
    with pytest.raises(SystemExit):
        parse("--help")
    printed = " ".join(capsys.readouterr().out.split())
    assert "the mean that the encoder expects. (a number from -10000 to 10000)" in printed
    assert (
        "{max,mean,attention,evidence,evidence_logsumexp,finding_attention,transformer}" in printed
    )
    assert printed.startswith(
        "usage: mrknee train [-h] --out OUT [--recipe RECIPE] [--seeds N,...] [--resume] data ["
    )
