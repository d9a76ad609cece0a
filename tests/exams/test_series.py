from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch import nn

from mrknee.errors import DataError
from mrknee.exams import (
    MRNET_SERIES,
    PLANES,
    Plane,
    Series,
    SeriesList,
    by_series,
    read_series,
    write_series,
)
from mrknee.exams.series import MOST_SERIES

SIX = SeriesList(
    [
        Series("sag_pd_fs", "sagittal", "PD", fat_suppressed=True),
        Series("sag_t1", "sag", "T1", fat_suppressed=False),
        Series("cor_pd_fs", "coronal", "PD", fat_suppressed=True),
        Series("cor_t1", "coronal", "T1"),
        Series("ax_pd_fs", "axial", "PD", fat_suppressed=True),
        Series("ax_gre", "axial", "GRE"),
    ]
)
SIX_FILE = """name,plane,weighting,fat_suppressed
sag_pd_fs,sagittal,PD,1
sag_t1,sagittal,T1,0
cor_pd_fs,coronal,PD,1
cor_t1,coronal,T1,
ax_pd_fs,axial,PD,1
ax_gre,axial,GRE,
"""


def test_mrnets_series_are_its_planes_in_their_order() -> None:
    """MRNet's series are axial, coronal, sagittal, each in its plane, with no stated contrast."""
    assert MRNET_SERIES.names == PLANES
    assert [one.plane for one in MRNET_SERIES] == list(PLANES)
    assert {(one.weighting, one.fat_suppressed) for one in MRNET_SERIES} == {(None, None)}


@pytest.mark.parametrize("name", ["a", "sag_pd_fs", "t1", "x" * 40])
def test_valid_names_are_accepted(name: str) -> None:
    """Names are letters, digits and underscores, starting with a letter."""
    assert Series(name, "axial").name == name


@pytest.mark.parametrize(
    "name", ["", "T1", "1t", "_x", "sag-pd", "sag pd", "sag.pd", "a/b", "x" * 41, "säg", "a\n"]
)
def test_invalid_names_are_refused(name: str) -> None:
    """Names become folders, parameters, columns and inputs of graphs, so few are valid."""
    with pytest.raises(DataError, match="name of a series is invalid") as error:
        Series(name, "axial")
    assert error.value.code == "series"


@pytest.mark.parametrize("name", ["train", "valid", "test", "present", "logits", "shared", "items"])
def test_reserved_names_are_refused(name: str) -> None:
    """Folders of splits, inputs and outputs of a model, and methods of modules are reserved."""
    with pytest.raises(DataError, match="name of a series is invalid") as error:
        Series(name, "axial")
    assert f"{name}_1" in (error.value.expected or "")


def test_every_attribute_of_a_module_dictionary_is_reserved() -> None:
    """A network keeps one module per series in torch's ModuleDict, which refuses these keys."""
    names = [n for n in dir(nn.ModuleDict()) if re.fullmatch(r"[a-z][a-z0-9_]{0,39}", n)]
    assert len(names) > 50
    for name in names:
        with pytest.raises(DataError, match="name of a series is invalid"):
            Series(name, "axial")


@pytest.mark.parametrize(("name", "plane"), [("axial", "sagittal"), ("sag", "coronal")])
def test_a_series_named_after_a_plane_has_that_plane(name: str, plane: str) -> None:
    """A series `sag` in the coronal plane is refused, because `named` would find it as sagittal."""
    with pytest.raises(DataError, match="named after another plane"):
        Series(name, plane)
    assert Series("sag", "sagittal").plane is Plane.SAGITTAL


def test_an_unknown_plane_or_weighting_is_refused() -> None:
    """Planes and weightings come from fixed lists; planes also by synonyms, in any case."""
    with pytest.raises(DataError, match="plane of the series x"):
        Series("x", "oblique")
    with pytest.raises(DataError, match="weighting of the series x"):
        Series("x", "axial", "FLAIR")
    assert Series("x", "Tra").plane is Plane.AXIAL


def test_a_list_has_a_limited_number_of_unique_series() -> None:
    """An empty list, a repeated name and too many series are refused."""
    many = [Series(f"s{number}", "axial") for number in range(MOST_SERIES + 1)]
    assert len(SeriesList(many[:-1])) == MOST_SERIES
    for wrong in ([], [many[0], many[0]], many):
        with pytest.raises(DataError, match="the list of series is invalid"):
            SeriesList(wrong)


def test_series_are_found_by_name_in_any_case_and_by_synonyms_of_planes() -> None:
    """Synonyms name the series named after the plane, and nothing if there is none."""
    assert MRNET_SERIES.named("SAG") == MRNET_SERIES[2]
    assert SIX.named("Sag_T1") == SIX[1]
    assert SIX.named("sagittal") is None
    assert SIX.named("sag") is None


def test_mappings_are_sorted_in_the_order_of_the_series() -> None:
    """Order and case of the keys don't matter; unknown keys are refused with the valid names."""
    assert list(by_series({"cor_t1": 1, "SAG_T1": 2}, SIX)) == ["sag_t1", "cor_t1"]
    for wrong in ({"axial": 1}, {"cor_t1": 1, "COR_T1": 2}):
        with pytest.raises(DataError) as error:
            by_series(wrong, SIX, exam="7")
        assert (error.value.code, error.value.exam) == ("series-name", "7")
        assert "sag_pd_fs" in (error.value.expected or "")


def test_series_are_converted_to_dictionaries_and_back() -> None:
    """The dictionaries that models store give the same series."""
    assert SeriesList.from_dicts(SIX.to_dicts()) == SIX
    assert isinstance(SIX.to_dicts()[0]["plane"], str)


def test_a_list_is_written_and_read(tmp_path: Path) -> None:
    """Series are in the order of the lines; without the file they are MRNet's."""
    assert read_series(tmp_path) == MRNET_SERIES
    file = write_series(str(tmp_path), SIX)
    assert file.read_text() == SIX_FILE
    assert read_series(str(tmp_path)) == SIX


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + SIX_FILE.replace("\n", "\r\n"),
        SIX_FILE.upper(),
        SIX_FILE.replace(",", " , "),
        SIX_FILE.replace("\n", "\n\n").replace(",1\n", ",True\n").replace(",0\n", ",false\n"),
    ],
    ids=["spreadsheet", "upper case", "spaces", "blank lines and words"],
)
def test_a_file_written_by_a_spreadsheet_is_read(tmp_path: Path, text: str) -> None:
    """Byte order mark, line endings, upper case, spaces and truth values don't matter."""
    (tmp_path / "series.csv").write_text(text, encoding="utf-8")
    assert read_series(tmp_path) == SIX


def test_columns_may_be_missing_and_in_any_order(tmp_path: Path) -> None:
    """Only name and plane are required."""
    (tmp_path / "series.csv").write_text("plane,name\nsagittal,sagittal\n")
    assert read_series(tmp_path) == SeriesList([Series("sagittal", "sagittal")])


@pytest.mark.parametrize(
    ("text", "code", "found"),
    [
        ("", "declaration", "empty file"),
        ("sag_pd,sagittal\n", "declaration", "line 1: 'sag_pd,sagittal'"),
        ("name\nsag_pd\n", "declaration", "line 1: 'name'"),
        ("name;plane\nsag_pd;sagittal\n", "declaration", "line 1: 'name;plane'"),
        ("name,plane,side\nsag_pd,sagittal,left\n", "declaration", "side"),
        ("name,plane,plane\nsag_pd,sagittal,axial\n", "declaration", "line 1"),
        ("name,plane\nsag_pd\n", "declaration", "1 fields in line 2: 'sag_pd'"),
        ("name,plane\nsag_pd,sagittal,PD\n", "declaration", "3 fields in line 2"),
        ('name,plane\n"sag_pd,sagittal\n', "declaration", "line 2"),
        ("name,plane\n", "series", "none"),
        ("name,plane\nsag pd,sagittal\n", "series", "line 2: 'sag pd,sagittal'"),
        ("name,plane\n,sagittal\n", "series", "line 2: ',sagittal'"),
        ("name,plane\ntrain,sagittal\n", "series", "line 2: 'train,sagittal'"),
        ("name,plane\nx,\n", "series", "line 2: 'x,'"),
        ("name,plane\nx,axial\nX,axial\n", "series", "x, x"),
        ("name,plane,weighting\nx,axial,STIR\n", "series", "line 2: 'x,axial,STIR'"),
        ("name,plane,fat_suppressed\nx,axial,yes\n", "series", "line 2: 'x,axial,yes'"),
        ("name,plane\n" + "".join(f"s{n},axial\n" for n in range(33)), "series", "s32"),
    ],
)
def test_a_broken_list_is_refused(tmp_path: Path, text: str, code: str, found: str) -> None:
    """The error names the file and, if possible, the line."""
    (tmp_path / "series.csv").write_text(text)
    with pytest.raises(DataError) as error:
        read_series(tmp_path)
    assert (error.value.code, error.value.file) == (code, str(tmp_path / "series.csv"))
    assert found in (error.value.found or "")
    assert error.value.expected


def test_a_file_that_is_not_text_or_too_large_is_refused(tmp_path: Path) -> None:
    """The file is refused before it is parsed as a table."""
    for content in (b"\xff\xfe\x00", b"name,plane\n" + b" " * 200_000):
        (tmp_path / "series.csv").write_bytes(content)
        with pytest.raises(DataError) as error:
            read_series(tmp_path)
        assert error.value.file == str(tmp_path / "series.csv")
