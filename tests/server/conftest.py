"""Two models of the same small network, and a shared service for each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrknee.export import onnx as exporting
from mrknee.metrics.operating_point import OperatingPoint
from mrknee.models.checkpoint import load_checkpoint, save_checkpoint
from tests.export.test_onnx import FINDINGS, traced
from tests.server.client import NO_POINT, Served
from tests.server.room import wait_until_scored, write_room
from tests.server.room_page import write_page_data


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, exported_once: tuple[Path, Path]) -> Path:
    """A calibrated run folder of random weights with two operating points, one without a value.

    At the threshold of 0.5 some findings are positive and others are not.
    """
    run = tmp_path_factory.mktemp("models") / "run"
    loaded = load_checkpoint(exported_once[0] / "best")
    points = [
        OperatingPoint("Youden", 0.5, 15, 15).to_dict(),
        OperatingPoint("sensitivity >= 0.90", math.nan, 0, 15, NO_POINT).to_dict(),
    ]
    decisions = {**loaded.decisions, "operating_points": dict.fromkeys(FINDINGS, points)}
    save_checkpoint(run / "best", loaded.network, loaded.preparation, loaded.provenance, decisions)
    return run


@pytest.fixture(scope="session")
def onnx_file(run_folder: Path, exported_once: tuple[Path, Path]) -> Path:
    """The file exported from the run folder; its graph doesn't depend on the operating points."""
    file = run_folder.with_name("model.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "trace", lambda _: traced(exported_once[1]))
        exporting.export(run_folder, file)
    return file


@pytest.fixture(scope="session")
def served(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service of the exported model; at the end it has left no files and printed no errors."""
    with Served(onnx_file, tmp_path_factory.mktemp("served") / "onnx") as service:
        yield service
        assert service.end() == 0
        assert service.left == []
        assert service.stderr == ""


@pytest.fixture(scope="session")
def lenient(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service of the run folder that accepts exams without a plane."""
    folder = tmp_path_factory.mktemp("served") / "run"
    with Served(run_folder, folder, "--allow-missing-plane", "--threads", "1") as service:
        yield service
        assert service.end() == 0
        assert service.left == []


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of five exams."""
    return write_room(tmp_path_factory.mktemp("data") / "knees")


@pytest.fixture(scope="session")
def room(onnx_file: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service of the exported model with the data set."""
    folder = tmp_path_factory.mktemp("room") / "onnx"
    with Served(onnx_file, folder, "--exams", str(data)) as service:
        wait_until_scored(service)
        yield service
        assert service.end() == 0
        assert service.left == []
        assert service.stderr == ""


@pytest.fixture(scope="session")
def run_room(
    run_folder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A service of the run folder with the data set, which accepts missing series."""
    folder = tmp_path_factory.mktemp("room") / "run"
    words = ("--exams", str(data), "--allow-missing-plane", "--threads", "1")
    with Served(run_folder, folder, *words) as service:
        wait_until_scored(service)
        yield service
        assert service.end() == 0
        assert service.stderr == ""


@pytest.fixture(scope="session")
def page_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of the tests of the reading room's page."""
    return write_page_data(tmp_path_factory.mktemp("page") / "knees")


@pytest.fixture(scope="session")
def reading_room(
    onnx_file: Path, page_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A service of the exported model with that data set, which keeps notes."""
    folder = tmp_path_factory.mktemp("served") / "page"
    notes = tmp_path_factory.mktemp("notes") / "notes.sqlite"
    words = ("--exams", str(page_data), "--notes", str(notes), "--threads", "1")
    with Served(onnx_file, folder, *words) as service:
        wait_until_scored(service)
        yield service
        assert service.end() == 0
        assert service.left == []
        assert service.stderr == ""
