"""The scorecard: numbers, file and table."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from mrknee.errors import MrkneeError
from mrknee.metrics.calibration import Calibration, fit_calibration, shift_prevalence
from mrknee.metrics.curves import average_precision
from mrknee.metrics.discrimination import auc
from mrknee.metrics.operating_point import (
    OperatingPoint,
    at_sensitivity,
    score_operating_point,
    youden,
)
from mrknee.metrics.reliability import brier, reliability
from mrknee.metrics.resampling import mean_auc
from mrknee.metrics.scorecard import Scorecard, score

NAMES = ("abnormal", "acl", "meniscus")
OPTIMISTIC = "optimistic: the epoch was selected on this split"


def predictions(seed: int = 0, exams: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels of three findings and informative probabilities."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((exams, 3)) < [0.7, 0.45, 0.45]).astype(float)
    return labels, 1 / (1 + np.exp(-rng.normal(size=labels.shape) - 2 * labels))


def fit_decisions() -> tuple[Calibration, dict[str, tuple[OperatingPoint, ...]]]:
    """Returns a calibration and two operating points per finding, fitted on other exams."""
    labels, probabilities = predictions(seed=9, exams=100)
    points: dict[str, tuple[OperatingPoint, ...]] = {
        name: (
            youden(labels[:, i], probabilities[:, i]),
            at_sensitivity(labels[:, i], probabilities[:, i], 0.9),
        )
        for i, name in enumerate(NAMES)
    }
    return fit_calibration(NAMES, labels, probabilities), points


def a_scorecard(*, hard: bool = False, full: bool = False) -> Scorecard:
    """Returns a scorecard.

    With `hard`, a finding has no AUC, one is perfect and labels are unknown; with `full` there are
    operating points and stated prevalences (with both, one point without a threshold).
    """
    labels, probabilities = predictions()
    if hard:
        labels[:, 0] = 1
        labels[5:9, 1] = np.nan
        probabilities[:, 2] = labels[:, 2]
    notes = [OPTIMISTIC]
    if not full:
        return score(NAMES, labels, probabilities, split="valid", seed=3, notes=notes)
    calibration, points = fit_decisions()
    if hard:
        points["meniscus"] = (youden(np.ones(5), np.ones(5)),)
    return score(
        NAMES,
        labels,
        probabilities,
        split="valid",
        seed=3,
        notes=notes,
        operating_points=points,
        calibration=calibration,
        prevalences={"acl": 0.18, "meniscus": 0.4},
    )


def test_numbers_are_those_of_the_metric_functions() -> None:
    """The numbers equal the results of the metric functions for each column."""
    labels, probabilities = predictions()
    card = score(NAMES, labels, probabilities, split="valid", seed=3)
    for i, name in enumerate(NAMES):
        column = labels[:, i], probabilities[:, i]
        one = card.findings[name]
        assert one.auc == auc(*column)
        assert one.average_precision == average_precision(*column, seed=3)
        assert one.brier == brier(*column, seed=3)
        assert one.reliability == reliability(*column, seed=3)
        assert (one.operating, one.corrected) == ((), None)
    assert card.mean == mean_auc(NAMES, labels, probabilities, seed=3)
    assert (card.split, card.n_exams, card.seed, card.notes) == ("valid", 120, 3, ())


def test_operating_points_are_scored_in_their_order() -> None:
    """Each finding has the scores of its points, at the stated prevalence if there is one."""
    labels, probabilities = predictions()
    _, points = fit_decisions()
    card = a_scorecard(full=True)
    for i, (name, stated) in enumerate(zip(NAMES, (None, 0.18, 0.4), strict=True)):
        assert card.findings[name].operating == tuple(
            score_operating_point(point, labels[:, i], probabilities[:, i], prevalence=stated)
            for point in points[name]
        )


@pytest.mark.slow
def test_calibrated_probabilities_are_calibrated_at_a_stated_prevalence() -> None:
    """Probabilities calibrated at 45 % are calibrated at a stated 10 % after the shift.

    On the unweighted exams their ECE would be 0.2.
    """
    rng = np.random.default_rng(1)
    labels = (rng.random((4000, 1)) < 0.45).astype(float)
    probabilities = expit(2 * rng.normal(2 * labels, 1) - 2 + logit(0.45))
    calibration = Calibration("platt", {"acl": 1.0}, {"acl": 0.0}, {"acl": 0.45}, {"acl": 4000})
    card = score(
        ["acl"],
        labels,
        probabilities,
        split="valid",
        calibration=calibration,
        prevalences={"acl": 0.1},
    )
    found = card.findings["acl"].corrected
    assert found is not None
    assert (found.prevalence, found.reason) == (0.1, None)
    assert found.reliability.ece < 0.015
    assert found.reliability.ece_low == 0
    assert found.brier.reference == pytest.approx(0.09)
    # the true score at 10 %, from 200,000 exams
    at_10_percent = (rng.random(200_000) < 0.1).astype(float)
    p = expit(2 * rng.normal(2 * at_10_percent, 1) - 2 + logit(0.1))
    truth = float(((p - at_10_percent) ** 2).mean())
    assert found.brier.low < truth < found.brier.high
    assert found.brier.value == pytest.approx(truth, abs=0.005)


def test_stated_prevalence_shifts_from_the_fitted_one() -> None:
    """Probabilities are shifted from the calibration's prevalence, and only if one is stated."""
    labels, probabilities = predictions()
    calibration, _ = fit_decisions()
    card = a_scorecard(full=True)
    assert card.findings["abnormal"].corrected is None
    shifted = shift_prevalence(probabilities[:, 1], calibration.prevalences["acl"], 0.18)
    found = card.findings["acl"].corrected
    assert found is not None
    assert found.brier == brier(labels[:, 1], shifted, prevalence=0.18, seed=3)
    assert found.reliability == reliability(labels[:, 1], shifted, prevalence=0.18, seed=3)


ONE_CLASS = "one class only: 120 positive, 0 negative"


@pytest.mark.parametrize(
    ("fitted_on", "positives", "reason"),
    [
        (None, 48, "the calibration of the probabilities is unknown"),
        ("abnormal", 48, "the calibration lacks this finding"),
        ("one class", 48, "not calibrated: one class only: 4 of 4 are positive"),
        ("acl", 120, ONE_CLASS),
    ],
)
def test_reason_for_missing_shift(fitted_on: str | None, positives: int, reason: str) -> None:
    """If the shift is impossible, object, file and table contain NaN and a reason."""
    labels, p = predictions()
    one, p = labels[:, 1:2].copy(), p[:, 1:2]
    if positives == 120:
        one[:] = 1
    calibration = None
    if fitted_on is not None:
        name = "acl" if fitted_on == "one class" else fitted_on
        seen = np.ones((4, 1)) if fitted_on == "one class" else labels[:, 1:2]
        calibration = fit_calibration([name], seen, p[: len(seen)])
    card = score(["acl"], one, p, split="valid", calibration=calibration, prevalences={"acl": 0.18})
    found = card.findings["acl"].corrected
    assert found is not None
    assert (found.prevalence, found.reason) == (0.18, reason)
    assert np.isnan([found.brier.value, found.brier.low, found.reliability.ece]).all()
    assert json.loads(card.to_json())["findings"]["acl"]["corrected"]["reason"] == reason
    assert Scorecard.from_json(card.to_json()) == card
    assert f"acl: not shifted to 0.18: {reason}\n" in card.table()


def test_points_of_other_findings_are_ignored() -> None:
    """Operating points of findings that are not predicted are ignored."""
    labels, probabilities = predictions()
    calibration, points = fit_decisions()
    card = score(
        ["acl"],
        labels[:, 1:2],
        probabilities[:, 1:2],
        split="valid",
        operating_points=points,
        calibration=calibration,
    )
    assert list(card.findings) == ["acl"]
    assert len(card.findings["acl"].operating) == 2


@pytest.mark.parametrize(
    ("prevalences", "message"),
    [({"alc": 0.2}, "isn't scored"), ({"acl": 0.0}, "above 0 and below 1")],
)
def test_invalid_prevalence_is_rejected(prevalences: dict[str, float], message: str) -> None:
    """A stated prevalence of 0, or of an unknown finding, raises an error."""
    labels, probabilities = predictions()
    with pytest.raises(MrkneeError, match=message):
        score(NAMES, labels, probabilities, split="valid", prevalences=prevalences)


def test_file_has_the_documented_keys(tmp_path: Path) -> None:
    """`scorecard.json` has the keys of the documented format."""
    card = a_scorecard()
    card.write(tmp_path / "scorecard.json")
    content = json.loads((tmp_path / "scorecard.json").read_text())
    assert content["version"] == 2
    assert list(content["findings"]) == list(NAMES)
    for name, one in content["findings"].items():
        area = card.findings[name].auc
        assert one["auc"] == area.value
        assert one["auc_ci"] == [area.low, area.high]
        assert one["n_positive"] + one["n_negative"] == 120
        assert one["reason"] is None
    assert content["mean_auc"] == card.mean.value
    assert content["mean_auc_ci"] == [card.mean.low, card.mean.high]
    assert (content["split"], content["n_exams"]) == ("valid", 120)
    assert content["notes"] == [OPTIMISTIC]


def test_file_has_every_number_with_its_interval() -> None:
    """The file contains calibration and operating points with n and intervals."""
    content = json.loads(a_scorecard(full=True).to_json())
    acl = content["findings"]["acl"]
    for part in (acl["average_precision"], acl["brier"], acl["corrected"]["brier"]):
        assert part["low"] < part["value"] < part["high"]
    assert acl["brier"]["n"] == acl["reliability"]["n"] == 120
    assert acl["reliability"]["binning"].startswith("10 bins of equal mass")
    assert sum(point["observed"]["n"] for point in acl["reliability"]["points"]) == 120
    for point, rule in zip(acl["operating"], ("Youden", "sensitivity >= 0.90"), strict=True):
        assert point["point"]["rule"] == rule
        assert 0 < point["point"]["threshold"] < 1
        assert point["tp"] + point["fn"] == point["sensitivity"]["n"] == acl["n_positive"]
        assert point["at_prevalence"]["prevalence"] == acl["corrected"]["prevalence"] == 0.18
    assert content["findings"]["abnormal"]["corrected"] is None
    assert content["findings"]["abnormal"]["operating"][0]["at_prevalence"] is None


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("hard", [False, True])
def test_round_trip(tmp_path: Path, hard: bool, full: bool) -> None:
    """A scorecard is unchanged by writing and reading, including NaN."""
    card = a_scorecard(hard=hard, full=full)
    path = tmp_path / "new folder" / "scorecard.json"
    card.write(path)
    back = Scorecard.read(path)
    assert back == card
    assert hash(back) == hash(card)
    assert back.table() == card.table()
    assert [file.name for file in path.parent.iterdir()] == ["scorecard.json"]
    for name, one in card.findings.items():
        # field by field, with the same types
        assert repr(back.findings[name]) == repr(one)


def test_other_scorecards_are_not_equal() -> None:
    """Scorecards that differ in one number, or by a NaN, are not equal."""
    card = a_scorecard(full=True)
    for value in (0.5, np.nan):
        acl = card.findings["acl"]
        changed = dataclasses.replace(acl, brier=dataclasses.replace(acl.brier, low=value))
        assert dataclasses.replace(card, findings={**card.findings, "acl": changed}) != card
    assert card != "card"


def test_uncomputable_numbers_are_null_with_a_reason() -> None:
    """A number that can't be computed is null in JSON, never NaN, with a reason."""
    card = a_scorecard(hard=True, full=True)
    content = json.loads(card.to_json(), parse_constant=pytest.fail)
    abnormal = content["findings"]["abnormal"]
    assert abnormal["auc"] is None
    assert abnormal["auc_ci"] == [None, None]
    assert "one class only" in abnormal["reason"]
    assert abnormal["average_precision"]["value"] is None
    assert "one class only" in abnormal["average_precision"]["reason"]
    meniscus = content["findings"]["meniscus"]["operating"][0]
    assert meniscus["point"]["threshold"] is None
    assert "one class only" in meniscus["point"]["reason"]
    assert meniscus["sensitivity"] == {"count": 0, "n": 0, "value": None, "low": None, "high": None}
    assert content["mean_auc"] is not None
    assert content["mean_auc_left_out"] == ["abnormal"]
    assert (
        content["findings"]["acl"]["n_positive"] + content["findings"]["acl"]["n_negative"] == 116
    )


def test_nothing_to_score() -> None:
    """Without any known label the scorecard contains reasons, and has a table."""
    card = score(["acl"], np.full((2, 1), np.nan), np.full((2, 1), 0.5), split="valid")
    content = json.loads(card.to_json())
    assert content["mean_auc"] is None
    assert content["mean_auc_ci"] == [None, None]
    assert content["mean_auc_reason"] == "no finding has an AUC"
    assert "no exam has a known label" in card.table()


def test_layout_of_the_table() -> None:
    """The AUCs come first, one line per finding and the mean, within 80 columns."""
    labels, probabilities = predictions()
    text = a_scorecard(full=True).table()
    lines = text.splitlines()
    assert lines[0] == "valid: 120 exams"
    aucs = lines[1 : lines.index("")]
    assert [line.split()[0] for line in aucs if not line.startswith("-")] == [
        "finding",
        *NAMES,
        "mean",
    ]
    assert all(len(line) <= 80 and line == line.rstrip() for line in lines)
    one = auc(labels[:, 1], probabilities[:, 1])
    row = next(line for line in aucs if line.startswith("acl"))
    assert f"{one.value:.3f}  {one.low:.3f} to {one.high:.3f}" in row
    assert row.split()[-2:] == [str(one.n_positive), str(one.n_negative)]


def test_table_has_calibration() -> None:
    """Brier score and ECE follow with intervals, reference and chance, also if shifted."""
    card = a_scorecard(full=True)
    block = card.table().split("\n\n")[1].splitlines()
    assert [line.split()[0] for line in block[2:7]] == ["abnormal", "acl", "at", "meniscus", "at"]
    acl = card.findings["acl"]
    assert block[3].split() == [
        "acl",
        *f"{acl.brier.value:.3f} {acl.brier.low:.3f} to {acl.brier.high:.3f}".split(),
        f"{acl.brier.reference:.3f}",
        f"{acl.reliability.ece:.3f}",
        *f"{acl.reliability.ece_low:.3f} to {acl.reliability.ece_high:.3f}".split(),
        f"{acl.reliability.ece_if_calibrated:.3f}",
    ]
    assert acl.corrected is not None
    assert block[4].split()[:3] == ["at", "0.18", f"{acl.corrected.brier.value:.3f}"]
    without_points = a_scorecard().table()
    assert "shifted" in card.table()
    assert "shifted" not in without_points
    assert "sensitivity" not in without_points


def test_table_has_operating_points() -> None:
    """Each operating point has its threshold, its exams, and four proportions."""
    card = a_scorecard(full=True)
    first = card.findings["acl"].operating[0]
    text = card.table()
    share = first.sensitivity
    assert (
        f"acl, Youden: p >= {first.point.threshold:.4g}, fixed on {first.point.n_positive} "
        f"positive, {first.point.n_negative} negative\n"
        f"  sensitivity  {share.value:.2f} ({share.low:.2f} to {share.high:.2f}), "
        f"{first.tp}/{first.tp + first.fn}\n"
    ) in text
    assert text.count("  sensitivity  ") == text.count("  NPV          ") == 6
    at = first.at_prevalence
    assert at is not None
    assert f"  at a prevalence of 0.18: PPV {at.ppv:.2f} ({at.ppv_low:.2f} to " in text
    assert text.count("at a prevalence of") == 4
    assert "meniscus, Youden: no threshold: one class only" in (
        a_scorecard(hard=True, full=True).table()
    )


def test_table_lists_exceptions() -> None:
    """Missing AUCs, unusual intervals, excluded findings and notes are listed below."""
    table = a_scorecard(hard=True).table()
    assert "abnormal: no AUC: one class only" in table
    assert "meniscus: interval by Newcombe" in table
    assert "mean: without abnormal" in table
    assert f"note: {OPTIMISTIC}" in table


def test_scorecard_is_frozen() -> None:
    """Neither fields nor findings can be changed."""
    card = a_scorecard()
    with pytest.raises(dataclasses.FrozenInstanceError):
        card.split = "test"  # type: ignore[misc]
    with pytest.raises(TypeError):
        card.findings["acl"] = card.findings["abnormal"]  # type: ignore[index]


@pytest.mark.parametrize("value", [-0.01, 1.5, np.nan, np.inf])
def test_invalid_probability_is_rejected(value: float) -> None:
    """A probability that is NaN or outside 0 to 1 raises an error with finding and row."""
    labels, probabilities = predictions()
    probabilities[7, 1] = value
    with pytest.raises(MrkneeError, match=r"not between 0 and 1[\s\S]*for acl, row 7"):
        score(NAMES, labels, probabilities, split="valid")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected: JSON"),
        ("[]", "another version"),
        ('{"version": 1}', "another version[\\s\\S]*evaluate the predictions again"),
        ('{"version": 3}', "another version"),
        ('{"version": 2}', "can't be read"),
        ('{"version": 2, "findings": []}', "can't be read"),
    ],
)
def test_other_files_are_rejected(tmp_path: Path, text: str, message: str) -> None:
    """A file that isn't a scorecard of this version raises an error that names the file."""
    path = tmp_path / "scorecard.json"
    path.write_text(text)
    with pytest.raises(MrkneeError, match=message) as caught:
        Scorecard.read(path)
    assert caught.value.file == str(path)


@pytest.mark.parametrize("missing", ["brier", "operating", "corrected"])
def test_file_with_a_missing_part_is_rejected(missing: str) -> None:
    """A finding with a missing part raises an error."""
    content = json.loads(a_scorecard(full=True).to_json())
    del content["findings"]["acl"][missing]
    with pytest.raises(MrkneeError, match=f"can't be read[\\s\\S]*{missing}"):
        Scorecard.from_json(json.dumps(content))


def test_missing_file_is_reported(tmp_path: Path) -> None:
    """A missing file raises an MrkneeError."""
    with pytest.raises(MrkneeError, match="scorecard is missing"):
        Scorecard.read(tmp_path / "scorecard.json")


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed write leaves the existing file unchanged."""
    path = tmp_path / "scorecard.json"
    a_scorecard().write(path)
    before = path.read_text()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        a_scorecard(hard=True).write(path)
    assert path.read_text() == before


def test_exams_without_a_label_are_noted() -> None:
    """Exams without any label are counted in a note."""
    labels, probabilities = predictions()
    labels[5] = np.nan
    labels[6, 1] = np.nan
    card = score(NAMES, labels, probabilities, split="valid", notes=[OPTIMISTIC])
    assert card.notes == (OPTIMISTIC, "1 of 120 exams has no label and is not scored")
    assert card.n_exams == 120
