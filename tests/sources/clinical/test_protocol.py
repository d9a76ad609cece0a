"""The rule that chooses a series for a plane."""

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
    by_specificity,
    candidates,
    closeness,
    matches,
    ranked,
    reason_not_chosen,
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
        (Plane.AXIAL, {"name": "PD FS"}, {"name": "PD FS", "pixel": 0.9}, "pixel size"),
        (Plane.AXIAL, {"name": "PD FS", "number": 9}, {"name": "PD FS"}, "last repeat"),
    ],
)
def test_the_closest_to_mrnets_protocol_is_first(
    tmp_path: Path,
    plane: Plane,
    better: dict[str, object],
    worse: dict[str, object],
    why: str,
) -> None:
    """Each difference in the rule of docs/reference/import-rules.md decides as stated there."""
    stack = np.repeat(TINY, 20, axis=0)
    scans = [replace(Scan(plane, 1), **worse), replace(Scan(plane, 2), **better)]  # type: ignore[arg-type]
    written = [one for scan in scans for one in datasets(stack, scan)]
    found = candidates(series_of(written, tmp_path))
    first, second = ranked(found, MRNETS[plane])
    assert first.series.first.names[0] == str(better["name"])
    assert first.series.first.pixel_mm[0] == scans[1].pixel
    assert why in reason_not_chosen(second, first, MRNETS[plane])


def test_few_slices_come_last(tmp_path: Path) -> None:
    """A stack of 20 slices precedes one of 3 with a better weighting."""
    scans = (Scan(Plane.SAGITTAL, 1, "T2 FS"), Scan(Plane.SAGITTAL, 2, "PD FS"))
    written = datasets(np.repeat(TINY, 3, axis=0), scans[0])
    written += datasets(np.repeat(TINY, 20, axis=0), scans[1])
    sagittal = MRNETS[Plane.SAGITTAL]
    first, second = ranked(candidates(series_of(written, tmp_path)), sagittal)
    assert first.weighting == "PD"
    assert "number of slices" in reason_not_chosen(second, first, sagittal)


def echoes(times: list[float], *, together: bool = True, **header: Any) -> list[Image]:  # noqa: ANN401
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
            **header,
        )
    ]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", ["SAG T2 MAP FS", "MAPIT", "SAG MULTI ECHO"])
def test_echoes_of_a_map_come_after_a_series_of_one_contrast(together: bool, name: str) -> None:
    """Any single-contrast series precedes the echoes of a map, whatever their names."""
    maps = echoes([10.0, 22.0, 34.0, 46.0, 58.0], together=together, names=(name, ""))
    for te, tr, weighting in ((60.0, 3500.0, "T2"), (30.0, 3000.0, "PD"), (12.0, 600.0, "T1")):
        single = images(te_ms=te, tr_ms=tr, series="single", names=("SAG", ""), series_number=2)
        sagittal = MRNETS[Plane.SAGITTAL]
        first, *others = ranked(candidates(sort_into_series(maps + single)), sagittal)
        assert first.weighting == weighting
        assert first.series.first.series == "single"
        assert "single contrast" in reason_not_chosen(others[0], first, sagittal)


@pytest.mark.parametrize(
    ("plane", "best"), [(Plane.SAGITTAL, 58.0), (Plane.CORONAL, 10.0), (Plane.AXIAL, 34.0)]
)
def test_of_several_echoes_the_nearest_to_the_protocol_is_taken(plane: Plane, best: float) -> None:
    """Without another series, the echo nearest to the protocol's is used for the plane."""
    maps = echoes([10.0, 22.0, 34.0, 46.0, 58.0, 70.0, 82.0], plane=plane, names=("T2 MAP", ""))
    row = ranked(candidates(sort_into_series(maps)), MRNETS[plane])
    assert row[0].series.first.te_ms == best
    assert len(row) == 7


def test_two_echoes_are_two_contrasts() -> None:
    """A dual echo of PD and T2 ranks like two single-contrast series."""
    dual = echoes([15.0, 80.0], names=("PD T2 DUAL", ""))
    found = candidates(sort_into_series(dual))
    assert [one.weighting for one in found] == ["PD", "T2"]
    assert not any(one.many_echoes for one in found)


def test_more_specific_declarations_choose_first() -> None:
    """Series with weighting and fat suppression precede those with one or none, else in order."""
    series = SeriesList(
        [
            Series("any", "sagittal"),
            Series("fs", "sagittal", None, True),
            Series("pd_fs", "sagittal", "PD", True),
            Series("t2", "sagittal", "T2"),
            Series("t1", "coronal", "T1", False),
        ]
    )
    assert [one.name for one in by_specificity(series)] == ["pd_fs", "t1", "fs", "t2", "any"]


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
    """An unknown weighting or fat suppression matches no declared one."""
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
    """The preferred echo time is that of the declared weighting, not MRNet's of the plane."""
    maps = echoes([10.0, 22.0, 34.0, 46.0, 58.0, 70.0, 82.0], names=("T2 MAP", ""))
    found = candidates(sort_into_series(maps))
    for weighting, best in (("PD", 34.0), ("T2", 58.0)):
        row = ranked(found, Series("sag", "sagittal", weighting))
        assert row[0].series.first.te_ms == best
        assert {one.weighting for one in row} == {weighting}


def test_what_is_not_declared_is_compared_with_mrnets(tmp_path: Path) -> None:
    """A sagittal series without declared contrast is preferably T2 with fat suppression."""
    declared = Series("sag", "sagittal", None, False)
    t2, pd = (
        candidate(tmp_path / name, Scan(Plane.SAGITTAL, 1, name, te))
        for name, te in (("T2", 70.0), ("PD", 20.0))
    )
    assert closeness(t2, declared) < closeness(pd, declared)
    reason = reason_not_chosen(pd, t2, declared)
    assert reason == "s1 is closer to what sag declares by its weighting"
