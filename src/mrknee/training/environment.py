"""Where and with what a run was made, for environment.json."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from mrknee.untrusted import parse_json

_PACKAGES = (
    "mrknee",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "scikit-learn",
)


def has_bfloat16() -> bool:
    """Whether the device that computes has instructions for bfloat16, so that it gains by it."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        known = torch.cpu.get_capabilities()
    except AttributeError:  # torch before 2.9 can't tell
        return False
    return any(bool(known.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def software() -> dict[str, Any]:
    """Versions and kind of machine: what is the same at each start on one machine."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:  # run from a source tree that was never installed
            packages[name] = "not installed"
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "accelerators": devices,
        "bfloat16": has_bfloat16(),
        "packages": packages,
    }


def describe_environment() -> dict[str, Any]:
    """Versions, machine, command and time; nothing of the user but the command's own words."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],  # noqa: PTH119  # a word, not a path
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **software(),
    }


def storable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts as JSON can hold and give them back: names of files that are no UTF-8 lose that.

    Python reads such a name's bytes as halves of characters, which no reader of JSON should take;
    here a question mark stands for each.
    """
    text = json.dumps(facts, ensure_ascii=False, allow_nan=False)
    return dict(parse_json(text.encode(errors="replace"), None, "record"))
