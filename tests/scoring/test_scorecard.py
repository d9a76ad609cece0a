"""The scorecard: its numbers, its file and its table."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import MrkneeError
from mrknee.scoring import Scorecard, auc, mean_auc, score

NAMES = ("abnormal", "acl", "meniscus")
OPTIMISTIC = "optimistic: the epoch was selected on this split"


def predictions(seed: int = 0, exams: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Labels of three findings and probabilities that know something of them."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((exams, 3)) < [0.7, 0.45, 0.45]).astype(float)
    return labels, 1 / (1 + np.exp(-rng.normal(size=labels.shape) - 2 * labels))


def a_scorecard(*, hard: bool = False) -> Scorecard:
    """A scorecard; a hard one has a finding without an AUC, a perfect one and unknown labels."""
    labels, probabilities = predictions()
    if hard:
        labels[:, 0] = 1
        labels[5:9, 1] = np.nan
        probabilities[:, 2] = labels[:, 2]
    return score(NAMES, labels, probabilities, split="valid", seed=3, notes=[OPTIMISTIC])


def test_numbers_are_the_rooms() -> None:
    """The scorecard holds what the metric functions say of each column."""
    labels, probabilities = predictions()
    card = score(NAMES, labels, probabilities, split="valid", seed=3)
    assert card.findings == {
        name: auc(labels[:, i], probabilities[:, i]) for i, name in enumerate(NAMES)
    }
    assert card.mean == mean_auc(NAMES, labels, probabilities, seed=3)
    assert (card.split, card.n_exams, card.seed, card.notes) == ("valid", 120, 3, ())


def test_file_holds_the_promised_keys(tmp_path: Path) -> None:
    """`scorecard.json` has the keys that the design makes a contract."""
    card = a_scorecard()
    card.write(tmp_path / "scorecard.json")
    content = json.loads((tmp_path / "scorecard.json").read_text())
    assert content["version"] == 1
    assert list(content["findings"]) == list(NAMES)
    for name, one in content["findings"].items():
        assert one["auc"] == card.findings[name].value
        assert one["auc_ci"] == [card.findings[name].low, card.findings[name].high]
        assert one["n_positive"] + one["n_negative"] == 120
        assert one["reason"] is None
    assert content["mean_auc"] == card.mean.value
    assert content["mean_auc_ci"] == [card.mean.low, card.mean.high]
    assert (content["split"], content["n_exams"]) == ("valid", 120)
    assert content["notes"] == [OPTIMISTIC]


@pytest.mark.parametrize("hard", [False, True])
def test_round_trip(tmp_path: Path, hard: bool) -> None:
    """What is written is read back the same, numbers to the last digit, NaN as NaN."""
    card = a_scorecard(hard=hard)
    path = tmp_path / "new folder" / "scorecard.json"
    card.write(path)
    back = Scorecard.read(path)
    assert back.to_json() == card.to_json()
    assert back.table() == card.table()
    if not hard:  # NaN is not equal to itself
        assert back == card
    assert [file.name for file in path.parent.iterdir()] == ["scorecard.json"]


def test_uncomputable_numbers_are_null_with_a_reason() -> None:
    """A number that can't be computed is null in JSON, never NaN, and its reason is beside it."""
    content = json.loads(a_scorecard(hard=True).to_json(), parse_constant=pytest.fail)
    abnormal = content["findings"]["abnormal"]
    assert abnormal["auc"] is None
    assert abnormal["auc_ci"] == [None, None]
    assert "one class only" in abnormal["reason"]
    assert content["mean_auc"] is not None
    assert content["mean_auc_left_out"] == ["abnormal"]
    assert (
        content["findings"]["acl"]["n_positive"] + content["findings"]["acl"]["n_negative"] == 116
    )


def test_nothing_to_score() -> None:
    """Without a single known label there is a scorecard of reasons, and it has a table."""
    card = score(["acl"], np.full((2, 1), np.nan), np.full((2, 1), 0.5), split="valid")
    content = json.loads(card.to_json())
    assert content["mean_auc"] is None
    assert content["mean_auc_ci"] == [None, None]
    assert content["mean_auc_reason"] == "no finding has an AUC"
    assert "no exam has a known label" in card.table()


def test_table_reads_well() -> None:
    """The table has a line a finding and the mean, in columns, and nothing wider than 80."""
    labels, probabilities = predictions()
    lines = score(NAMES, labels, probabilities, split="valid").table().splitlines()
    assert lines[0] == "valid: 120 exams"
    assert [line.split()[0] for line in lines[1:] if not line.startswith("-")] == [
        "finding",
        *NAMES,
        "mean",
    ]
    assert all(len(line) <= 80 and line == line.rstrip() for line in lines)
    one = auc(labels[:, 1], probabilities[:, 1])
    row = next(line for line in lines if line.startswith("acl"))
    assert f"{one.value:.3f}  {one.low:.3f} to {one.high:.3f}" in row
    assert row.split()[-2:] == [str(one.n_positive), str(one.n_negative)]


def test_table_tells_what_is_out_of_the_ordinary() -> None:
    """Missing AUCs, other intervals, findings left out of the mean and notes are told below it."""
    table = a_scorecard(hard=True).table()
    assert "abnormal: no AUC: one class only" in table
    assert "meniscus: interval by Newcombe" in table
    assert "mean: without abnormal" in table
    assert f"note: {OPTIMISTIC}" in table


def test_scorecard_is_frozen() -> None:
    """Neither a field nor the findings can be changed afterwards."""
    card = a_scorecard()
    with pytest.raises(dataclasses.FrozenInstanceError):
        card.split = "test"  # type: ignore[misc]
    with pytest.raises(TypeError):
        card.findings["acl"] = card.findings["abnormal"]  # type: ignore[index]


@pytest.mark.parametrize("value", [-0.01, 1.5, np.nan, np.inf])
def test_impossible_probability_is_refused(value: float) -> None:
    """A probability outside 0 to 1, or NaN, is an error that tells finding and row."""
    labels, probabilities = predictions()
    probabilities[7, 1] = value
    with pytest.raises(MrkneeError, match=r"not between 0 and 1[\s\S]*for acl, row 7"):
        score(NAMES, labels, probabilities, split="valid")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "another version"),
        ('{"version": 2}', "another version"),
        ('{"version": 1}', "can't be read"),
        ('{"version": 1, "findings": []}', "can't be read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """A file that is no scorecard of this version is an error that names the file."""
    path = tmp_path / "scorecard.json"
    path.write_text(text)
    with pytest.raises(MrkneeError, match=message) as caught:
        Scorecard.read(path)
    assert caught.value.file == str(path)


def test_missing_file_is_told(tmp_path: Path) -> None:
    """A missing file is the project's error, not Python's."""
    with pytest.raises(MrkneeError, match="no scorecard here"):
        Scorecard.read(tmp_path / "scorecard.json")


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half-way leaves the file that was there as it was."""
    path = tmp_path / "scorecard.json"
    a_scorecard().write(path)
    before = path.read_text()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        a_scorecard(hard=True).write(path)
    assert path.read_text() == before
