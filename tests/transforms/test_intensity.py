from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from torch import Tensor

from mrknee.errors import SettingsError
from mrknee.exams import PLANES, Exam
from mrknee.transforms.batches import frame_exam
from mrknee.transforms.intensity import Intensity, apply_intensity, bias_field, draw_intensities
from mrknee.transforms.preparation import Preparation
from mrknee.transforms.settings import AugmentationSettings

OFF = AugmentationSettings(rotation=0, translation=0, mirror=0)
ON = AugmentationSettings(gamma=0.5, bias_field=0.4, noise=0.1)
SMALL = Preparation(size=32, crop=28)
STILL = Intensity(gamma=1.0, coefficients=np.zeros((4, 4, 4)), noise=0.0, noise_seed=0)
RAMP = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)


def grey(value: int, count: int = 8, side: int = 64) -> UInt8[Tensor, "slices rows cols"]:
    """Returns a stack of one grey value."""
    return torch.full((count, side, side), value, dtype=torch.uint8)


def drawn(augmentation: AugmentationSettings, epoch: int = 0) -> dict[str, Intensity]:
    """Returns the changes of an exam's series."""
    return draw_intensities(augmentation, 3, epoch, "0007", PLANES)


def test_nothing_changes_without_the_settings() -> None:
    """The draws are then the exponent 1, a field of 1 and no noise: every grey value stays."""
    for change in drawn(OFF).values():
        assert (change.gamma, change.noise) == (1.0, 0.0)
        assert not change.coefficients.any()
        assert torch.equal(apply_intensity(RAMP, change), RAMP)
    assert not OFF.any
    assert OFF.replace(noise=0.1).any


def test_gamma_is_a_power_of_the_fraction() -> None:
    """0 and 255 stay, and a quarter with the exponent 2 becomes a 16th, rounded."""
    changed = apply_intensity(RAMP, replace(STILL, gamma=2.0)).flatten()
    assert changed[[0, 64, 128, 255]].tolist() == [0, 16, 64, 255]


def test_exponents_are_log_uniform() -> None:
    """With gamma 0.5 they fill 2/3 to 3/2, and half are below 1."""
    exponents = np.array([drawn(ON, epoch)["axial"].gamma for epoch in range(400)])
    assert 1 / 1.5 <= exponents.min() < 0.68
    assert 1.48 < exponents.max() <= 1.5
    assert abs(np.mean(exponents < 1) - 0.5) < 4 * 0.5 / np.sqrt(400)


def test_the_field_is_the_polynomials_exponential() -> None:
    """It equals the sum of its terms at the coordinates -1 to 1; a single slice is at 0."""
    coefficients = drawn(ON)["coronal"].coefficients
    for shape in ((3, 4, 5), (1, 4, 5)):
        z, y, x = np.meshgrid(
            *(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij"
        )
        total = sum(coefficients[i, j, k] * z**i * y**j * x**k for i, j, k in np.ndindex(4, 4, 4))
        np.testing.assert_allclose(bias_field(coefficients, shape), np.exp(total), rtol=1e-5)


def test_the_field_has_the_terms_of_order_1_to_3() -> None:
    """19 of TorchIO's 20 terms, without the constant, each within the limit."""
    fields = [change.coefficients for e in range(200) for change in drawn(ON, e).values()]
    used = np.any(fields, axis=0)
    assert used.tolist() == [
        [[1 <= i + j + k <= 3 for k in range(4)] for j in range(4)] for i in range(4)
    ]
    assert 0.39 < np.abs(fields).max() <= 0.4


def test_the_noise_has_the_drawn_deviation() -> None:
    """At mid grey, its mean is 0 and its standard deviation the drawn one, at most the limit."""
    noisy = apply_intensity(grey(128), replace(STILL, noise=20.0)).float()
    assert float(noisy.mean()) == pytest.approx(128, abs=0.5)
    assert float(noisy.std()) == pytest.approx(20, rel=0.02)
    deviations = [drawn(ON, epoch)["axial"].noise for epoch in range(400)]
    assert 0 <= min(deviations) < 1
    assert 25 < max(deviations) <= 25.5


@pytest.mark.parametrize("value", [0, 255])
def test_values_are_clipped(value: int) -> None:
    """Noise and field at the ends of the range don't wrap around."""
    noisy = apply_intensity(grey(value), replace(drawn(ON)["axial"], noise=30.0)).int()
    assert abs(int(noisy.median()) - value) < 128
    assert int(noisy.min()) >= 0
    assert int(noisy.max()) <= 255
    assert float((noisy - value).abs().float().mean()) < 100


def test_exponent_and_deviation_are_of_the_exam_and_the_rest_of_the_series() -> None:
    """The series share both; field and noise differ between them, and everything per epoch."""
    changes = list(drawn(ON).values())
    assert len({(change.gamma, change.noise) for change in changes}) == 1
    assert len({change.noise_seed for change in changes}) == 3
    assert len({change.coefficients.tobytes() for change in changes}) == 3
    again, other = drawn(ON)["axial"], drawn(ON, epoch=1)["axial"]
    assert again.coefficients.tobytes() == changes[0].coefficients.tobytes()
    assert (again.gamma, again.noise_seed) == (changes[0].gamma, changes[0].noise_seed)
    assert (other.gamma, other.noise_seed) != (again.gamma, again.noise_seed)


def test_turning_one_on_changes_no_other_draw() -> None:
    """Exponent, coefficients, deviation and noise are the same with and without the others."""
    all_on = drawn(ON)["sagittal"]
    assert drawn(OFF.replace(gamma=0.5))["sagittal"].gamma == all_on.gamma
    assert drawn(OFF.replace(noise=0.1))["sagittal"].noise == all_on.noise
    assert drawn(OFF)["sagittal"].noise_seed == all_on.noise_seed
    alone = drawn(OFF.replace(bias_field=0.4))["sagittal"].coefficients
    assert np.array_equal(alone, all_on.coefficients)


def test_views_do_not_depend_on_grey_values() -> None:
    """An exam's rotations, shifts and mirroring are the same with and without changes of grey."""
    rng = np.random.default_rng(0)
    exam = Exam("7", {p: rng.integers(0, 255, (3, 32, 32), dtype=np.uint8) for p in PLANES})
    views = AugmentationSettings()
    plain = frame_exam(exam, SMALL, views, 1, 2).slices
    gamma = frame_exam(exam, SMALL, views.replace(gamma=0.5), 1, 2).slices
    exponent = draw_intensities(views.replace(gamma=0.5), 1, 2, "7", PLANES)["axial"].gamma
    for plane in PLANES:
        expected = apply_intensity(plain[plane], replace(STILL, gamma=exponent))
        assert torch.equal(gamma[plane], expected)
        assert not torch.equal(gamma[plane], plain[plane])


@pytest.mark.parametrize("bad", [{"gamma": -0.1}, {"bias_field": 3.0}, {"noise": 1.0}])
def test_ranges_are_checked(bad: dict[str, float]) -> None:
    """An impossible range is an error that names the setting."""
    with pytest.raises(SettingsError, match=f"augmentation.{next(iter(bad))}"):
        AugmentationSettings(**bad)  # type: ignore[arg-type]
