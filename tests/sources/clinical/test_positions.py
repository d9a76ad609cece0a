"""Positions of imported stacks in the patient, by a dark spot whose place is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrknee.exams import MRNET_SERIES, Dataset
from mrknee.server.geometry import SeriesPosition, geometry_of, read_records
from mrknee.sources.clinical.importing import import_exams
from tests.sources.clinical.hospital import PROTOCOL, ROOT, Scan, export_series, knee

SPOT = np.array([-74.0, 3.0, 16.0])
"""Patient coordinates of the spot, mm."""


def with_spot(scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    """Returns the knee with a black spot in a grey cube, and the position of the spot."""
    upright = replace(scan, turned=(False, False, False), transposed=False)
    stack = knee()[scan.plane].copy()
    steps = upright.axes * np.array([scan.spacing, scan.pixel, scan.pixel])[:, None]
    middle = (np.array(stack.shape) - 1) / 2
    index = np.rint((SPOT - scan.centre) @ np.linalg.inv(steps) + middle).astype(int)
    k, row, col = index
    stack[k - 1 : k + 2, row - 8 : row + 9, col - 8 : col + 9] = 128
    stack[k, row - 2 : row + 3, col - 2 : col + 3] = 0
    return stack, scan.centre + (index - middle) @ steps


def darkest(stack: np.ndarray, position: SeriesPosition) -> np.ndarray:
    """Returns slice, row and column of the centre of what is dark near the spot."""
    places = np.argwhere(stack < 30)
    points = np.array(position.first) + places @ np.array(position.steps)
    return np.asarray(places[np.linalg.norm(points - SPOT, axis=1) < 5.0].mean(axis=0))


def positions(exam: Any, record: Any) -> dict[str, SeriesPosition | None]:  # noqa: ANN401  # JSON
    """Returns the position of each series, from the record of the import."""
    shapes = {name: stack.shape for name, stack in exam.stacks.items()}
    found = geometry_of(record, MRNET_SERIES, shapes)
    return {name: one.position for name, one in found.items()}


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {}),
        ({"turned": (True, False, True)}, {}),
        ({"turned": (True, True, False), "transposed": True}, {}),
        ({"tilt": 14.0}, {}),
        ({}, {"sides": "left"}),  # a right knee, mirrored
        ({"turned": (False, True, True), "tilt": 9.0}, {"sides": "left", "crop_mm": 110.0}),
        ({}, {"size": 320}),
    ],
    ids=["plain", "turned", "transposed", "tilted", "mirrored", "mirrored-cropped", "enlarged"],
)
def test_a_point_of_the_patient_is_found_in_each_stack(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any]
) -> None:
    """The recorded positions lead to the spot, to a pixel, in stacks of every orientation."""
    expected = {}
    for scan in PROTOCOL:
        elements = {**scan.elements, "FrameOfReferenceUID": ROOT + "7", "Laterality": "R"}
        scan = replace(scan, elements=elements, **changes)
        upright = replace(scan, turned=(False, False, False), transposed=False)
        stack, expected[str(scan.plane)] = with_spot(upright)
        export_series(tmp_path / "in", scan, stack)
    imported = import_exams(tmp_path / "in", tmp_path / "out", **options)
    (exam,) = Dataset(tmp_path / "out")
    record = imported.exams["0000"]
    assert record["mirrored"] == (options.get("sides") == "left")
    for name, position in positions(exam, record).items():
        assert position is not None
        assert position.frame == 1
        stack = exam.stacks[name]
        spot = np.array(position.first) + darkest(stack, position) @ np.array(position.steps)
        pixel = float(np.linalg.norm(position.steps[1]))
        np.testing.assert_allclose(spot, expected[name], rtol=0, atol=pixel, err_msg=name)


def test_positions_of_unknown_or_different_frames_are_not_compared(tmp_path: Path) -> None:
    """Series of one frame of reference have one number; without a frame there is no position."""
    frames: tuple[str | None, ...] = (ROOT + "1", ROOT + "2", None)
    for scan, uid in zip(PROTOCOL, frames, strict=True):
        extra = {} if uid is None else {"FrameOfReferenceUID": uid}
        placed = replace(scan, elements={**scan.elements, **extra})
        export_series(tmp_path / "in", placed, knee()[scan.plane])
    imported = import_exams(tmp_path / "in", tmp_path / "out")
    (exam,) = Dataset(tmp_path / "out")
    found = positions(exam, imported.exams["0000"])
    assert sorted(one.frame for one in found.values() if one is not None) == [1, 2]
    assert list(found.values()).count(None) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("frame", None), ("frame", "1"), ("centre_mm", [1.0, 2.0]), ("centre_mm", None)),
        *(("axes", [[1, 0, 0], [0, 1, 0]]), ("axes", [[1, 0, 0], [0, 1, 0], [0, "x", 1]])),
        ("axes", [[1, 0, 0], [0, 1, 0], [0, 0, float("nan")]]),
        ("axes", [[1, 0, 0], [0, 1, 0], [0, 0, 0]]),
    ],
)
def test_a_record_without_a_usable_position_has_none(field: str, value: object) -> None:
    """Records of earlier versions, and edited ones, give a series without a position."""
    plane = {
        "slices": 3,
        "size": 4,
        "pixel_mm": 0.5,
        "spacing_mm": 3.0,
        "frame": 1,
        "centre_mm": [0.0, 0.0, 0.0],
        "axes": [[0, 0, -1], [0, 1, 0], [1, 0, 0]],
    }
    whole = geometry_of({"planes": {"axial": plane}}, MRNET_SERIES, {"axial": (3, 4, 4)})
    assert whole["axial"].position == SeriesPosition(
        1, (-0.75, -0.75, 3.0), ((0.0, 0.0, -3.0), (0.0, 0.5, 0.0), (0.5, 0.0, 0.0))
    )
    record = {"planes": {"axial": {**plane, field: value}}}
    found = geometry_of(record, MRNET_SERIES, {"axial": (3, 4, 4)})
    assert found["axial"].position is None
    assert found["axial"].spacing == (3.0, 0.5, 0.5)


def test_the_record_of_an_rsna_import_lies_beside_the_data(tmp_path: Path) -> None:
    """`mrknee rsna OUT` writes OUT/import.json and OUT/data, `mrknee import` OUT/import.json."""
    (tmp_path / "import.json").write_text('{"exams": {"1.2": {}}}')
    assert read_records(tmp_path / "data") == read_records(tmp_path) == {"1.2": {}}
    assert read_records(tmp_path / "elsewhere") == {}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "import.json").write_text('{"exams": {"0000": {}}}')
    assert read_records(tmp_path / "data") == {"0000": {}}  # of `mrknee import SRC data`
