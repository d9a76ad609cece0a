"""Which series is chosen for a plane."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mrknee.exams import MRNET_SERIES, Plane, Series, SeriesList
from mrknee.sources.clinical.header import Image
from mrknee.sources.clinical.protocol import (
    Candidate,
    candidates,
    closeness,
    in_turn,
    matches,
    ranked,
    why_not,
)
from mrknee.sources.clinical.series import sort_into_series
from tests.sources.clinical.headers import images
from tests.sources.clinical.hospital import Scan, datasets
from tests.sources.clinical.test_pixels import series_of

MRNETS = {one.plane: one for one in MRNET_SERIES}
TINY = np.arange(4 * 4, dtype=np.uint8).reshape(1, 4, 4)


def candidate(folder: Path, scan: Scan, slices: int = 20) -> Candidate:
    """One scan as a candidate."""
    stack = np.repeat(TINY, slices, axis=0)
    (found,) = candidates(series_of(datasets(stack, scan), folder))
    return found


@pytest.mark.parametrize(
    ("plane", "better", "worse", "why"),
    [
        (Plane.SAGITTAL, {"name": "T2 FS", "te": 70.0}, {"name": "PD FS"}, "weighting"),
        (Plane.SAGITTAL, {"name": "T2 FS"}, {"name": "T2"}, "fat saturation"),
        (Plane.CORONAL, {"name": "T1", "te": 12.0, "tr": 500.0}, {"name": "PD"}, "weighting"),
        (Plane.CORONAL, {"name": "PD"}, {"name": "PD FS"}, "fat saturation"),
        (Plane.AXIAL, {"name": "PD FS"}, {"name": "T2 FS", "te": 70.0}, "weighting"),
        (Plane.AXIAL, {"name": "PD FS"}, {"name": "PD FS", "tilt": 20.0}, "angle"),
        (Plane.AXIAL, {"name": "PD FS"}, {"name": "PD FS", "pixel": 0.9}, "pixels"),
        (Plane.AXIAL, {"name": "PD FS", "number": 9}, {"name": "PD FS"}, "last one made"),
    ],
)
def test_the_closest_to_mrnets_protocol_is_first(
    tmp_path: Path,
    plane: Plane,
    better: dict[str, object],
    worse: dict[str, object],
    why: str,
) -> None:
    """The rule of docs/reference/import-rules.md, a difference at a time."""
    stack = np.repeat(TINY, 20, axis=0)
    scans = [replace(Scan(plane, 1), **worse), replace(Scan(plane, 2), **better)]  # type: ignore[arg-type]
    written = [one for scan in scans for one in datasets(stack, scan)]
    found = candidates(series_of(written, tmp_path))
    first, second = ranked(found, MRNETS[plane])
    assert first.series.first.names[0] == str(better["name"])
    assert first.series.first.pixel_mm[0] == scans[1].pixel
    assert why in why_not(second, first, MRNETS[plane])


def test_few_slices_come_last(tmp_path: Path) -> None:
    """A stack of 3 of the right weighting doesn't beat one of 20 of the next best."""
    scans = (Scan(Plane.SAGITTAL, 1, "T2 FS"), Scan(Plane.SAGITTAL, 2, "PD FS"))
    written = datasets(np.repeat(TINY, 3, axis=0), scans[0])
    written += datasets(np.repeat(TINY, 20, axis=0), scans[1])
    sagittal = MRNETS[Plane.SAGITTAL]
    first, second = ranked(candidates(series_of(written, tmp_path)), sagittal)
    assert first.weighting == "PD"
    assert "number of slices" in why_not(second, first, sagittal)


def echoes(times: list[float], *, together: bool = True, **said: Any) -> list[Image]:  # noqa: ANN401
    """One sequence of several echoes, in one series or in one each."""
    return [
        image
        for index, te in enumerate(times)
        for image in images(
            te_ms=te,
            echo=index + 1,
            tr_ms=2000.0,
            first=1 + 20 * index,
            series="map" if together else f"map {index}",
            series_number=7 if together else 7 + index,
            **said,
        )
    ]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", ["SAG T2 MAP FS", "MAPIT", "SAG MULTI ECHO"])
def test_echoes_of_a_map_come_after_a_series_of_one_contrast(together: bool, name: str) -> None:
    """Whatever a map's echoes are called, the T2 series is taken, even a PD or T1 one."""
    maps = echoes([10.0, 22.0, 34.0, 46.0, 58.0], together=together, names=(name, ""))
    for te, tr, weighting in ((60.0, 3500.0, "T2"), (30.0, 3000.0, "PD"), (12.0, 600.0, "T1")):
        single = images(te_ms=te, tr_ms=tr, series="single", names=("SAG", ""), series_number=2)
        sagittal = MRNETS[Plane.SAGITTAL]
        first, *others = ranked(candidates(sort_into_series(maps + single)), sagittal)
        assert first.weighting == weighting
        assert first.series.first.series == "single"
        assert "single one" in why_not(others[0], first, sagittal)


@pytest.mark.parametrize(
    ("plane", "best"), [(Plane.SAGITTAL, 58.0), (Plane.CORONAL, 10.0), (Plane.AXIAL, 34.0)]
)
def test_of_several_echoes_the_nearest_to_the_protocol_is_taken(plane: Plane, best: float) -> None:
    """Where there is nothing else, the echo nearest to the protocol's stands for the plane."""
    maps = echoes([10.0, 22.0, 34.0, 46.0, 58.0, 70.0, 82.0], plane=plane, names=("T2 MAP", ""))
    row = ranked(candidates(sort_into_series(maps)), MRNETS[plane])
    assert row[0].series.first.te_ms == best
    assert len(row) == 7


def test_two_echoes_are_two_contrasts() -> None:
    """A dual echo of PD and T2 ranks as the two series that it is."""
    dual = echoes([15.0, 80.0], names=("PD T2 DUAL", ""))
    found = candidates(sort_into_series(dual))
    assert [one.weighting for one in found] == ["PD", "T2"]
    assert not any(one.many_echoes for one in found)


def test_declarations_that_say_more_choose_first() -> None:
    """Weighting and fat suppression, then one of them, then neither; else as they are declared."""
    series = SeriesList(
        [
            Series("any", "sagittal"),
            Series("fs", "sagittal", None, True),
            Series("pd_fs", "sagittal", "PD", True),
            Series("t2", "sagittal", "T2"),
            Series("t1", "coronal", "T1", False),
        ]
    )
    assert [one.name for one in in_turn(series)] == ["pd_fs", "t1", "fs", "t2", "any"]


@pytest.mark.parametrize(
    ("scan", "fitting"),
    [
        ({"name": "PD FS"}, {"any", "pd", "fs"}),
        ({"name": "PD"}, {"any", "pd", "not_fs"}),
        ({"name": "X", "te": 12.0, "tr": 600.0}, {"any", "t1", "not_fs"}),
        ({"name": "X", "te": 70.0, "elements": {"ScanOptions": "FS"}}, {"any", "t2", "fs"}),
        ({"name": "X", "elements": {"ScanningSequence": "GR"}}, {"any", "gre", "not_fs"}),
        ({"name": "X", "te": None, "tr": None}, {"any", "not_fs"}),
        ({"name": "", "elements": {"StudyDescription": None}}, {"any", "pd"}),
    ],
)
def test_what_is_declared_must_be_known(
    tmp_path: Path, scan: dict[str, Any], fitting: set[str]
) -> None:
    """A weighting or fat suppression that nothing tells matches no declared one."""
    declared = [
        Series("any", "sagittal"),
        *(Series(name.lower(), "sagittal", name) for name in ("T1", "PD", "T2", "GRE")),
        Series("fs", "sagittal", None, True),
        Series("not_fs", "sagittal", None, False),
        Series("other_plane", "axial"),
    ]
    one = candidate(tmp_path, Scan(Plane.SAGITTAL, **scan))
    assert {series.name for series in declared if matches(one, series)} == fitting


def test_of_several_echoes_the_nearest_to_the_declared_weighting_is_taken() -> None:
    """A declared weighting has an echo time of its own, whatever MRNet's of the plane is."""
    maps = echoes([10.0, 22.0, 34.0, 46.0, 58.0, 70.0, 82.0], names=("T2 MAP", ""))
    found = candidates(sort_into_series(maps))
    for weighting, best in (("PD", 34.0), ("T2", 58.0)):
        row = ranked(found, Series("sag", "sagittal", weighting))
        assert row[0].series.first.te_ms == best
        assert {one.weighting for one in row} == {weighting}


def test_what_is_not_declared_is_compared_with_mrnets(tmp_path: Path) -> None:
    """A sagittal series of any contrast is T2 with fat suppression where there is one."""
    declared = Series("sag", "sagittal", None, False)
    t2, pd = (
        candidate(tmp_path / name, Scan(Plane.SAGITTAL, 1, name, te))
        for name, te in (("T2", 70.0), ("PD", 20.0))
    )
    assert closeness(t2, declared) < closeness(pd, declared)
    assert why_not(pd, t2, declared) == "s1 is closer to what sag declares by its weighting"
