"""evaluate: scorecard and report from predictions, labels and a model."""

from __future__ import annotations

import json
import re
import shutil
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrknee.errors import MrkneeError
from mrknee.exams import Findings, write_labels
from mrknee.metrics.predictions import Predictions
from mrknee.metrics.scorecard import Scorecard
from mrknee.reports.claim import claim_items
from mrknee.reports.cohort import count_splits
from mrknee.reports.contents import Contents
from mrknee.reports.evaluation import SELECTED, TRAINED, evaluate, gather, worst_failures
from mrknee.reports.sentences import scored, split_origin, warnings_of
from mrknee.reports.words import share, with_interval
from tests.conftest import write_toy_dataset
from tests.reports.examples import PROVENANCE, write_case, write_model_case


class PageText(HTMLParser):
    """The text of a page, without style and figures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._hidden, self.text = 0, ""
        self.feed(page)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        """Counts opened style and figure elements."""
        self._hidden += tag in ("style", "svg")

    def handle_endtag(self, tag: str) -> None:
        """Counts closed style and figure elements."""
        self._hidden -= tag in ("style", "svg")

    def handle_data(self, data: str) -> None:
        """Collects text."""
        self.text += "" if self._hidden else data


def text_of(out: Path) -> str:
    """Returns the text of the report in a folder."""
    return PageText((out / "report.html").read_text(encoding="utf-8")).text


def test_the_report_has_the_values_of_the_scorecard(tmp_path: Path) -> None:
    """The report shows AUC, average precision, Brier score and ECE with intervals and counts."""
    card = evaluate(str(write_case(tmp_path)), tmp_path, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "scorecard.json").read_text())
    assert Scorecard.read(tmp_path / "out" / "scorecard.json") == card
    text = text_of(tmp_path / "out")
    for name, one in content["findings"].items():
        assert with_interval(one["auc"], *one["auc_ci"]) in text
        counts = f"{one['n_positive']} with, {one['n_negative']} without"
        assert counts in text
        scores = card.findings[name]
        for value in (scores.average_precision, scores.brier):
            assert with_interval(value.value, value.low, value.high) in text
        r = scores.reliability
        assert with_interval(r.ece, r.ece_low, r.ece_high) in text
        for point in r.points:
            assert share(point.observed) in text
    assert with_interval(content["mean_auc"], *content["mean_auc_ci"]) in text
    assert "Research use only" in text


def test_without_a_model_there_are_no_thresholds(tmp_path: Path) -> None:
    """Without a model the report has no operating points, and states why."""
    card = evaluate(str(write_case(tmp_path)), tmp_path, tmp_path / "out")
    assert all(not one.operating for one in card.findings.values())
    text = text_of(tmp_path / "out")
    assert "No thresholds: they are part of the model" in text
    assert "first threshold" not in text
    assert "Highest probabilities without the finding" in text
    assert "not known which exams it was trained on" in text


def test_a_model_adds_operating_points_provenance_and_images(tmp_path: Path) -> None:
    """With a model the report has both confusion matrices, the splits, and images of errors."""
    data, run, predictions = write_model_case(tmp_path)
    card = evaluate(str(predictions), data, tmp_path / "out", model=run, prevalences={"acl": 0.2})
    text = text_of(tmp_path / "out")
    for one in card.findings.values():
        first, second = one.operating
        assert first.tp + first.fp + first.fn + first.tn == 24
        assert (second.fn, second.tn) == (0, 0)
        for point in one.operating:
            for proportion in (point.sensitivity, point.specificity, point.ppv):
                assert share(proportion) in text
            counts = (
                f"{point.tp} true positive{point.fn} false negative absent{point.fp} false positive"
            )
            assert counts.replace(" ", "") in text.replace(" ", "")
    totals = [
        (kind, wrong)
        for one in card.findings.values()
        for kind, wrong in (
            ("positive", one.operating[0].fp),
            ("negative", one.operating[0].fn),
        )
    ]
    assert any(a[1] != b[1] for a, b in zip(totals[::2], totals[1::2], strict=True))
    headed = re.findall(r"False (positive|negative)s: (?:all|the worst \d of) (\d+)", text)
    assert headed == [(kind, str(wrong)) for kind, wrong in totals]
    assert "sensitivity ≥ 0.90" in text
    assert ">=" not in (tmp_path / "out" / "report.html").read_text()
    assert "PPV at 20 %" in text
    assert "not adjusted to" in text.lower()  # the model has no calibration
    assert "trained on 590 exams of the data set “toy”" in text
    assert "106 inner exams" in text
    page = (tmp_path / "out" / "report.html").read_text()
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    shown = sum(
        min(3, o.operating[0].fp) + min(3, o.operating[0].fn) for o in card.findings.values()
    )
    assert len(pictures) == 2 * shown > 0
    for one_picture in pictures:
        assert Image.open(BytesIO(b64decode(one_picture))).size == (48, 48)


def test_worst_errors_are_on_the_wrong_side_of_the_threshold() -> None:
    """Errors are the highest negatives, then the lowest positives; unknown labels are ignored."""
    labels = np.array([0, 0, 0, 0, 0, 1, 1, np.nan])
    scores = np.array([0.9, 0.4, 0.95, 0.6, 0.7, 0.2, 0.8, 0.99])
    ids = [f"e{i}" for i in range(8)]
    found = worst_failures(ids, labels, scores, 0.5)
    assert [(one.exam, one.kind) for one in found] == [
        ("e2", "false positive"),
        ("e0", "false positive"),
        ("e4", "false positive"),
        ("e5", "false negative"),
    ]
    assert [one.exam for one in worst_failures(ids, labels, scores, 0.2)][-1] == "e4"
    assert [one.exam for one in worst_failures(ids, labels, scores, None)][3:] == ["e5", "e6"]


def test_images_show_the_slice_that_contributed_most(tmp_path: Path) -> None:
    """False positives show the slice that raised most, false negatives that lowered most."""
    from mrknee.exams import Dataset
    from mrknee.inference.torch_model import TorchModel

    data, run, predictions = write_model_case(tmp_path)
    contents = gather(str(predictions), data, model=run)
    exams, predictor = Dataset.of_split(data, "valid"), TorchModel(run)
    kinds = set()
    for finding, group in contents.failures.items():
        for one in (group[0], group[-1]):
            kinds.add(one.kind)
            explained = predictor.explain(exams[exams.ids.index(one.exam)])
            stated = one.kind == "false positive"
            find = explained.most_raising if stated else explained.most_lowering
            plane, index = find(finding)
            assert f" by {plane} slice {index + 1} of " in one.where
            score = explained.slice_scores(plane)[explained.findings.index(finding), index]
            assert one.where.startswith("raised" if score > 0 else "lowered")
            assert one.slice_uri != one.heat_uri
    assert kinds == {"false positive", "false negative"}


def test_predictions_of_another_model_are_refused(tmp_path: Path) -> None:
    """Predictions with other probabilities or findings than the model's are refused."""
    data, run, predictions = write_model_case(tmp_path)
    table = Predictions.read(predictions)
    Predictions(table.ids, table.findings, table.probabilities * 0.5).write(predictions)
    with pytest.raises(MrkneeError, match="not made by this model"):
        evaluate(str(predictions), data, tmp_path / "out", model=run)
    fewer = Predictions(table.ids, Findings(["acl"]), table.probabilities[:, 1:2])
    fewer.write(predictions)
    with pytest.raises(MrkneeError, match="has other findings"):
        evaluate(str(predictions), data, tmp_path / "out", model=run)
    assert not (tmp_path / "out").exists()


def test_predictions_that_match_in_the_first_exam_only_are_refused(tmp_path: Path) -> None:
    """The predictions of every explained error are compared with the model."""
    data, run, predictions = write_model_case(tmp_path)
    table = Predictions.read(predictions)
    others = 1 - table.probabilities
    others[0] = table.probabilities[0]
    Predictions(table.ids, table.findings, others).write(predictions)
    with pytest.raises(MrkneeError, match="not made by this model"):
        evaluate(str(predictions), data, tmp_path / "out", model=run)
    assert not (tmp_path / "out").exists()


ON_VALID = {"selected_on": {"part": "valid", "exams": 24}}


@pytest.mark.parametrize(
    ("provenance", "split", "notes"),
    [
        (ON_VALID, "valid", [f"optimistic: by their ids, {SELECTED} these exams"]),
        (
            {},
            "train",
            [
                f"optimistic: by their ids, {TRAINED} 3 of these 4 exams",
                f"optimistic: by their ids, {SELECTED} 1 of these 4 exams",
            ],
        ),
        (
            {**ON_VALID, "data": "other"},
            "valid",
            [
                f"possibly optimistic: by their ids, {SELECTED} these exams, but the name of its "
                "data set is other: it is not known whether the exams are the same"
            ],
        ),
        ({}, "valid", []),
    ],
)
def test_optimistic_scores_are_noted(
    tmp_path: Path, provenance: dict[str, object], split: str, notes: list[str]
) -> None:
    """Exams used for training or selection are noted in the scorecard and the report.

    They are identified by their ids, also if the data set's folder has another name.
    """
    data, run, predictions = write_model_case(tmp_path, provenance={**PROVENANCE, **provenance})
    if split == "train":
        predict_again(run, data, split, predictions)
    contents = gather(str(predictions), data, split=split, model=run)
    assert contents.card.notes == tuple(notes)
    shown = [one for one in warnings_of(contents) if "optimistic" in one.lower()]
    assert len(shown) == len(notes)


def predict_again(run: Path, data: Path, split: str, path: Path) -> None:
    """Writes the model's predictions of a split."""
    from mrknee.exams import Dataset
    from mrknee.inference.torch_model import TorchModel

    TorchModel(run).predict(Dataset.of_split(data, split)).write(path)


def test_a_data_set_of_the_same_name_with_other_ids_is_not_optimistic(tmp_path: Path) -> None:
    """For a data set of the same name with other ids, no note is written."""
    data, run, predictions = write_model_case(tmp_path, provenance={**PROVENANCE, **ON_VALID})
    (run / "split.csv").write_text("exam,part\nk1,train\nk2,valid\n")
    contents = gather(str(predictions), data, model=run)
    assert contents.card.notes == ()
    assert 32 not in claimed(contents)
    assert any("0 of its 24 exams have the id of an exam used for" in s for s in origin(contents))


def test_a_member_of_an_ensemble_without_a_split_leaves_the_overlap_unknown(
    tmp_path: Path,
) -> None:
    """Its training exams could be among those that are scored."""
    data, run, predictions = write_model_case(tmp_path)
    (run / "split.csv").write_text("exam,part\nk1,train\n")
    other = tmp_path / "other"
    shutil.copytree(run, other)
    known = gather(str(predictions), data, model=(run, other)).model
    assert known is not None
    assert known.shared == {"train": 0}
    (other / "split.csv").unlink()
    found = gather(str(predictions), data, model=(run, other)).model
    assert found is not None
    assert found.shared is None


def test_missing_provenance_is_reported_as_unknown(tmp_path: Path) -> None:
    """With empty provenance and no `split.csv`, the origin of the exams is unknown."""
    data, run, predictions = write_model_case(tmp_path, provenance={})
    (run / "split.csv").unlink()
    contents = gather(str(predictions), data, model=run)
    text = " ".join(origin(contents))
    assert "Thresholds: fitted on unknown exams." in text
    assert "It is not known whether its exams were used for training" in text
    assert "another data set" not in text
    assert 32 not in claimed(contents)
    (run / "split.csv").write_text("id;part\n")
    with pytest.raises(MrkneeError, match="split of the run can't be read"):
        gather(str(predictions), data, model=run)


def test_exams_without_any_label_are_noted(tmp_path: Path) -> None:
    """The scorecard's notes mention predictions of exams without labels."""
    path = write_case(tmp_path)
    table = Predictions.read(path)
    more = np.vstack([table.probabilities, table.probabilities[:1]])
    Predictions((*table.ids, "new"), table.findings, more).write(path)
    notes = gather(str(path), tmp_path).card.notes
    assert len(notes) == 1
    assert "1 " in notes[0]
    assert "label" in notes[0]


@pytest.mark.parametrize("content", [None, b"not an array"])
def test_without_a_model_exams_need_not_be_readable(tmp_path: Path, content: bytes | None) -> None:
    """Without a model, unreadable stacks only cause missing slice counts."""
    path = write_case(tmp_path)
    (tmp_path / "valid" / "axial").mkdir(parents=True)
    if content is not None:
        (tmp_path / "valid" / "axial" / "0000.npy").write_bytes(content)
    contents = gather(str(path), tmp_path)
    assert contents.slices == {}
    assert contents.splits[0].exams == 120


def test_the_report_names_the_scored_tables(tmp_path: Path) -> None:
    """The report states whether one table, a mean, or one table per finding was scored."""
    one, two = write_case(tmp_path), write_case(tmp_path, seed=1)
    folder = tmp_path.name
    assert origin(gather(str(one), tmp_path))[0] == f"Scored: {folder}/0.csv."
    mean = gather(f"{one},{two}", tmp_path)
    assert "for each finding, the mean over those that contain it" in origin(mean)[0]
    assert f"{folder}/1.csv (abnormal, acl, meniscus)" in origin(mean)[0]
    assert "the mean over the tables that contain it" in claimed(mean)[27]
    table = Predictions.read(one)
    for column, finding in enumerate(table.findings):
        single = Predictions(
            table.ids, Findings([finding]), table.probabilities[:, column : column + 1]
        )
        single.write(tmp_path / f"{finding}.csv")
    each = gather(",".join(str(tmp_path / f"{f}.csv") for f in table.findings), tmp_path)
    assert "3 tables, each finding from one of them" in origin(each)[0]
    assert "the only table that contains it" in claimed(each)[27]
    assert each.card.findings == gather(str(one), tmp_path).card.findings


def claimed(contents: Contents) -> dict[int, str]:
    """The answers to items of the CLAIM checklist by number."""
    return {item.number: item.answer for item in claim_items(contents)}


def origin(contents: Contents) -> list[str]:
    """Returns the report's sentences about the origin of predictions and exams."""
    return [scored(contents), *split_origin(contents)]


def test_a_second_model_is_compared_on_the_same_exams(tmp_path: Path) -> None:
    """Differences of AUCs are computed on exams matched by id."""
    first, second = write_case(tmp_path), write_case(tmp_path, seed=1, skill=0.5)
    other = Predictions.read(second)
    Predictions(other.ids[::-1], other.findings, other.probabilities[::-1]).write(second)
    evaluate(str(first), tmp_path, tmp_path / "out", against=str(second))
    straight = gather(str(first), tmp_path, against=str(second)).comparison
    alone = gather(str(second), tmp_path).card
    assert straight is not None
    assert straight.names == ("0", "1")
    text = text_of(tmp_path / "out")
    for one in straight.differences:
        assert straight.verdict(one, second="the second") in text
        assert one.second_auc == pytest.approx(alone.findings[one.finding].auc.value)
        assert f"{one.difference:.3f}".replace("-", "−") in text  # noqa: RUF001
    Predictions(other.ids[:9], other.findings, other.probabilities[:9]).write(second)
    with pytest.raises(MrkneeError, match="same exams"):
        evaluate(str(first), tmp_path, tmp_path / "out", against=str(second))


def test_the_reason_for_a_missing_auc_is_reported(tmp_path: Path) -> None:
    """A finding with one class only, or without labels, has no AUC and a reason."""
    path = write_case(tmp_path)
    ids = Predictions.read(path).ids
    write_labels(tmp_path, "valid", "abnormal", dict.fromkeys(ids, 1.0))
    (tmp_path / "valid-meniscus.csv").unlink()
    evaluate(str(path), tmp_path, tmp_path / "out")
    text = text_of(tmp_path / "out")
    assert "Abnormal has no AUC: one class only" in text
    assert "Meniscal tear has no AUC: no exam has a known label" in text
    assert "nan" not in text.lower().replace("finnan", "")
    assert "no value" in text
    assert "—–—" not in text  # noqa: RUF001
    assert "Abnormal no AUC, 120 with, 0 without" in text
    assert "Meniscal tear no calibration error and no Brier score; 0 exams" in text


def test_unknown_labels_are_counted_per_split(tmp_path: Path) -> None:
    """Exams without a line or with an empty label are unknown and not part of the share."""
    data = write_toy_dataset(tmp_path / "toy", 6, 4)
    ids = [path.stem for path in sorted((data / "train" / "axial").glob("*.npy"))]
    write_labels(data, "train", "acl", {ids[0]: 1.0, ids[1]: 0.0, ids[2]: np.nan})
    train, valid = count_splits(data, "valid")
    assert (train.split, train.exams, valid.split, valid.exams) == ("train", 6, "valid", 4)
    assert (train.positives["acl"].count, train.positives["acl"].n) == (1, 2)
    assert train.unknown("acl") == 4
    assert valid.unknown("acl") == 0


def test_predictions_and_labels_of_different_names_are_noted(tmp_path: Path) -> None:
    """A column `acl_tear` with a label file valid-acl.csv causes a note about the names."""
    write_labels(tmp_path, "valid", "acl", {"0": 1.0, "1": 0.0})
    write_labels(tmp_path, "valid", "abnormal", {"0": 1.0, "1": 0.0})
    table = tmp_path / "predictions.csv"
    table.write_text("exam,abnormal,acl_tear\n0,0.9,0.8\n1,0.1,0.3\n")
    [note] = [n for n in gather(table, tmp_path).card.notes if "acl" in n]
    assert note.startswith("no label file for acl_tear, and no prediction for valid-acl.csv")
    table.write_text("exam,abnormal\n0,0.9\n1,0.1\n")
    assert not any("acl" in n for n in gather(table, tmp_path).card.notes), "fewer columns"
