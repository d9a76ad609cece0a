from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrknee.checks.similarity import (
    CELLS,
    SMALLEST,
    best_window,
    distance,
    features,
    grid,
    hashes,
    thumbnails,
)
from mrknee.sources.phantom import Truth, render_exam

SOUND = Truth(abnormal=False, acl=False, meniscus=False)


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    """The sagittal slices of a phantom at low resolution."""
    return grid(render_exam(5, SOUND, size=96).stacks["sagittal"])


def test_a_cell_is_the_mean_of_its_pixels() -> None:
    """256 pixels become cells of 8 x 8 pixels, rounded down."""
    stack = np.random.default_rng(0).integers(0, 256, (3, 256, 256)).astype(np.uint8)
    means = stack.reshape(3, 32, 8, 32, 8).mean(axis=(2, 4))
    np.testing.assert_array_equal(grid(stack), np.floor(means).astype(np.uint8))


@given(rows=st.integers(1, 90), cols=st.integers(1, 90), value=st.integers(0, 255))
def test_a_flat_stack_has_flat_cells(rows: int, cols: int, value: int) -> None:
    """All cells of a constant stack have its value, whatever the size."""
    assert (grid(np.full((2, rows, cols), value, dtype=np.uint8)) == value).all()


def test_the_product_of_features_is_a_correlation(cells: np.ndarray) -> None:
    """A stack has correlation 1 with itself, whatever its brightness and contrast."""
    images = thumbnails(cells)
    assert features(images) @ features(images) == pytest.approx(1, abs=1e-5)
    assert features(images) @ features(images * 3 + 40) == pytest.approx(1, abs=1e-5)
    assert not features(np.full((2, 32, 32), 7, dtype=np.float32)).any()


def test_the_hash_is_invariant_to_brightness_and_contrast(cells: np.ndarray) -> None:
    """A linear change of grey values hardly changes any bit."""
    values = cells.astype(np.float32)
    differing = hashes(values) != hashes(values * 2 + 30)
    assert differing.mean() < 0.002  # a coefficient next to the median may round to either side


def test_the_distance_is_symmetric_and_depends_on_the_order(cells: np.ndarray) -> None:
    """A stack has distance 0 to itself, its reverse and its part, and 0.5 to noise."""
    own = hashes(cells)
    assert distance(own, own) == 0
    assert distance(own, own[::-1]) == 0
    assert distance(own, own[3:-2]) == 0
    noise = hashes(np.random.default_rng(0).integers(0, 255, cells.shape).astype(np.uint8))
    assert distance(own, noise) == pytest.approx(distance(noise, own))
    assert distance(own, noise) == pytest.approx(0.5, abs=0.05)


def test_shuffled_slices_are_another_stack(cells: np.ndarray) -> None:
    """Shuffled slices are far from the original stack, though each slice occurs in it."""
    order = np.random.default_rng(0).permutation(len(cells))
    assert distance(hashes(cells), hashes(cells[order])) > 0.1


@pytest.mark.parametrize("window", [(0, 28, 4, 32), (3, 29, 2, 30), (0, 32, 0, 24)])
def test_the_window_is_found(cells: np.ndarray, window: tuple[int, int, int, int]) -> None:
    """Starting from the full image, the search finds every edge of a crop within one cell."""
    top, bottom, left, right = window
    images = thumbnails(cells)
    target = features(images[:, top:bottom, left:right])
    found = best_window(images, target, (0, CELLS, 0, CELLS))
    assert np.abs(np.subtract(found, window)).max() <= 1
    assert min(found) >= 0
    assert max(found) <= CELLS
    assert min(found[1] - found[0], found[3] - found[2]) >= SMALLEST
