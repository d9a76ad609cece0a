from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.exams import open_dataset
from mrknee.inference.submission import ListedExams, submit
from mrknee.inference.torch_model import TorchModel
from tests.inference.test_torch_model import make_model


def write_listing(toy: Path, file: Path, ids: list[str]) -> Path:
    """The competition's list: sagittal, coronal, axial, three lines an exam."""
    planes = ("sagittal", "coronal", "axial")
    lines = [f"{toy}/valid/{plane}/{i}.npy\n" for i in ids for plane in planes]
    file.write_text("".join(lines))
    return file


def test_the_output_is_the_competitions(toy: Path, tmp_path: Path) -> None:
    """Headerless abnormal,acl,meniscus, in the list's order, without ids."""
    model = make_model(tmp_path / "run")
    ids = ["0016", "0012", "0013"]
    out = tmp_path / "predictions.csv"
    assert submit(model, write_listing(toy, tmp_path / "paths.csv", ids), out) == 3
    written = np.loadtxt(out, delimiter=",")
    table = TorchModel(model).predict(open_dataset(toy, "valid"))
    assert table.findings == ("abnormal", "acl", "meniscus")
    expected = table.probabilities[[table.ids.index(i) for i in ids]]
    np.testing.assert_allclose(written, expected, atol=1e-6)


@pytest.mark.parametrize("findings", [("acl",), ("abnormal", "acl", "cyst")])
def test_a_model_of_other_findings_is_refused(
    toy: Path, tmp_path: Path, findings: tuple[str, ...]
) -> None:
    """The scorer counts lines only, so a wrong column would pass in silence."""
    model = make_model(tmp_path / "run", findings)
    listing = write_listing(toy, tmp_path / "paths.csv", ["0012"])
    with pytest.raises(MrkneeError, match="can't be submitted"):
        submit(model, listing, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("a/valid/axial/1.npy\n", "not all listed"),
        ("a/valid/axial/1.npy\n" * 2, "twice"),
        ("a/valid/oblique/1.npy\n", "another form"),
        ("a/valid/axial/1.png\n", "another form"),
    ],
)
def test_a_bad_list_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """A list of another form is one clear error."""
    listing = tmp_path / "paths.csv"
    listing.write_text(text)
    with pytest.raises(MrkneeError, match=words):
        ListedExams(listing)


@pytest.mark.parametrize("composed", [True, False])
def test_accents_in_a_list_are_joined_however_they_are_stored(toy: Path, composed: bool) -> None:
    """A list that was typed elsewhere names the same files, though their bytes differ."""
    forms = ["M\u00fcller", unicodedata.normalize("NFD", "M\u00fcller")]
    stored, written = forms if composed else reversed(forms)
    for file in toy.glob("valid/*/0012.npy"):
        file.rename(file.with_stem(stored))
    exams = ListedExams(write_listing(toy, toy / "paths.csv", [written]))
    assert len(exams[0].stacks) == 3
