"""Submission in the format of RSNA's competition of 2026."""

from __future__ import annotations

import csv
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mrknee.cli import main
from mrknee.errors import DataError, ModelError, SettingsError
from mrknee.exams import PLANES, RSNA_2026_FINDINGS, open_dataset, write_stack
from mrknee.inference.model import load_model
from mrknee.inference.rsna_submission import COLUMNS, predict_studies, read_studies
from mrknee.models.checkpoint import save_checkpoint
from mrknee.models.network import Network
from tests.inference.test_torch_model import PREPARATION, SETTINGS

STUDIES = [f"1.2.826.0.1.{number}" for number in (7, 300, 42, 5)]
"""Studies of the data set; the sample has the first three, in this order."""

HEADER = (
    "StudyInstanceUID,ACL,MCL,Medial Meniscus,Lateral Meniscus,Medial OA,Lateral OA,PF OA,Effusion,"
    "Synovitis,Baker's,Contusion,Fracture"
)


def write_model(
    folder: Path, titles: Mapping[str, str] = RSNA_2026_FINDINGS, *, constant: str | None = None
) -> Path:
    """Writes a run folder with random weights; the logit of one finding may be constant."""
    torch.manual_seed(0)
    findings = sorted(titles)  # another order than that of the submission
    network = Network(SETTINGS, findings)
    if constant is not None:
        with torch.no_grad():
            network.head.weight[findings.index(constant)] = 0
    save_checkpoint(folder / "best", network, PREPARATION.to_dict(), {"titles": dict(titles)})
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four test studies of noise, one of which lacks a series."""
    rng = np.random.default_rng(0)
    for study in STUDIES:
        for plane in PLANES[: 2 if study == STUDIES[2] else 3]:
            stack = rng.integers(0, 255, (3, 48, 48)).astype(np.uint8)
            write_stack(tmp_path / "data" / "test", plane, study, stack)
    return tmp_path / "data"


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A sample submission of three of these studies."""
    file = tmp_path / "sample_submission.csv"
    file.write_text("".join([f"{HEADER}\n", *(f"{i}{',0.5' * 12}\n" for i in STUDIES[:3])]))
    return file


def test_the_file_has_the_columns_and_studies_of_the_sample(
    data: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each probability is in the column of its finding's title, in the sample's order.

    No connection is opened.
    """

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    model, out = write_model(tmp_path / "run"), tmp_path / "submission.csv"
    words = ["submit", str(model), str(data), str(out), "--format", "rsna2026"]
    assert main([*words, "--sample", str(sample)]) == 0
    with out.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert ",".join(header) == HEADER
    assert [row[0] for row in rows] == STUDIES[:3]
    exams = open_dataset(data, "test", labels=False, allow_missing_plane=True)
    table = load_model(model).predict(exams)
    for row in rows:
        for title, text in zip(header[1:], row[1:], strict=True):
            (name,) = (n for n, t in RSNA_2026_FINDINGS.items() if t == title)
            assert float(text) == pytest.approx(table[name][table.ids.index(row[0])], abs=1e-6)


def test_a_constant_column_is_refused(data: Path, sample: Path, tmp_path: Path) -> None:
    """The error names the finding; nothing is written."""
    model, out = write_model(tmp_path / "run", constant="bakers"), tmp_path / "submission.csv"
    with pytest.raises(ModelError, match="Baker's") as refused:
        predict_studies(model, data, sample)
    assert refused.value.code == "constant-column"
    words = ["submit", str(model), str(data), str(out), "--format", "rsna2026"]
    assert main([*words, "--sample", str(sample)]) == 1
    assert not out.exists()


def test_a_single_study_is_not_constant(data: Path, sample: Path, tmp_path: Path) -> None:
    """The probabilities of one study can't be compared with others."""
    sample.write_text("".join(sample.read_text().splitlines(keepends=True)[:2]))
    assert len(predict_studies(write_model(tmp_path / "run"), data, sample)) == 1


def test_a_missing_study_is_refused(data: Path, sample: Path, tmp_path: Path) -> None:
    """The error names the study and their number."""
    with sample.open("a") as file:
        file.write(f"1.2.3{',0.5' * 12}\n")
    with pytest.raises(DataError, match="not in the data set") as refused:
        predict_studies(write_model(tmp_path / "run"), data, sample)
    assert (refused.value.code, refused.value.exam) == ("predictions-exams", "1.2.3")
    assert "1 of these studies" in str(refused.value.found)


@pytest.mark.parametrize(
    ("titles", "words"),
    [
        ({**RSNA_2026_FINDINGS, "acl": "Acl"}, "without ACL; with Acl"),
        ({n: t for n, t in RSNA_2026_FINDINGS.items() if n != "pf_oa"}, "without PF OA"),
        ({**RSNA_2026_FINDINGS, "pcl": "PCL"}, "with PCL"),
        ({**RSNA_2026_FINDINGS, "acl": ""}, "without ACL"),
    ],
)
def test_other_names_of_findings_are_refused(
    data: Path, sample: Path, tmp_path: Path, titles: dict[str, str], words: str
) -> None:
    """Titles must be those of the columns, in the same spelling, no more and no fewer."""
    with pytest.raises(ModelError, match="can't be used for a submission") as refused:
        predict_studies(write_model(tmp_path / "run", titles), data, sample)
    assert refused.value.code == "findings"
    assert words in str(refused.value.found)


@pytest.mark.parametrize(
    "text",
    ["", f"{HEADER}\n", f"{HEADER}\n1,0.5\n", HEADER.replace("MCL,", "") + "\n",
     HEADER.replace("Baker's", "Bakers") + f"\n1{',0.5' * 12}\n",
     HEADER + f"\n1{',0.5' * 12}\n1{',0.5' * 12}\n"],
)  # fmt: skip
def test_another_sample_is_refused(tmp_path: Path, text: str) -> None:
    """Other columns, no study, a study twice and short lines are one clear error."""
    (tmp_path / "sample.csv").write_text(text)
    with pytest.raises(DataError) as refused:
        read_studies(tmp_path / "sample.csv")
    assert refused.value.code == "sample-submission"
    assert ",".join(COLUMNS) == HEADER


def test_sample_and_format_belong_together(data: Path, sample: Path, tmp_path: Path) -> None:
    """`--sample` without `--format rsna2026`, and the reverse, are refused."""
    from mrknee.commands import submit

    alone: list[dict[str, Any]] = [{"sample": sample}, {"format": "rsna2026"}]
    for more in alone:
        with pytest.raises(SettingsError) as refused:
            submit((tmp_path / "run",), data, tmp_path / "out.csv", **more)
        assert refused.value.code == "options-together"
