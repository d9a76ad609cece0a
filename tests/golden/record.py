"""Writes `tests/golden/values.npz` and `values.json` with the present code.

    python -m tests.golden.record

Run it only if a value is meant to change, and state in the commit which one and why.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from tests.golden import compute

ARRAYS = Path(__file__).with_name("values.npz")
TEXT = Path(__file__).with_name("values.json")


def main() -> None:
    """Computes everything once and writes both files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arrays = {
            **compute.reference_logits(),
            **compute.augmented_pixels(),
            **compute.phantom_stacks(),
            **compute.trained_weights(folder),
            **compute.small_model_results(folder),
        }
    np.savez_compressed(ARRAYS, **arrays)  # type: ignore[arg-type]  # names are keywords
    text = {
        "machine": compute.machine(),
        "reference_parameters": compute.reference_parameters(),
        "augmentation_draws": compute.augmentation_draws(),
    }
    TEXT.write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main()
