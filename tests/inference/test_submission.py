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
    """Writes a list in the competition's format: sagittal, coronal, axial of each exam."""
    planes = ("sagittal", "coronal", "axial")
    lines = [f"{toy}/valid/{plane}/{i}.npy\n" for i in ids for plane in planes]
    file.write_text("".join(lines))
    return file


def test_the_output_has_the_competitions_format(toy: Path, tmp_path: Path) -> None:
    """The CSV has the columns abnormal, acl, meniscus, in the order of the list, without header."""
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
    """A model with other findings is refused, which the evaluation script would not detect."""
    model = make_model(tmp_path / "run", findings)
    listing = write_listing(toy, tmp_path / "paths.csv", ["0012"])
    with pytest.raises(MrkneeError, match="can't be used for a submission"):
        submit(model, listing, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("a/valid/axial/1.npy\n", "is not listed"),
        ("a/valid/axial/1.npy\n" * 2, "twice"),
        ("a/valid/oblique/1.npy\n", "the required form"),
        ("a/valid/axial/1.png\n", "the required form"),
    ],
)
def test_a_bad_list_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """A malformed list is one clear error."""
    listing = tmp_path / "paths.csv"
    listing.write_text(text)
    with pytest.raises(MrkneeError, match=words):
        ListedExams(listing)


@pytest.mark.parametrize("composed", [True, False])
def test_accents_in_a_list_match_any_encoding_of_file_names(toy: Path, composed: bool) -> None:
    """Composed and decomposed accents in a list refer to the same files."""
    forms = ["M\u00fcller", unicodedata.normalize("NFD", "M\u00fcller")]
    stored, written = forms if composed else reversed(forms)
    for file in toy.glob("valid/*/0012.npy"):
        file.rename(file.with_stem(stored))
    exams = ListedExams(write_listing(toy, toy / "paths.csv", [written]))
    assert len(exams[0].stacks) == 3
