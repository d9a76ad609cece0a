"""The command line refuses malformed input with one message and status 1, and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mrknee.exams import PLANES
from mrknee.training.parts import split_exams
from mrknee.training.recipe import load_recipe
from tests.conftest import write_toy_dataset
from tests.hostile import exported, models, recipes, stacks
from tests.hostile.case import MARKER, Case
from tests.hostile.worker import contents
from tests.processes import run_mrknee

pytestmark = pytest.mark.slow

Words = list[str]


def named(cases: list[Case], name: str) -> Case:
    """Returns the case with this name."""
    (found,) = [case for case in cases if case.name == name]
    return found


def pickled_stack(here: Path) -> Words:
    """Predict: the stack of one exam is a pickled object array."""
    (here / "model.onnx").write_bytes(exported.GOOD)
    for plane in PLANES:
        folder = here / "data" / "valid" / plane
        folder.mkdir(parents=True)
        (folder / "0000.npy").write_bytes(stacks.GOOD)
    case = named(list(stacks.cases()), "object array with a payload")
    case.write(here / "data" / "valid" / "axial" / "0000.npy")
    return ["predict", "model.onnx", "data", "--out", "out.csv"]


def model_with_a_preparation_of_10_9_pixels(here: Path) -> Words:
    """Predict: the exported model states a preparation of 10^9 pixels."""
    named(list(exported.cases()), "a preparation of 10^9 pixels").write(here / "model.onnx")
    return ["predict", "model.onnx", "data", "--out", "out.csv"]


def pipe_in_the_list_of_paths(here: Path) -> Words:
    """Submit: a path in the list is a pipe that nothing writes to."""
    lines = []
    for plane in PLANES:
        (here / plane).mkdir()
        lines.append(f"{plane}/0000.npy\n")
        np.save(here / plane / "0000.npy", np.zeros((2, 4, 4), np.uint8))
    (here / "sagittal" / "0000.npy").unlink()
    os.mkfifo(here / "sagittal" / "0000.npy")
    (here / "paths.csv").write_text("".join(lines))
    facts = {
        **exported.FACTS,
        "findings": ["abnormal", "acl", "meniscus"],
        "bias": [0.0, 0.0, 0.0],
    }
    (here / "model.onnx").write_bytes(exported.finished(exported.graph(), facts))
    return ["submit", "model.onnx", "paths.csv", "out.csv"]


def label_with_terminal_escape_sequences(here: Path) -> Words:
    """Evaluate: a label would clear the terminal if it was printed."""
    (here / "predictions.csv").write_text("exam,acl\n0000,0.5\n")
    (here / "data").mkdir()
    (here / "data" / "valid-acl.csv").write_text("0000,\x1b[2J\x1b]0;owned\x07\n")
    return ["evaluate", "predictions.csv", "data", "--out", "out"]


def recipe_with_a_class_path(here: Path) -> Words:
    """Train: the recipe names a module next to it to import."""
    named(list(recipes.cases()), "a class for a group").write(here / "recipe.yaml")
    return ["train", "data", "--out", "out", "--recipe", "recipe.yaml"]


def pickled_training_state(here: Path) -> Words:
    """Train --resume: the state is a pickle."""
    data = write_toy_dataset(here / "data")
    recipe = load_recipe("default", {"network.encoder": "test_resnet", "weights": "none"})
    model = models.write_model(here / "model")
    named([c for c in models.cases(model) if c.reader == "resume"], "payload").write(here / "out")
    (here / "out" / "settings.yaml").write_text(recipe.to_yaml())
    (here / "out" / "split.csv").write_text(split_exams(data, recipe).split_csv())
    words = ["--network.encoder", "test_resnet", "--weights", "none", "--resume"]
    return ["train", "data", "--out", "out", *words]


def phantom_json_of_nested_lists(here: Path) -> Words:
    """Phantom: the folder's phantom.json is 100,000 nested lists."""
    (here / "out").mkdir()
    (here / "out" / "phantom.json").write_text("[" * 100_000)
    return ["phantom", "out", "--train", "1", "--valid", "1"]


@pytest.mark.parametrize(
    "write",
    [
        pickled_stack,
        model_with_a_preparation_of_10_9_pixels,
        pipe_in_the_list_of_paths,
        label_with_terminal_escape_sequences,
        recipe_with_a_class_path,
        pickled_training_state,
        phantom_json_of_nested_lists,
    ],
    ids=lambda write: write.__name__,
)
def test_malformed_input_gives_one_message(write: Callable[[Path], Words], tmp_path: Path) -> None:
    """Malformed input: status 1 and one message on standard error; the folder is unchanged."""
    words = write(tmp_path)
    before = contents(tmp_path)
    done = run_mrknee(*words, folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f"mrknee {words[0]}: "), done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert not (tmp_path / MARKER).exists()
    assert contents(tmp_path) == before
