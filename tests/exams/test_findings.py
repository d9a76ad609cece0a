from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import DataError, MrkneeError
from mrknee.exams import (
    Dataset,
    Findings,
    in_order,
    open_dataset,
    read_findings,
    read_labels,
    write_findings,
)
from tests.conftest import write_toy_dataset

TITLES = {
    "medial_meniscus": "Medial Meniscus",
    "abnormal": "",
    "baker_cyst": "Baker's cyst, popliteal",
    "acl": "ACL",
}
"""Findings that are neither sorted by name nor in MRNet's order."""


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    """A data set of four findings that declares their order."""
    root = write_toy_dataset(tmp_path / "data", 6, 6, findings=sorted(TITLES))
    write_findings(root, TITLES)
    return root


def test_findings_keep_the_order_given() -> None:
    """Names are validated but not sorted; `Findings.usual` sorts them."""
    given = ["zz", "meniscus", "cyst", "abnormal", "acl"]
    assert list(Findings(given)) == given
    assert Findings.usual(given) == ("abnormal", "acl", "meniscus", "cyst", "zz")


def test_findings_may_be_one_or_twelve() -> None:
    """Any number of findings from one is accepted."""
    assert Findings(["acl"]) == ("acl",)
    assert len(Findings([f"finding{i:02d}" for i in range(12)])) == 12


@pytest.mark.parametrize("names", [[], ["acl", "acl"], ["ACL"], ["a,b"], ["a/b"], [""]])
def test_unusable_findings_are_refused(names: list[str]) -> None:
    """An empty list, a repeated name or a name that isn't a valid file name is refused."""
    for make in (Findings, Findings.usual):
        with pytest.raises(MrkneeError):
            make(names)


@pytest.mark.parametrize("name", ["exam", "mean"])
def test_reserved_names_are_refused(name: str) -> None:
    """A finding can't be named like the column of ids or the mean."""
    with pytest.raises(MrkneeError, match="reserved name"):
        Findings(["acl", name])


def test_a_declaration_orders_findings() -> None:
    """Declared findings come first, in declared order; the others follow in the default order."""
    assert in_order(["acl", "zz", "baker_cyst"], TITLES) == ("baker_cyst", "acl", "zz")
    assert in_order(["zz", "acl", "abnormal"], None) == ("abnormal", "acl", "zz")


def test_a_declaration_is_written_and_read(tmp_path: Path) -> None:
    """Names, titles and their order are preserved; without the file nothing is declared."""
    assert read_findings(tmp_path) is None
    file = write_findings(str(tmp_path), TITLES)
    assert file == tmp_path / "findings.csv"
    found = read_findings(tmp_path)
    assert found is not None
    assert list(found.items()) == list(TITLES.items())


def test_titles_are_optional(tmp_path: Path) -> None:
    """Names alone, in any case, are a valid declaration; titles are empty then."""
    (tmp_path / "findings.csv").write_text("name\nMedial_Meniscus\nACL\n")
    assert read_findings(tmp_path) == {"medial_meniscus": "", "acl": ""}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "an empty file"),
        ("acl\nmeniscus\n", "line 1: 'acl'"),
        ("name,title,code\nacl,ACL,1\n", "line 1"),
        ("name,title\nacl\n", "1 fields in line 2"),
        ("name,title\n", None),
        ("name,title\nMedial Meniscus,\n", "'medial meniscus'"),
        ("name,title\nacl,\nACL,\n", "'acl'"),
        ("name,title\nmean,\n", "'mean'"),
        ("name,title\n,ACL\n", "''"),
        (f"name,title\nacl,{'x' * 81}\n", "line 2"),
        ("name,title\nacl,A\x07CL\n", "line 2"),
    ],
)
def test_a_broken_declaration_is_refused(tmp_path: Path, text: str, found: str | None) -> None:
    """The error names the file and the invalid line or name."""
    (tmp_path / "findings.csv").write_text(text)
    with pytest.raises(DataError) as error:
        read_findings(tmp_path)
    assert (error.value.code, error.value.file) == ("declaration", str(tmp_path / "findings.csv"))
    assert found is None or found in (error.value.found or "")
    assert error.value.expected


def test_a_data_set_has_its_findings_in_the_declared_order(declared: Path) -> None:
    """Names, columns of labels, labels per exam and titles follow the declared order."""
    data = open_dataset(declared, split="train")
    assert data.findings == tuple(TITLES)
    for column, finding in enumerate(TITLES):
        labels = read_labels(declared / f"train-{finding}.csv")
        assert data.labels[:, column].tolist() == list(labels.values())
        assert data[3].labels[finding] == labels["0003"]
    assert list(data[0].labels) == list(TITLES)
    assert data.titles == {name: title for name, title in TITLES.items() if title}


def test_requested_findings_come_in_the_declared_order(declared: Path) -> None:
    """The order of the request doesn't matter, even if labels may be missing."""
    wanted = ["acl", "baker_cyst", "medial_meniscus"]
    expected = ("medial_meniscus", "baker_cyst", "acl")
    assert open_dataset(declared, findings=wanted).findings == expected
    (declared / "valid-baker_cyst.csv").unlink()
    data = Dataset.of_split(declared, "valid", findings=wanted, allow_missing_labels=True)
    assert data.findings == expected
    assert np.isnan(data.labels).all(axis=0).tolist() == [False, True, False]
    assert open_dataset(declared).findings == ("medial_meniscus", "abnormal", "acl")


def test_a_label_file_of_an_undeclared_finding_is_refused(declared: Path) -> None:
    """The finding would otherwise be ignored or have no place in the order."""
    (declared / "train-medial-meniscus.csv").write_text("0000,1\n")
    with pytest.raises(DataError, match=r"findings\.csv doesn't declare") as error:
        open_dataset(declared, split="train")
    assert (error.value.code, error.value.found) == ("label-name", "medial-meniscus")
    assert "medial_meniscus" in (error.value.expected or "")
