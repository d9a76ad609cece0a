"""Comparison of models on the same exams: numbers, JSON, table and sentences."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from mrknee.errors import MrkneeError
from mrknee.exams import Findings, write_labels
from mrknee.metrics.comparison import (
    Comparison,
    Difference,
    MeanDifference,
    compare,
    compare_tables,
)
from mrknee.metrics.discrimination import auc
from mrknee.metrics.paired_tests import holm, paired_delong
from mrknee.metrics.predictions import Predictions
from mrknee.metrics.resampling import BOOTSTRAP, MEAN_OF_ENDS, bootstrap_differences, mean_auc

FINDINGS = ("abnormal", "acl", "meniscus")


def draw(
    seed: int = 0, exams: int = 120, better: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns labels of three findings and two models' probabilities; the second is `better`."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((exams, 3)) < [0.7, 0.45, 0.45]).astype(float)
    shared = 0.8 * rng.normal(size=labels.shape)
    first, second = (
        expit((1.7 + gain) * labels + shared + 0.6 * rng.normal(size=labels.shape))
        for gain in (0.0, better)
    )
    return labels, first, second


def compared(labels: np.ndarray, *models: np.ndarray, seed: int = 0) -> Comparison:
    """Compares the models under the names a, b, c."""
    return compare("abc"[: len(models)], FINDINGS, labels, models, split="valid", seed=seed)


def all_differences(found: Comparison) -> list[Difference | MeanDifference]:
    """Returns the differences of the findings and of the means."""
    return [*found.differences, *found.mean_differences]


def test_numbers_are_those_of_the_parts() -> None:
    """AUCs, tests and Holm's p equal the results of the functions for one finding."""
    labels, first, second = draw(better=0.6)
    found = compared(labels, first, second)
    assert [(d.finding, d.first, d.second) for d in found.differences] == [
        (name, "a", "b") for name in FINDINGS
    ]
    for i, one in enumerate(found.differences):
        columns = labels[:, i], first[:, i], second[:, i]
        test = paired_delong(*columns)
        assert found.aucs["a"][one.finding] == auc(labels[:, i], first[:, i])
        assert found.aucs["b"][one.finding] == auc(labels[:, i], second[:, i])
        assert (one.first_auc, one.second_auc) == (test.first, test.second)
        assert one.difference == pytest.approx(test.second - test.first)
        assert (one.p_delong, one.reason) == (test.p, None)
        assert -1 <= one.low < one.difference < one.high <= 1
        assert one.n_positive + one.n_negative == 120
    p = np.array([one.p_delong for one in found.differences])
    assert [one.p_holm for one in found.differences] == pytest.approx(holm(p))
    assert found.means["b"] == mean_auc(FINDINGS, labels, second, seed=0)
    assert (found.names, found.n_exams) == (("a", "b"), 120)


def test_holm_includes_all_tests_of_all_models() -> None:
    """Three models give two tests per finding; all six are corrected together."""
    labels, first, second = draw(better=0.8)
    third = draw(seed=1)[1] * 0.3 + 0.7 * second
    found = compared(labels, first, second, third)
    assert [d.second for d in found.differences] == ["b"] * 3 + ["c"] * 3
    p = np.array([one.p_delong for one in found.differences])
    assert [one.p_holm for one in found.differences] == pytest.approx(holm(p))
    assert min(p) * 6 == pytest.approx(min(one.p_holm for one in found.differences))


def test_mean_difference_is_the_bootstraps() -> None:
    """The mean difference is the plain mean, with an interval from paired resampling."""
    labels, first, second = draw(better=0.4)
    found = compared(labels, first, second)
    (mean,) = found.mean_differences
    assert mean.difference == pytest.approx(np.mean([d.difference for d in found.differences]))
    assert mean.difference == pytest.approx(found.means["b"].value - found.means["a"].value)
    draws = bootstrap_differences(labels, first, second, seed=0).mean(axis=1)
    assert (mean.low, mean.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
    assert (mean.method, mean.findings, mean.reason) == (BOOTSTRAP, FINDINGS, None)
    # much narrower than with separate resampling of the two models
    apart = (found.means["a"].high - found.means["a"].low) * math.sqrt(2)
    assert mean.high - mean.low < 0.8 * apart


def test_few_exams_have_an_interval_and_no_test() -> None:
    """If DeLong's variance is unusable, p is NaN, and Holm's correction skips the test."""
    labels, first, second = draw(better=0.6)
    labels[np.flatnonzero(labels[:, 1] == 1)[8:], 1] = np.nan
    found = compared(labels, first, second)
    abnormal, acl, meniscus = found.differences
    assert np.isnan([acl.p_delong, acl.p_holm]).all()
    assert acl.low < acl.difference < acl.high
    p = [abnormal.p_delong, meniscus.p_delong]
    assert [abnormal.p_holm, meniscus.p_holm] == pytest.approx(holm(np.array(p)))
    reason = "no test, because an AUC's interval is not DeLong's"
    assert f"acl, B - A: {reason}" in found.table()
    assert "for 2 tests" in found.table()
    assert json.loads(found.to_json())["differences"][1]["reason"].startswith(reason)
    assert found.mean_differences[0].method.startswith(MEAN_OF_ENDS)


def test_difference_without_a_test_is_not_reported() -> None:
    """A finding's difference isn't reported without a p, even if the interval excludes 0."""
    found = with_numbers(difference=0.2, low=0.1, high=0.3, p_delong=math.nan, p_holm=math.nan)
    assert found.verdict(found.differences[0], second="B") == (
        "no difference shown: no valid test, although the interval excludes 0"
    )


def test_one_class_has_a_reason_and_no_test() -> None:
    """A finding with one class has a reason instead of numbers, and Holm skips it."""
    labels, first, second = draw(better=0.6)
    labels[:, 0] = 1
    found = compared(labels, first, second)
    abnormal, *rest = found.differences
    assert np.isnan([abnormal.difference, abnormal.low, abnormal.p_delong, abnormal.p_holm]).all()
    assert abnormal.reason == "one class only: 120 positive, 0 negative"
    p = np.array([one.p_delong for one in rest])
    assert [one.p_holm for one in rest] == pytest.approx(holm(p))
    assert found.mean_differences[0].findings == ("acl", "meniscus")
    assert "abnormal, B against A: can't be compared: one class only" in found.table()
    content = json.loads(found.to_json(), parse_constant=pytest.fail)
    assert content["differences"][0]["difference"] is None
    assert content["differences"][0]["p_holm"] is None


def test_no_known_labels() -> None:
    """Without any known label the comparison contains only reasons, and has a table."""
    _, first, second = draw(exams=3)
    found = compared(np.full((3, 3), np.nan), first, second)
    assert found.mean_differences[0].reason == "no finding has an AUC"
    assert "mean, B against A: can't be compared: no finding has an AUC" in found.table()
    json.loads(found.to_json(), parse_constant=pytest.fail)


def test_one_exam() -> None:
    """A single exam, whatever its label, is compared without an error and without numbers."""
    labels, first, second = draw(exams=1)
    found = compared(labels, first, second)
    assert all(one.reason is not None for one in found.differences)
    assert found.table().startswith("valid: 1 exam\n")


def test_identical_rankings_are_reported() -> None:
    """A model and its copy: p is 1, and the sentence states identical rankings, not equality."""
    labels, first, _ = draw()
    found = compared(labels, first, expit(3 * first))
    for one in found.differences:
        assert (one.difference, one.low, one.high) == (0, 0, 0)
        assert (one.p_delong, one.p_holm) == (1, 1)
        assert one.method.startswith("none")
    (mean,) = found.mean_differences
    assert (mean.low, mean.high) == (0, 0)
    assert mean.method.startswith("none")
    assert "acl, B against A: both models rank these exams identically" in found.table()


def test_perfect_models_have_a_width() -> None:
    """Two perfect models differ by 0, with intervals of positive width."""
    labels, _, _ = draw()
    rng = np.random.default_rng(0)
    first, second = (labels * 0.5 + rng.random(labels.shape) * 0.4 for _ in range(2))
    found = compared(labels, first, second)
    for one in all_differences(found):
        assert one.difference == 0
        assert one.low < -0.01
        assert one.high > 0.01
    assert "no difference shown: the interval contains 0" in found.table()


def test_same_pairs_in_another_order_keep_a_width_in_the_mean() -> None:
    """Models that win the same pairs in another order have an interval of positive width."""
    labels = np.repeat([[1.0] * 3, [0.0] * 3], 20, axis=0)
    first = np.repeat(np.linspace(1, 0, 40)[:, None], 3, axis=1)
    first[0], first[39] = 0.0, 1.0  # one misranked exam of each class
    second = first.copy()
    second[[5, 6]] = second[[6, 5]]
    found = compared(labels, first, second)
    for one in all_differences(found):
        assert one.low < 0 < one.high


def with_numbers(**changes: object) -> Comparison:
    """Returns a comparison whose only difference has these numbers."""
    labels, first, second = draw()
    found = compare(["a", "b"], ["acl"], labels[:, :1], [first[:, :1], second[:, :1]], split="v")
    one = dataclasses.replace(found.differences[0], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(found, differences=(one, one))


@pytest.mark.parametrize(
    ("difference", "low", "high", "p", "sentence"),
    [
        (0.06, 0.01, 0.1, 0.02, "B's AUC is higher by 0.060, p = 0.020 after Holm's correction"),
        (-0.06, -0.1, -0.01, 1e-5, "B's AUC is lower by 0.060, p < 0.001 after Holm's correction"),
        (
            0.01,
            -0.02,
            0.05,
            0.6,
            "no difference shown: the interval contains 0; "
            "with 120 exams, differences below about 0.04 can't be detected",
        ),
        (
            0.001,
            -0.002,
            0.003,
            0.6,
            "no difference shown: the interval contains 0; "
            "with 120 exams, differences below about 0.003 can't be detected",
        ),
        (
            0.06,
            0.01,
            0.1,
            0.06,
            "no difference shown: p = 0.060 after Holm's correction, "
            "although the interval excludes 0",
        ),
        (
            0.03,
            -0.01,
            0.08,
            0.04,
            "unclear: p = 0.040 after Holm's correction, but the interval contains 0; "
            "with 120 exams, differences below about 0.05 can't be detected",
        ),
    ],
)
def test_sentence(difference: float, low: float, high: float, p: float, sentence: str) -> None:
    """Each combination of interval and p has a sentence; none states that models are equal."""
    found = with_numbers(difference=difference, low=low, high=high, p_holm=p)
    assert found.verdict(found.differences[0], second="B") == sentence
    assert f"acl, B against A: {sentence}\n" in found.table()
    assert "equal" not in found.table()


@pytest.mark.parametrize(("difference", "direction"), [(0.04, "higher"), (-0.04, "lower")])
def test_sentence_on_the_mean_depends_on_its_interval(difference: float, direction: str) -> None:
    """The verdict on a mean has no p, counts all exams and uses the given model name."""
    found = compared(*draw())
    mean = dataclasses.replace(
        found.mean_differences[0],
        difference=difference,
        low=difference - 0.03,
        high=difference + 0.03,
    )
    sentence = found.verdict(mean, second="the second")
    assert sentence == f"the second's AUC is {direction} by 0.040, the interval excludes 0"
    wide = dataclasses.replace(mean, low=-0.05, high=0.05)
    assert "the interval contains 0; with 120 exams, " in found.verdict(wide, second="the second")


def test_one_test_needs_no_correction() -> None:
    """With one finding and two models the sentence doesn't mention a correction."""
    labels, first, second = draw(better=2.0)
    found = compare(
        ["a", "b"], ["acl"], labels[:, 1:2], [first[:, 1:2], second[:, 1:2]], split="valid"
    )
    assert found.differences[0].p_holm == found.differences[0].p_delong
    assert "acl, B against A: B's AUC is higher" in found.table()
    assert "correction\n" not in found.table()


def test_layout_of_the_table() -> None:
    """The table has one line per finding and model, one per difference, and at most 80 columns."""
    labels, first, second = draw(better=0.5)
    found = compare(
        ["single-task.csv", "runs/multi.csv"],
        FINDINGS,
        labels,
        [first, second],
        split="valid",
        notes=["excluded: cartilage"],
    )
    lines = found.table().splitlines()
    assert lines[:3] == ["valid: 120 exams", "A: single-task.csv", "B: runs/multi.csv"]
    one = found.differences[1]
    row = next(line for line in lines if line.startswith("acl") and "B - A" in line)
    assert f"{one.difference:+.3f}  {one.low:+.3f} to {one.high:+.3f}" in row
    p = [one.p_delong, one.p_holm]
    assert row.split()[-2:] == [f"{value:.3f}" for value in p]
    model = next(line for line in lines if line.startswith("acl") and " B " in line)
    assert f"{found.aucs['runs/multi.csv']['acl'].value:.3f}" in model
    assert sum(" against A: " in line for line in lines) == 4
    assert lines[-1] == "note: excluded: cartilage"
    assert all(line == line.rstrip() for line in lines)
    assert all(len(line) <= 80 for line in lines if " against " not in line and "MOVER" not in line)


def test_json_has_every_field(tmp_path: Path) -> None:
    """The file has a version and all numbers of all differences, models and means."""
    labels, first, second = draw()
    found = compared(labels, first, second)
    found.write(tmp_path / "new" / "comparison.json")
    content = json.loads((tmp_path / "new" / "comparison.json").read_text())
    assert content["version"] == 2
    assert (content["split"], content["n_exams"], content["seed"]) == ("valid", 120, 0)
    assert [model["name"] for model in content["models"]] == ["a", "b"]
    assert content["models"][1]["findings"]["acl"]["value"] == found.aucs["b"]["acl"].value
    assert content["models"][0]["mean"]["value"] == found.means["a"].value
    names = {field.name for field in dataclasses.fields(Difference)}
    assert all(set(one) == names for one in content["differences"])
    assert content["differences"][2]["low"] == found.differences[2].low
    assert content["mean_differences"][0]["findings"] == list(FINDINGS)


def test_seed_determines_the_intervals() -> None:
    """The same seed gives the same file; another seed gives another interval of the mean."""
    labels, first, second = draw()
    assert compared(labels, first, second).to_json() == compared(labels, first, second).to_json()
    other = compared(labels, first, second, seed=1).mean_differences[0]
    assert other.low != compared(labels, first, second).mean_differences[0].low


def test_exchanging_the_models_negates_the_differences() -> None:
    """Exchanging the models negates difference and interval and keeps p."""
    labels, first, second = draw(better=0.3)
    forward, backward = compared(labels, first, second), compared(labels, second, first)
    for one, other in zip(forward.differences, backward.differences, strict=True):
        assert (other.difference, other.low, other.high) == pytest.approx(
            (-one.difference, -one.high, -one.low)
        )
        assert (other.p_delong, other.p_holm) == pytest.approx((one.p_delong, one.p_holm))


def test_comparison_is_frozen() -> None:
    """Neither fields nor AUCs of a model can be changed."""
    found = compared(*draw())
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.split = "test"  # type: ignore[misc]
    with pytest.raises(TypeError):
        found.aucs["a"]["acl"] = found.aucs["b"]["acl"]  # type: ignore[index]


def test_invalid_comparisons_are_rejected() -> None:
    """One model, a repeated name, other exams, a NaN or a label of 2 raise an error."""
    labels, first, second = draw()
    with pytest.raises(MrkneeError, match="at least two models"):
        compare(["a"], FINDINGS, labels, [first], split="valid")
    with pytest.raises(MrkneeError, match="different names"):
        compare(["a", "a"], FINDINGS, labels, [first, second], split="valid")
    with pytest.raises(MrkneeError, match="predictions of b and the labels"):
        compare(["a", "b"], FINDINGS, labels, [first, second[:-1]], split="valid")
    with pytest.raises(MrkneeError, match="a label is invalid"):
        compared(labels * 2, first, second)
    second[3, 1] = np.nan
    with pytest.raises(MrkneeError, match="a score is NaN"):
        compared(labels, first, second)


def test_files_are_compared(tmp_path: Path) -> None:
    """CSV files, in any order of exams, joined or not, give the same numbers as arrays."""
    labels, first, second = draw(better=0.4)
    ids = tuple(f"{i:04d}" for i in range(len(labels)))
    for i, name in enumerate(FINDINGS):
        write_labels(tmp_path, "valid", name, dict(zip(ids, labels[:, i], strict=True)))
        one = Predictions(ids, Findings([name]), first[:, i : i + 1])
        one.write(tmp_path / f"{name}.csv")
    with_more = np.hstack([second, second[:, :1]])[::-1]
    more = Predictions(ids[::-1], Findings([*FINDINGS, "cyst"]), with_more)
    more.write(tmp_path / "multi.csv")
    joined = ",".join(str(tmp_path / f"{name}.csv") for name in FINDINGS)
    found = compare_tables([joined, str(tmp_path / "multi.csv")], tmp_path, split="valid")
    expected = compare(found.names, FINDINGS, labels, [first, second], split="valid")
    assert found.differences == expected.differences
    assert found.mean_differences[0].low == pytest.approx(expected.mean_differences[0].low)
    assert found.names == ("abnormal + acl + meniscus", "multi")
    assert found.notes == (f"excluded, because not all models have it: cyst ({found.names[1]})",)
    twice = [f"{tmp_path}/{name}.csv" for name in ("abnormal", "acl", "meniscus")]
    again = tmp_path / "again.csv"
    again.write_bytes((tmp_path / "abnormal.csv").read_bytes())
    many = ",".join([*twice, str(again)])
    names = compare_tables([many, str(tmp_path / "multi.csv")], tmp_path, split="valid").names
    assert names == ("abnormal to again (4 tables)", "multi")


def two_files(folder: Path, *names: str) -> list[str]:
    """Writes the same predictions under the given names, and labels; returns the paths."""
    labels, first, _ = draw()
    ids = tuple(f"{i:04d}" for i in range(len(labels)))
    for i, name in enumerate(FINDINGS):
        write_labels(folder, "valid", name, dict(zip(ids, labels[:, i], strict=True)))
    for name in names:
        Predictions(ids, Findings(FINDINGS), first).write(folder / name)
    return [str(folder / name) for name in names]


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (("a.v1", "a.v2"), ("a.v1", "a.v2")),
        (("q/p.csv", "r/p.csv"), ("q", "r")),
        (("p,1.csv", "p,2.csv"), ("p,1", "p,2")),
    ],
)
def test_names_distinguish_models(
    tmp_path: Path, files: tuple[str, str], names: tuple[str, str]
) -> None:
    """Only .csv is removed from names; a comma in a file's own name doesn't split it."""
    specs = two_files(tmp_path, *files)
    assert compare_tables(specs, tmp_path, split="valid").names == names


def test_equal_short_names_are_replaced_by_full_names(tmp_path: Path) -> None:
    """If short names coincide, the models are named by the complete specification."""
    specs = two_files(tmp_path, "p.csv", "p")
    assert compare_tables(specs, tmp_path, split="valid").names == tuple(specs)


def test_comparing_a_model_with_itself_is_rejected(tmp_path: Path) -> None:
    """The same file by another path, or the same files reordered, raise an error with advice."""
    one, two = two_files(tmp_path, "one.csv", "two.csv")
    by_another_path = str(tmp_path / "." / "sub" / ".." / "one.csv")
    for first, second in ((one, by_another_path), (f"{one},{two}", f"{two},{one}")):
        with pytest.raises(MrkneeError, match="compared with itself") as error:
            compare_tables([first, second], tmp_path, split="valid")
        assert error.value.found == f"the same as {first}"
        assert error.value.advice is not None


def test_exams_without_a_label_are_noted() -> None:
    """Exams without any label are counted in a note, after the given notes."""
    labels, first, second = draw()
    labels[[3, 7]] = np.nan
    found = compare("ab", FINDINGS, labels, [first, second], split="valid", notes=["given"])
    assert found.notes == ("given", "2 of 120 exams have no label and are not scored")
    assert "for 3 tests" in found.table()
    alone = compare("ab", ["acl"], labels[:, :1], [first[:, :1], second[:, :1]], split="valid")
    assert "for 1 test." in alone.table()
