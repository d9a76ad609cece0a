from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from mrknee.errors import MrkneeError
from mrknee.models.settings import NetworkSettings


def test_defaults_are_the_reference_network() -> None:
    """By default the network is the reference: three AlexNets and maximum pooling."""
    settings = NetworkSettings()
    assert settings.encoder == "alexnet"
    assert not settings.shared_encoder
    assert settings.slice_pooling == "max"
    assert settings.frozen_stages == 0
    assert settings.dropout == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"encoder": ""},
        {"encoder": 3},
        {"shared_encoder": "yes"},
        {"slice_pooling": "median"},
        {"frozen_stages": -1001},
        {"frozen_stages": True},
        {"frozen_stages": 1.0},
        {"batchnorm": "thawed"},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"dropout": float("nan")},
        {"dropout": "0.5"},
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any]) -> None:
    """A value out of range or of the wrong type raises, naming setting and value."""
    with pytest.raises(MrkneeError) as caught:
        NetworkSettings(**wrong)
    ((name, value),) = wrong.items()
    assert name in caught.value.what
    assert caught.value.expected
    assert caught.value.found == repr(value)


def test_settings_are_frozen() -> None:
    """The settings of a network are immutable."""
    with pytest.raises(ValidationError, match="frozen"):
        NetworkSettings().dropout = 0.5


@pytest.mark.slow
def test_settings_and_catalogue_need_no_torch() -> None:
    """Settings and catalogue are imported without torch, timm or torchvision."""
    program = (
        "import sys, mrknee.models.settings, mrknee.models.catalogue as c; c.EncoderTable();"
        "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - our own program
