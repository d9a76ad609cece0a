"""Software versions, machine and command of a run, for environment.json."""

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
    """Returns whether the GPU, or else the processor, has instructions for bfloat16."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        capabilities = torch.cpu.get_capabilities()
    except AttributeError:  # torch before 2.9 doesn't report them
        return False
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def software_versions() -> dict[str, Any]:
    """Returns versions and type of machine, which are the same for each start on one machine."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:  # run from a source tree without installation
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
    """Returns versions, machine, command and time; no user data except in the command."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],  # noqa: PTH119  # an argument, not a path
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **software_versions(),
    }


def json_safe(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content as JSON can store it, with question marks for bytes that aren't UTF-8.

    Python represents such bytes in names of files as lone surrogates, which JSON readers may
    refuse.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return dict(parse_json(text.encode(errors="replace"), None, "record"))
