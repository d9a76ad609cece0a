"""Results that must not change, compared with values recorded from the first edition.

On the machine of the recording (`machine` in values.json) results are bit-equal. On another kind of
processor, or with other versions of torch or numpy, sums are rounded differently: floats then agree
to 1e-6 of the largest value, bytes in all but one of 500 pixels, and those to one grey level.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden import compute
from tests.golden.record import ARRAYS, TEXT

pytestmark = pytest.mark.slow

RECORDED: dict[str, Any] = json.loads(TEXT.read_text())
SAME_MACHINE = RECORDED["machine"] == compute.machine()
STEPS, LEARNING_RATE = 8, 1e-5
"""Number of steps and learning rate of `trained_weights`, with one exam per step."""


def recorded(prefix: str) -> compute.Values:
    """Returns the recorded arrays whose names start with `prefix`."""
    with np.load(ARRAYS, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files if name.startswith(prefix)}


def assert_as_recorded(found: compute.Values, prefix: str) -> None:
    """Asserts equal names, shapes and types; values equal, or close on another machine."""
    expected = recorded(prefix)
    found = {name: value for name, value in found.items() if name.startswith(prefix)}
    assert found.keys() == expected.keys()
    assert expected
    for name, value in expected.items():
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype), name
        if SAME_MACHINE:
            np.testing.assert_array_equal(found[name], value, err_msg=name)
        elif value.dtype == np.uint8:
            apart = np.abs(found[name].astype(int) - value)
            bits = name.count("/") == 2 and prefix == "phantom"  # packed masks: a bit is a voxel
            assert bits or apart.max(initial=0) <= 1, name
            assert np.count_nonzero(apart) <= max(1, value.size // 500), name
        else:
            scale = max(1.0, float(np.abs(value).max(initial=0)))
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-6 * scale, err_msg=name)


def test_reference_logits() -> None:
    """Logits of the reference network are equal for several slice counts and missing planes."""
    assert_as_recorded(compute.reference_logits(), "logits/")


def test_reference_parameter_names() -> None:
    """Names, shapes and order of a `reference` checkpoint's weights are equal."""
    assert compute.reference_parameters() == RECORDED["reference_parameters"]


def test_augmentation_draws() -> None:
    """Fixed (seed, epoch, exam id) give bit-equal angles, shifts and mirrors."""
    assert json.loads(json.dumps(compute.augmentation_draws())) == RECORDED["augmentation_draws"]


def test_augmented_pixels() -> None:
    """A drawn augmentation of a stack gives equal pixels."""
    assert_as_recorded(compute.augmented_pixels(), "augmented/")


def test_phantom_stacks() -> None:
    """A seed of the phantom gives equal stacks and lesion masks."""
    assert_as_recorded(compute.phantom_stacks(), "phantom/")


def test_weights_after_eight_steps(tmp_path: Path) -> None:
    """Eight steps of the recipe `reference` give equal weights.

    On other machines, Adam divides the rounding error of a gradient near zero by that gradient, so
    single weights may differ by as much as eight steps can move them, but most do not.
    """
    found = compute.trained_weights(tmp_path)
    if SAME_MACHINE:
        assert_as_recorded(found, "trained/")
        return
    expected = recorded("trained/")
    assert found.keys() == expected.keys()
    apart = np.concatenate([np.abs(found[name] - value)[2:] for name, value in expected.items()])
    assert apart.max() <= 2 * STEPS * LEARNING_RATE
    assert np.median(apart) <= 1e-6


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> compute.Values:
    """Predictions and explanations of a small run folder and of its exported file."""
    return compute.small_model_results(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("kind", ["folder", "onnx"])
def test_predictions_and_explanations(results: compute.Values, kind: str) -> None:
    """Probabilities, slice scores and heat of three exams are equal; one exam lacks planes."""
    assert_as_recorded(results, f"{kind}/")
