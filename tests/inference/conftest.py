from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest

from mrknee.export.onnx import export
from mrknee.models.settings import NetworkSettings
from tests.export.test_onnx import make_run


@pytest.fixture(scope="module")
def untraced() -> Iterator[None]:
    """Disables shape checks, because a tracer's sizes are symbols."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run folder and the file exported from it, which no test may change.

    An export takes as long as some hundred other tests: once per process.
    """
    folder = tmp_path_factory.mktemp("exported")
    run = make_run(folder / "run", NetworkSettings(encoder="test_resnet", shared_encoder=True))
    jaxtyping.config.update("jaxtyping_disable", True)  # as `untraced`, which is made later
    export(run, folder / "model.onnx")
    jaxtyping.config.update("jaxtyping_disable", False)
    return run, folder / "model.onnx"
