"""Cosines of gradients: what they are for gradients whose agreement is known."""

from __future__ import annotations

import numpy as np
import pytest
from gradient_cosines import cosines


def test_the_corrected_cosine_is_free_of_noise() -> None:
    """Gradients of known directions, with noise of another size per finding and batch."""
    rng = np.random.default_rng(0)
    directions = np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    clean = np.zeros((3, 1, 400))
    clean[:, 0, :2] = directions
    noisy = clean + 0.1 * np.array([1.0, 0.5, 1.0])[:, None, None] * rng.normal(size=(3, 60, 400))
    noisy /= np.linalg.norm(noisy, axis=2, keepdims=True)
    rows = cosines(noisy, ("a", "b", "c"))
    found = {
        (row["first"], row["second"]): row["corrected"] for row in rows if row["batches"] == "other"
    }
    assert found["a", "b"] == pytest.approx(0.6, abs=0.05)
    assert found["a", "c"] == pytest.approx(-1.0, abs=0.05)
    own = next(row for row in rows if (row["first"], row["second"]) == ("a", "a"))
    assert own["batches"] == "other"
    assert own["cosine"] == pytest.approx(1 / (1 + 0.01 * 400), abs=0.03)
    assert len(rows) == 9, "three pairs twice, three findings once"
