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
    """axial, coronal, sagittal, each in the plane that names it, nothing else stated."""
    assert MRNET_SERIES.names == PLANES
    assert [one.plane for one in MRNET_SERIES] == list(PLANES)
    assert {(one.weighting, one.fat_suppressed) for one in MRNET_SERIES} == {(None, None)}


@pytest.mark.parametrize("name", ["a", "sag_pd_fs", "t1", "x" * 40])
def test_names_are_short_words_in_lower_case(name: str) -> None:
    """Letters, digits and underscores, a letter first."""
    assert Series(name, "axial").name == name


@pytest.mark.parametrize(
    "name", ["", "T1", "1t", "_x", "sag-pd", "sag pd", "sag.pd", "a/b", "x" * 41, "säg", "a\n"]
)
def test_other_names_are_refused(name: str) -> None:
    """Names become folders, parameters, columns and inputs of graphs, so they are plain."""
    with pytest.raises(DataError, match="can't have this name") as error:
        Series(name, "axial")
    assert error.value.code == "series"


@pytest.mark.parametrize("name", ["train", "valid", "test", "present", "logits", "shared", "items"])
def test_reserved_names_are_refused(name: str) -> None:
    """Folders of splits, other inputs and outputs of a model, methods of modules."""
    with pytest.raises(DataError, match="can't have this name") as error:
        Series(name, "axial")
    assert f"{name}_1" in (error.value.expected or "")


def test_every_attribute_of_a_module_dictionary_is_reserved() -> None:
    """A network keeps one part per series in torch's ModuleDict, which takes no such key."""
    names = [n for n in dir(nn.ModuleDict()) if re.fullmatch(r"[a-z][a-z0-9_]{0,39}", n)]
    assert len(names) > 50
    for name in names:
        with pytest.raises(DataError, match="can't have this name"):
            Series(name, "axial")


@pytest.mark.parametrize(("name", "plane"), [("axial", "sagittal"), ("sag", "coronal")])
def test_a_series_named_by_a_plane_is_of_that_plane(name: str, plane: str) -> None:
    """`sag` of the coronal plane would be read as sagittal by every person and by `named`."""
    with pytest.raises(DataError, match="named by another plane"):
        Series(name, plane)
    assert Series("sag", "sagittal").plane is Plane.SAGITTAL


def test_an_unknown_plane_or_weighting_is_refused() -> None:
    """Both come from fixed lists; planes also by their synonyms, in any case."""
    with pytest.raises(DataError, match="plane of the series x"):
        Series("x", "oblique")
    with pytest.raises(DataError, match="weighting of the series x"):
        Series("x", "axial", "FLAIR")
    assert Series("x", "Tra").plane is Plane.AXIAL


def test_a_list_has_one_to_many_series_each_once() -> None:
    """None, two of one name, or more than any study has: refused."""
    many = [Series(f"s{number}", "axial") for number in range(MOST_SERIES + 1)]
    assert len(SeriesList(many[:-1])) == MOST_SERIES
    for wrong in ([], [many[0], many[0]], many):
        with pytest.raises(DataError, match="the series can't be used"):
            SeriesList(wrong)


def test_series_are_found_by_name_in_any_case_and_by_synonyms_of_planes() -> None:
    """Synonyms mean the series that bears the plane's name, and nothing where there is none."""
    assert MRNET_SERIES.named("SAG") == MRNET_SERIES[2]
    assert SIX.named("Sag_T1") == SIX[1]
    assert SIX.named("sagittal") is None
    assert SIX.named("sag") is None


def test_mappings_come_in_the_order_of_the_series() -> None:
    """Whatever the order and the case of the keys; other keys are refused with the names."""
    assert list(by_series({"cor_t1": 1, "SAG_T1": 2}, SIX)) == ["sag_t1", "cor_t1"]
    for wrong in ({"axial": 1}, {"cor_t1": 1, "COR_T1": 2}):
        with pytest.raises(DataError) as error:
            by_series(wrong, SIX, exam="7")
        assert (error.value.code, error.value.exam) == ("series-name", "7")
        assert "sag_pd_fs" in (error.value.expected or "")


def test_plain_form_comes_back() -> None:
    """What models state of their series."""
    assert SeriesList.from_dicts(SIX.to_dicts()) == SIX
    assert isinstance(SIX.to_dicts()[0]["plane"], str)


def test_a_list_is_written_and_read(tmp_path: Path) -> None:
    """In the order of its lines; without the file it is MRNet's."""
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
def test_what_spreadsheets_write_is_read(tmp_path: Path, text: str) -> None:
    """A byte order mark, other line ends, upper case, spaces, truth values."""
    (tmp_path / "series.csv").write_text(text, encoding="utf-8")
    assert read_series(tmp_path) == SIX


def test_columns_may_lack_and_may_be_in_another_order(tmp_path: Path) -> None:
    """Name and plane suffice."""
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
    """One error with the file, and the line where it is one line's."""
    (tmp_path / "series.csv").write_text(text)
    with pytest.raises(DataError) as error:
        read_series(tmp_path)
    assert (error.value.code, error.value.file) == (code, str(tmp_path / "series.csv"))
    assert found in (error.value.found or "")
    assert error.value.expected


def test_a_list_that_is_no_text_or_too_long_is_refused(tmp_path: Path) -> None:
    """Before it is read as a table."""
    for content in (b"\xff\xfe\x00", b"name,plane\n" + b" " * 200_000):
        (tmp_path / "series.csv").write_bytes(content)
        with pytest.raises(DataError) as error:
            read_series(tmp_path)
        assert error.value.file == str(tmp_path / "series.csv")
