"""Calibration per finding in all outputs of a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mrknee.cli import main
from mrknee.exams import PLANES, Exam
from mrknee.export.onnx import export
from mrknee.inference.model import load_model
from mrknee.inference.onnx_model import OnnxModel
from mrknee.inference.torch_model import TorchModel
from mrknee.metrics.calibration import fit_calibration
from mrknee.models.checkpoint import save_checkpoint
from mrknee.models.network import Network
from mrknee.server.app import start_page
from mrknee.server.service import Service
from mrknee.server.uploads import Received
from tests.inference.test_torch_model import FINDINGS, PREPARATION, SETTINGS

REASON = "not calibrated: one class only: 0 of 30 are positive"
UNCALIBRATED = {"acl": REASON}

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untraced")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with two calibrated findings; ACL tear is not, for lack of positive exams."""
    folder = tmp_path_factory.mktemp("model") / "run"
    labels = (np.arange(90).reshape(30, 3) % 2).astype(float)
    labels[:, FINDINGS.index("acl")] = 0
    probabilities = np.random.default_rng(0).uniform(0.1, 0.9, (30, 3))
    calibration = fit_calibration(FINDINGS, labels, probabilities)
    torch.manual_seed(0)
    decisions = {"calibration": calibration.to_dict(), "operating_points": {}}
    network = Network(SETTINGS, FINDINGS)
    save_checkpoint(folder / "best", network, PREPARATION.to_dict(), {}, decisions)
    return folder


@pytest.fixture(scope="module")
def exam() -> Exam:
    """An exam of noise."""
    rng = np.random.default_rng(1)
    return Exam("0001", {p: rng.integers(0, 256, (3, 48, 48), dtype=np.uint8) for p in PLANES})


def test_a_model_reports_uncalibrated_findings(run: Path, exam: Exam) -> None:
    """The probability of an uncalibrated finding is the sigmoid of its logit."""
    model = TorchModel(run)
    assert model.uncalibrated == UNCALIBRATED
    explained = model.explain(exam)
    own = 1 / (1 + np.exp(-explained.logits))
    same = np.isclose(explained.probabilities, own, atol=1e-9)
    assert same.tolist() == [name in UNCALIBRATED for name in FINDINGS]
    save_checkpoint(run.parent / "plain", model.network, PREPARATION.to_dict(), {})
    none = "not calibrated: training fitted no calibration"
    assert load_model(run.parent / "plain").uncalibrated == dict.fromkeys(FINDINGS, none)


def test_the_commands_report_uncalibrated_findings(
    run: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`predict`, `explain`, explanation.json and the page report uncalibrated findings."""
    assert main(["predict", str(run), str(toy), "--out", str(tmp_path / "p.csv")]) == 0
    assert f"acl: {REASON}\n" in capsys.readouterr().out
    words = ["explain", str(run), str(toy), "--exam", "0012", "--out", str(tmp_path / "why")]
    assert main(words) == 0
    output = capsys.readouterr().out
    assert output.count(f"({REASON})") == 1
    findings = json.loads((tmp_path / "why" / "explanation.json").read_text())["findings"]
    assert {n: one["uncalibrated"] for n, one in findings.items() if not one["calibrated"]} == (
        UNCALIBRATED
    )
    page = (tmp_path / "why" / "index.html").read_text()
    assert page.count(f"The probability is {REASON}.") == 1


def test_an_exported_model_reports_uncalibrated_findings(
    run: Path, exam: Exam, tmp_path: Path
) -> None:
    """Uncalibrated findings are reported by the export and by the exported model."""
    assert export(run, tmp_path / "model.onnx").uncalibrated == UNCALIBRATED
    model = OnnxModel(tmp_path / "model.onnx")
    assert model.uncalibrated == UNCALIBRATED
    assert model.explain(exam).uncalibrated == UNCALIBRATED


def test_the_service_reports_uncalibrated_findings(run: Path, exam: Exam) -> None:
    """`calibrated` of a response is true only if all findings are calibrated."""
    service = Service(load_model(run), "run")

    read = service.predict(Received(exam, {}), "request").content
    assert not read.calibrated
    assert {n: one.uncalibrated for n, one in read.findings.items() if not one.calibrated} == (
        UNCALIBRATED
    )
    explained = service.explain(Received(exam, {}), "request").content
    assert [n for n, one in explained.findings.items() if not one.calibrated] == ["acl"]
    page = bytes(start_page(service).body).decode()
    assert f'<th scope="row">ACL tear</th><td>{REASON}</td>' in page
