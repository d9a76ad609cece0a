"""Comparison of an experiment's arms: table, JSON, plot and correction of p values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float

from mrknee.errors import DataError
from mrknee.exams import Findings, write_labels
from mrknee.metrics.arms import MEAN, ArmComparison, compare_arms, verdict
from mrknee.metrics.folds import read_fold
from mrknee.metrics.hierarchical import Estimate, difference_over_seeds, seed_aucs
from mrknee.metrics.paired_tests import holm
from mrknee.metrics.predictions import Predictions

IDS = tuple(f"{number:04d}" for number in range(60))
FINDINGS = ("abnormal", "acl")


def labels() -> Float[np.ndarray, "exams findings"]:
    """Returns labels: half of the exams are abnormal, a third have an ACL tear."""
    return np.stack([np.arange(60) % 2 == 0, np.arange(60) % 3 == 0], axis=1).astype(float)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set's folder with label files only."""
    for column, finding in enumerate(FINDINGS):
        write_labels(tmp_path, "valid", finding, dict(zip(IDS, labels()[:, column], strict=True)))
    return tmp_path


def tables(
    seed: int, signal: float, seeds: int = 3, findings: tuple[str, ...] = FINDINGS
) -> list[Predictions]:
    """Returns predictions of an arm; a larger signal gives higher AUCs."""
    rng = np.random.default_rng(seed)
    columns = [FINDINGS.index(finding) for finding in findings]
    drawn = []
    for _ in range(seeds):
        logits = rng.normal(size=(60, len(findings))) + signal * labels()[:, columns]
        drawn.append(Predictions(IDS, Findings(findings), 1 / (1 + np.exp(-logits))))
    return drawn


def compared(
    data: Path,
    arms: dict[str, list[Predictions]],
    within: str | None = None,
    **options: Any,  # noqa: ANN401
) -> ArmComparison:
    """The comparison of arms with the first of them."""
    return compare_arms(
        [read_fold(data, "valid", arms, within)],
        baseline=next(iter(arms)),
        seeds=(0, 1, 2),
        split="valid",
        notes=("a note",),
        **options,
    )


def test_every_arm_is_compared_with_the_baseline(data: Path) -> None:
    """For the mean and each finding, by `hierarchical`; Holm over arms, and over all findings."""
    arms = {"base": tables(0, 1), "better": tables(1, 2), "equal": tables(2, 1)}
    found = compared(data, arms)
    assert [(one.arm, one.finding) for one in found.differences] == [
        (arm, finding) for arm in ("better", "equal") for finding in (MEAN, *FINDINGS)
    ]
    first, second = (
        seed_aucs(labels()[:, 1], np.stack([one["acl"] for one in arms[arm]]))
        for arm in ("base", "better")
    )
    expected = difference_over_seeds(first, second, range(60))
    assert found.differences[2].estimate == expected
    means = [one for one in found.differences if one.finding == MEAN]
    others = [one for one in found.differences if one.finding != MEAN]
    for family in (means, others):
        corrected = holm(np.array([one.estimate.p for one in family]))
        assert [one.p_holm for one in family] == pytest.approx(list(corrected))
    assert found.counts == {"abnormal": (30, 30), "acl": (20, 40)}


def test_table_and_json_have_the_same_numbers(data: Path) -> None:
    """Each AUC with interval, SD, lowest and highest seed; each difference with p and Holm's p."""
    found = compared(data, {"base": tables(0, 1), "better": tables(1, 2)})
    lines = found.table().splitlines()
    assert lines[0] == "valid: 60 exams, 3 seeds (0, 1, 2), baseline base"
    content = json.loads(found.to_json())
    assert content["n_exams"] == 60
    assert [arm["name"] for arm in content["arms"]] == ["base", "better"]
    one = content["arms"][1]["aucs"]["acl"]
    assert one["value"] == pytest.approx(np.mean(one["seeds"]))
    row = next(line for line in lines if line.startswith("acl       better"))
    assert row.split() == [
        "acl",
        "better",
        *(f"{one['value']:.3f} {one['low']:.3f} to {one['high']:.3f}").split(),
        *(f"{number:.3f}" for number in (one["sd"], min(one["seeds"]), max(one["seeds"]))),
    ]
    difference = content["differences"][2]
    estimate = difference["estimate"]
    assert (difference["arm"], difference["finding"]) == ("better", "acl")
    start = lines.index("Differences (AUC less that of base), paired by exam and seed:")
    row = next(line for line in lines[start:] if line.startswith("acl"))
    ends = f"{estimate['value']:+.3f} {estimate['low']:+.3f} to {estimate['high']:+.3f}"
    assert row.split()[2:6] == ends.split()
    assert lines[-1] == "note: a note"


def test_exams_may_be_in_any_order(data: Path) -> None:
    """The order of rows has no effect; a table with other exams is refused."""
    arms = {"base": tables(0, 1), "other": tables(1, 2)}
    expected = compared(data, arms)
    one = arms["other"][1]
    arms["other"][1] = Predictions(one.ids[::-1], one.findings, one.probabilities[::-1])
    assert compared(data, arms) == expected
    arms["other"][1] = Predictions(("9999", *one.ids[1:]), one.findings, one.probabilities)
    with pytest.raises(DataError, match="of different exams"):
        compared(data, arms)


def test_arms_of_other_findings_are_compared_on_common_findings(data: Path) -> None:
    """The mean of an arm is over its findings; the difference is over the common findings."""
    found = compared(data, {"base": tables(0, 1), "single": tables(1, 2, findings=("acl",))})
    assert list(found.aucs["single"]) == [MEAN, "acl"]
    mean, acl = found.differences
    assert (mean.finding, mean.findings) == (MEAN, ("acl",))
    assert mean.estimate == acl.estimate


def test_findings_without_labels_are_left_out(data: Path) -> None:
    """A predicted finding that has no label file has no row."""
    (data / "valid-acl.csv").unlink()
    found = compared(data, {"base": tables(0, 1), "other": tables(1, 2)})
    assert list(found.counts) == ["abnormal"]
    assert "acl" not in found.table()


def test_findings_of_one_class_are_not_in_the_mean(data: Path) -> None:
    """A finding that no exam has is listed without an AUC; the mean is over the others."""
    write_labels(data, "valid", "acl", dict.fromkeys(IDS, 0.0))
    found = compared(data, {"base": tables(0, 1), "other": tables(1, 2)}, primary="other")
    assert np.isnan(found.aucs["base"]["acl"].value)
    assert found.aucs["base"][MEAN] == found.aucs["base"]["abnormal"]
    mean = next(one for one in found.differences if one.finding == MEAN)
    assert mean.findings == ("abnormal",)
    assert mean.estimate.p == pytest.approx(
        next(one.estimate.p for one in found.differences if one.finding == "abnormal")
    )
    assert "one class only" in found.table()
    write_labels(data, "valid", "abnormal", dict.fromkeys(IDS, 0.0))
    nothing = compared(data, {"base": tables(0, 1), "other": tables(1, 2)})
    assert MEAN not in nothing.aucs["base"]
    assert nothing.differences == ()


def test_one_arm_and_one_seed(data: Path) -> None:
    """There is no difference to test; the table states that the interval is over exams only."""
    found = compared(data, {"base": tables(0, 1, seeds=1)})
    assert found.differences == ()
    assert "Differences" not in found.table()
    assert "all: interval over exams only, because there is one seed" in found.table()


def test_folds_are_averaged(data: Path, tmp_path: Path) -> None:
    """Two sets of exams: AUCs are means over them, and numbers of exams sums."""
    other = tmp_path / "other"
    for column, finding in enumerate(FINDINGS):
        write_labels(other, "valid", finding, dict(zip(IDS, labels()[:, column], strict=True)))
    first = {"base": tables(0, 1), "better": tables(1, 2)}
    second = {"base": tables(2, 1), "better": tables(3, 2)}
    found = compare_arms(
        [read_fold(data, "valid", first), read_fold(other, "valid", second)],
        baseline="base",
        seeds=(0, 1, 2),
        split="valid",
    )
    apart = [compared(data, first), compared(other, second)]
    values = [one.aucs["better"][MEAN].value for one in apart]
    assert found.aucs["better"][MEAN].value == pytest.approx(np.mean(values))
    assert found.n_exams == 120
    assert found.counts["acl"] == (40, 80)


def test_the_plot_shows_seeds_means_and_the_baseline(data: Path) -> None:
    """One panel for the mean and one per finding, each arm's seeds as points, arms by name."""
    from matplotlib import pyplot

    found = compared(data, {"base": tables(0, 1), "better": tables(1, 2)})
    figure = found.plot()
    assert [area.get_title() for area in figure.axes] == [MEAN, *FINDINGS]
    area = figure.axes[0]
    drawn = [np.asarray(line.get_xdata()).tolist() for line in area.lines]
    for arm in ("base", "better"):
        one = found.aucs[arm][MEAN]
        assert [one.low, one.high] in drawn
        assert [one.value] in drawn
        assert list(one.seeds) in drawn
    assert [found.aucs["base"][MEAN].value] * 2 in drawn, "the line of the baseline"
    assert [text.get_text() for text in area.get_yticklabels()] == ["base", "better"]
    pyplot.close(figure)


def test_networks_of_one_finding_become_one_system(data: Path) -> None:
    """Three such networks combined are compared as one: each finding's AUC is its network's."""
    singles = [tables(1, 2, findings=(finding,)) for finding in FINDINGS]
    system = [Predictions.joined(list(each)) for each in zip(*singles, strict=True)]
    found = compared(data, {"joint": tables(0, 1), "singles": system})
    apart = [compared(data, {"one": single}).aucs["one"][MEAN].value for single in singles]
    assert [found.aucs["singles"][one].value for one in FINDINGS] == apart
    assert found.aucs["singles"][MEAN].value == pytest.approx(np.mean(apart))


def test_networks_of_the_same_findings_are_averaged() -> None:
    """The mean over the tables that have a finding, exam by exam, in any order of exams."""
    one, other, _ = tables(0, 1)
    turned = Predictions(other.ids[::-1], other.findings, other.probabilities[::-1])
    only = Predictions(one.ids, Findings(["acl"]), one.probabilities[:, 1:])
    found = Predictions.joined([one, turned, only])
    np.testing.assert_allclose(found["abnormal"], (one["abnormal"] + other["abnormal"]) / 2)
    np.testing.assert_allclose(found["acl"], (2 * one["acl"] + other["acl"]) / 3)
    with pytest.raises(DataError, match="of different exams"):
        Predictions.joined(
            [one, Predictions(("9999", *one.ids[1:]), one.findings, one.probabilities)]
        )


def test_findings_are_scored_within_another_one(data: Path) -> None:
    """AUCs among the abnormal exams only; they don't count in the mean, nor in Holm's families."""
    arms = {"base": tables(0, 1), "better": tables(1, 2)}
    plain, found = compared(data, arms), compared(data, arms, within="abnormal")
    name = "acl within abnormal"
    assert found.within == (name,)
    assert list(found.aucs["base"]) == [MEAN, *FINDINGS, name]
    assert found.counts[name] == (10, 20)
    abnormal = labels()[:, 0] == 1
    expected = seed_aucs(
        labels()[abnormal, 1], np.stack([one["acl"][abnormal] for one in arms["base"]])
    )
    assert found.aucs["base"][name].seeds == pytest.approx(list(expected.aucs))
    assert found.aucs["base"][MEAN] == plain.aucs["base"][MEAN]
    assert found.differences[:3] == plain.differences
    assert "over 1 tests for findings within another one" in found.table()
    assert name in found.to_json()
    with pytest.raises(DataError, match="within meniscus"):
        compared(data, arms, within="meniscus")


def test_an_arm_may_have_another_baseline(data: Path) -> None:
    """It is compared with that arm only, and the table names both."""
    arms = {"base": tables(0, 1), "other": tables(1, 2), "small": tables(2, 1)}
    found = compared(data, arms, other_baselines={"small": "other"})
    assert [(one.arm, one.baseline) for one in found.differences if one.finding == MEAN] == [
        ("other", "base"),
        ("small", "other"),
    ]
    alone = compared(data, {"other": arms["other"], "small": arms["small"]})
    assert found.differences[3].estimate == alone.differences[0].estimate
    assert "small - other" in found.table()
    assert "unless another arm is named" in found.table()


def test_the_primary_comparison_is_not_corrected(data: Path) -> None:
    """Holm's correction is over the other arms; the table states it."""
    arms = {"base": tables(0, 1), "a": tables(1, 2), "b": tables(2, 1), "c": tables(3, 1)}
    found = compared(data, arms, primary="a")
    first, *others = (one for one in found.differences if one.finding == MEAN)
    assert first.p_holm == first.estimate.p
    corrected = holm(np.array([one.estimate.p for one in others]))
    assert [one.p_holm for one in others] == pytest.approx(list(corrected))
    assert "Holm: over 2 arms for the mean" in found.table()
    assert "Primary: a, mean; p is not corrected." in found.table()


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (0.002, 0.04, 0.03, "better"),
        (-0.04, -0.002, 0.03, "worse"),
        (0.002, 0.04, 0.06, "not settled"),
        (-0.01, 0.01, 0.9, "equivalent"),
        (0.001, 0.009, 0.01, "equivalent"),
        (-0.011, 0.009, 0.9, "not settled"),
        (-0.001, 0.001, float("nan"), "not settled"),
    ],
)
def test_verdicts_follow_the_rule(low: float, high: float, p: float, expected: str) -> None:
    """Equivalent within the margin; else better or worse by Holm's p; else not settled."""
    one = Estimate((low + high) / 2, low, high, p, 0.01, 0.01, (), "any")
    assert verdict(one, p, 0.01) == expected


def test_equal_predictions_are_no_test(data: Path) -> None:
    """A finding whose network two systems share doesn't count in Holm's correction."""
    arms = {"base": tables(0, 1), "same": tables(0, 1), "other": tables(1, 2)}
    found, alone = compared(data, arms), compared(data, {**arms, "same": arms["other"]})
    same = [one for one in found.differences if one.arm == "same"]
    assert [(one.same, one.p_holm) for one in same] == [(True, 1.0)] * 3
    other = next(one for one in found.differences if one.arm == "other")
    assert other.p_holm == other.estimate.p
    assert "Holm: over 1 arm for the mean, over 2 tests for the findings." in found.table()
    assert not any(one.same for one in alone.differences)


def test_verdicts_are_printed_only_with_a_margin(data: Path) -> None:
    """Each comparison has one, in the table and in JSON; equal predictions are equivalent."""
    arms = {"base": tables(0, 1), "same": tables(0, 1), "better": tables(1, 4)}
    plain, found = compared(data, arms), compared(data, arms, margin=0.01)
    assert "erdict" not in plain.table()
    assert {one.verdict for one in plain.differences} == {None}
    verdicts = {one.arm: one.verdict for one in found.differences if one.finding == MEAN}
    assert verdicts == {"same": "equivalent", "better": "better"}
    assert "Verdict: equivalent if the interval lies within -0.01 to +0.01" in found.table()
    written = json.loads(found.to_json())
    assert written["margin"] == 0.01
    assert [one["verdict"] for one in written["differences"]] == [
        one.verdict for one in found.differences
    ]


def test_the_plot_of_differences_shows_the_margin(data: Path) -> None:
    """One panel for the mean and one per finding, a row per comparison, the margin as a band."""
    from matplotlib import pyplot

    arms = {"base": tables(0, 1), "other": tables(1, 2), "small": tables(2, 1)}
    options = {"other_baselines": {"small": "other"}, "margin": 0.01}
    found = compared(data, arms, "abnormal", **options)
    figure = found.plot_differences()
    assert [area.get_title() for area in figure.axes] == [MEAN, *FINDINGS]
    area = figure.axes[0]
    assert [text.get_text() for text in area.get_yticklabels()] == ["other", "small - other"]
    drawn = [np.asarray(line.get_xdata()).tolist() for line in area.lines]
    one = found.differences[0].estimate
    assert [one.low, one.high] in drawn
    assert list(one.seeds) in drawn
    assert len(area.patches) == 1, "the margin"
    pyplot.close(figure)
