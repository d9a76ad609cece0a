from __future__ import annotations

from pathlib import Path

import pytest

from mrknee.errors import MrkneeError
from mrknee.training.arguments import TrainArguments, train_arguments


def read(*words: str) -> TrainArguments:
    """The command line of `mrknee train DATA --out RUN` and more words."""
    return train_arguments(["DATA", "--out", "RUN", *words], "")


@pytest.mark.parametrize(
    ("words", "expected"),
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
def test_loggers_are_given_as_the_help_says(words: tuple[str, ...], expected: list[str]) -> None:
    """One name, several with commas, spaces or in brackets, or none."""
    assert read(*words).recipe.loggers == expected


def test_a_word_after_the_loggers_may_be_the_data_set() -> None:
    """Only loggers' names are taken for loggers."""
    given = train_arguments(["--out", "RUN", "--loggers", "tensorboard", "DATA"], "")
    assert given.data == Path("DATA")


@pytest.mark.parametrize("given", ["tensorbord", "none,wandb", "wandb,wandb", ""])
def test_other_loggers_are_refused(given: str) -> None:
    """A name that is none, one that comes twice, and none beside others."""
    with pytest.raises(MrkneeError, match="the setting loggers can't be used"):
        read(f"--loggers={given}")


def test_dashes_switches_and_numbers_are_read() -> None:
    """As in a recipe: 010 is ten, and a whole number will do where a fraction may stand."""
    given = read(
        "--batch-exams", "010", "--optimizer.learning_rate", "1", "--keep-every-epoch", "--resume"
    )
    assert given.recipe.batch_exams == 10
    assert given.recipe.optimizer.learning_rate == 1.0
    assert given.recipe.keep_every_epoch
    assert given.resume
    assert (
        read(
            "--keep-every-epoch", "false", "--optimizer.learning_rate=1e-4"
        ).recipe.keep_every_epoch
        is False
    )
    assert read("--seed", "7", "--weights", "1e3").recipe.weights == "1e3"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--batch_size", "4"), "no such setting: batch_size; did you mean batch_exams?"),
        (("--lr", "1"), "no such setting: lr; did you mean optimizer.learning_rate?"),
        (("--epoch", "1"), "no such setting: epoch; did you mean epochs?"),
        (("--gpus", "1"), "no such setting: gpus\n"),
        (("--epochs", "1:30"), "the setting epochs can't be '1:30': expected a whole number"),
        (("--epochs", "1_000"), "epochs can't be '1_000'"),
        (("--epochs", "1e2"), "epochs can't be '1e2'"),
        (("--epochs", "--resume"), "the setting epochs needs a value"),
        (("--batch_slices", "many"), "expected a whole number or null"),
        (("--keep-every-epoch=yes",), "expected true or false"),
        (("--optimizer.learning_rate", ".inf"), "expected a finite number"),
        (("--precision", "fp16"), "expected one of 32-true, bf16-mixed, 16-mixed, auto"),
        (("--network", "alexnet"), "network has settings of its own, such as --network.encoder"),
        (("--network", "/etc/hostname"), "network has settings of its own"),
        (("-e", "3"), "unrecognized arguments: -e 3"),
    ],
)
def test_what_cannot_be_understood_is_said_in_two_lines(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, the setting, what was found and expected; never the whole usage."""
    with pytest.raises(SystemExit) as ended:
        read(*words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 2
