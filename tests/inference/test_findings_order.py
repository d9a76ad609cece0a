"""A declared order of findings is preserved from the data set to the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrknee.exams import MRNET_FINDINGS, Findings, open_dataset, read_labels, write_findings
from mrknee.inference.model import load_model
from mrknee.inference.submission import predict_listed
from mrknee.metrics.comparison import compare_tables
from mrknee.metrics.predictions import Predictions, align
from mrknee.metrics.scorecard import Scorecard, score
from mrknee.reports.evaluation import gather
from mrknee.reports.page import render
from mrknee.training.recipe import load_recipe
from mrknee.training.run import train
from tests.conftest import write_toy_dataset

TITLES = {"meniscus": "Medial Meniscus", "abnormal": "", "acl": "A & C"}
ORDER = Findings(TITLES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with three declared findings of different labels."""
    root = tmp_path_factory.mktemp("order") / "data"
    write_toy_dataset(root, 16, 16, findings=sorted(TITLES), pixels=32, slices=(1, 3))
    write_findings(root, TITLES)
    return root


def perfect(data: Path, order: Findings) -> Predictions:
    """Returns labels as probabilities, with columns in the given order."""
    labels = [read_labels(data / f"valid-{name}.csv") for name in order]
    ids = tuple(labels[0])
    return Predictions(ids, order, np.array([[one[i] for one in labels] for i in ids]))


def test_columns_are_matched_by_name(data: Path, tmp_path: Path) -> None:
    """Labels as predictions have an AUC of 1 in every finding, in any order of columns."""
    for number, order in enumerate((ORDER, Findings(reversed(ORDER)), Findings.usual(ORDER))):
        file = tmp_path / f"{number}.csv"
        perfect(data, order).write(file)
        table = Predictions.read(file)
        assert table.findings == order
        labels = table.labels(data, "valid")
        card = score(table.findings, labels, table.probabilities, split="valid")
        assert list(card.findings) == list(order)
        assert [one.auc.value for one in card.findings.values()] == [1, 1, 1]
        card.write(tmp_path / "scorecard.json")
        assert list(Scorecard.read(tmp_path / "scorecard.json").findings) == list(order)


def test_tables_of_different_orders_are_compared_and_joined_by_name(
    data: Path, tmp_path: Path
) -> None:
    """The order of the first table is used, and equal models have no difference."""
    one, two = perfect(data, ORDER), perfect(data, Findings.usual(ORDER))
    (first, second), notes = align(["one", "two"], [one, two])
    assert first.findings == second.findings == ORDER
    assert np.array_equal(first.probabilities, second.probabilities)
    assert notes == ()
    joined = Predictions.joined([one, two])
    assert joined.findings == ORDER
    assert np.array_equal(joined.probabilities, one.probabilities)
    for name, table in (("one", one), ("two", two)):
        table.write(tmp_path / f"{name}.csv")
    found = compare_tables([tmp_path / "one.csv", tmp_path / "two.csv"], data, split="valid")
    assert [d.finding for d in found.differences] == list(ORDER)
    assert all(d.difference == 0 for d in found.differences)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the data set."""
    out = tmp_path_factory.mktemp("run") / "run"
    changes = {"epochs": 1, "preparation.size": 32, "preparation.crop": 32, "precision": "32-true"}
    train(data, out, load_recipe("small", changes))
    return out


@pytest.mark.slow
def test_a_run_keeps_the_declared_order_and_titles(data: Path, run: Path) -> None:
    """Checkpoint, predictions, scorecard and report have the declared order and titles."""
    model = load_model(run)
    assert model.findings == ORDER
    assert model.titles == {"meniscus": "Medial Meniscus", "acl": "A & C"}
    exams = open_dataset(data, split="valid")
    table = model.predict(exams)
    assert table.findings == ORDER
    written = Predictions.read(run / "predictions-valid.csv")
    assert written.findings == ORDER
    row = {exam_id: i for i, exam_id in enumerate(written.ids)}
    again = written.probabilities[[row[i] for i in table.ids]]
    assert np.abs(again - table.probabilities).max() < 1e-6
    assert list(Scorecard.read(run / "scorecard.json").findings) == list(ORDER)
    page = render(gather(run / "predictions-valid.csv", data))
    assert page.index("Medial Meniscus") < page.index("Abnormal") < page.index("A &amp; C")
    why = model.explain(exams[0])
    assert (why.findings, dict(why.titles)) == (tuple(ORDER), dict(model.titles))


@pytest.mark.slow
def test_a_submission_has_the_competitions_order(data: Path, run: Path, tmp_path: Path) -> None:
    """The unnamed columns of a submission are in the competition's order."""
    exams = open_dataset(data, split="valid")
    files = [str(file) for index in range(2) for file in exams.files_of(index).values()]
    (tmp_path / "paths.csv").write_text("\n".join(files) + "\n")
    submitted = predict_listed(run, tmp_path / "paths.csv")
    assert submitted.findings == MRNET_FINDINGS
    table = load_model(run).predict([exams[0], exams[1]])
    for name in MRNET_FINDINGS:
        np.testing.assert_allclose(submitted[name], table[name], atol=1e-6)
