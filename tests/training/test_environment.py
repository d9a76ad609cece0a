from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mrknee.training import run
from mrknee.training.environment import has_bfloat16
from tests.training.test_run import QUICK


def test_bfloat16_support_agrees_with_processor_flags() -> None:
    """The result agrees with the processor's list of instructions (Linux)."""
    flags = Path("/proc/cpuinfo").read_text()
    if torch.cuda.is_available() or "flags" not in flags:
        pytest.skip("an x86 processor without a GPU")
    words = set(flags.split())
    assert has_bfloat16() == bool({"avx512_bf16", "amx_bf16"} & words)


@pytest.mark.parametrize(("known", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_precision_depends_on_bfloat16_support(
    known: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` is bfloat16 if there are instructions for it, else float32; others are unchanged."""
    monkeypatch.setattr(run, "has_bfloat16", lambda: known)
    for asked, given in (("auto", precision), ("bf16-mixed", "bf16-mixed")):
        recipe = QUICK.replace(precision=asked)
        assert run._precision(recipe) == given
