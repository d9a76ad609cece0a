"""`mrknee validate-maps`, with a model whose logit is brightness and with bright lesions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float64
from scipy.special import expit

import mrknee
from mrknee.cli import main
from mrknee.errors import DataError, OutputError
from mrknee.exams import MRNET_SERIES, PLANES, Exam, Exams, write_labels, write_stack
from mrknee.explanations.map_validation import (
    SHARE,
    TOGETHER,
    FindingMaps,
    MapValidation,
    localise_exam,
    summarise_deletions,
)
from mrknee.inference.ablation import Ablation
from mrknee.inference.model import Contributions, SingleModel
from mrknee.transforms.preparation import Preparation
from tests.inference.test_torch_model import make_model

SLICES, SIDE, CELL = 6, 64, 8
FINDINGS = ("acl", "meniscus")
POSITIVE = 4
"""Number of exams with both findings; two more exams have none."""


class Brightness(SingleModel):
    """Model in which bright cells raise the logit of acl and lower that of meniscus equally."""

    def __init__(self) -> None:
        super().__init__(
            findings=FINDINGS,
            series=MRNET_SERIES,
            preparation=Preparation(size=SIDE, crop=SIDE),
            provenance={},
            decisions={},
        )

    def _ablation(self, exam: Exam) -> Ablation:
        raise NotImplementedError

    def _contributions(self, exam: Exam) -> Contributions:
        native = {}
        for name, stack in exam.stacks.items():
            cells = stack.reshape(len(stack), SIDE // CELL, CELL, SIDE // CELL, CELL)
            bright = cells.mean(axis=(2, 4), dtype=np.float32) / 255
            native[name] = np.stack([bright, -bright])
        parts = [part.sum(axis=(1, 2, 3), dtype=np.float64) for part in native.values()]
        logits = np.sum(parts, axis=0)
        return Contributions(logits, np.zeros(2), expit(logits), native, False)

    def _probabilities(
        self, exams: Exams
    ) -> tuple[tuple[str, ...], Float64[np.ndarray, "exams findings"]]:
        raise NotImplementedError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Exams of dark noise; positive ones have a bright square per plane, and a mask of it."""
    root, rng = tmp_path / "knees", np.random.default_rng(0)
    labels = {f"{number:04d}": float(number < POSITIVE) for number in range(POSITIVE + 2)}
    for exam_id, label in labels.items():
        for plane in PLANES:
            stack = rng.integers(0, 9, (SLICES, SIDE, SIDE)).astype(np.uint8)
            if label:
                mask = np.zeros_like(stack)
                mask[rng.integers(SLICES), 16:40, 24:48] = 1
                stack[mask > 0] = 250
                for finding in FINDINGS:
                    write_stack(root / "lesions" / "valid" / finding, plane, exam_id, mask)
            write_stack(root / "valid", plane, exam_id, stack)
    for finding in FINDINGS:
        write_labels(root, "valid", finding, labels)
    return root


def test_correct_maps_hit_the_lesion_and_inverted_maps_miss_it(data: Path) -> None:
    """The hottest slice and pixel hit if brightness raises the logit, and miss if it lowers it."""
    found = mrknee.validate_maps(Brightness(), data)
    good, bad = found.findings["acl"], found.findings["meniscus"]
    assert list(good.localisation) == [*MRNET_SERIES.names, TOGETHER]
    for one in good.localisation.values():
        assert (one.slices.observed.count, one.slices.observed.n) == (POSITIVE, POSITIVE)
        assert one.slices.chance == pytest.approx(1 / SLICES)
        assert one.slices.p == pytest.approx(SLICES**-POSITIVE)
        assert one.pointing.observed.count == POSITIVE
        assert one.pointing.chance == pytest.approx(24 * 24 / (SLICES * SIDE * SIDE))
        assert one.heat.inside > 0.4 > 0.1 > one.heat.even
    for one in bad.localisation.values():
        assert one.slices.observed.count == one.pointing.observed.count == 0
    # both maps are sums: deletion finds both true to the model, wherever the lesion is
    for each in (good, bad):
        assert (each.n_positive, each.deletion.n, each.deletion.lower) == (POSITIVE,) * 3
        assert each.deletion.difference == pytest.approx(
            each.deletion.hottest - each.deletion.random
        )
        assert each.deletion.low > 0


def test_an_opened_data_set_gives_the_same_numbers(data: Path) -> None:
    """An opened data set and its folder give identical numbers."""
    opened = mrknee.open_dataset(data, "valid")
    assert mrknee.validate_maps(Brightness(), opened).to_json() == (
        mrknee.validate_maps(Brightness(), data).to_json()
    )


def test_without_masks_only_deletion_is_measured(data: Path) -> None:
    """Exams without a mask are counted; if no exam has one, the table states this."""
    masks = sorted((data / "lesions" / "valid" / "acl" / "axial").iterdir())
    masks[0].unlink()
    whole = mrknee.validate_maps(Brightness(), data).findings["acl"]
    assert (whole.without_masks, whole.n_positive) == (1, POSITIVE)
    assert whole.localisation["axial"].slices.observed.n == POSITIVE - 1
    (data / "lesions").rename(data / "elsewhere")
    found = mrknee.validate_maps(Brightness(), data)
    assert not any(one.localisation for one in found.findings.values())
    assert found.findings["acl"].deletion == whole.deletion
    assert "no masks" in found.table()


def test_a_lesion_outside_the_crop_is_counted_separately(data: Path) -> None:
    """A lesion outside the crop of one series is neither a hit nor a miss in this series."""
    file = data / "lesions" / "valid" / "acl" / "coronal" / "0000.npy"
    np.save(file, np.zeros((SLICES, SIDE, SIDE), np.uint8))
    one = mrknee.validate_maps(Brightness(), data).findings["acl"]
    assert one.out_of_view == {"coronal": 1}
    assert one.localisation["coronal"].slices.observed.n == POSITIVE - 1
    assert one.localisation[TOGETHER].slices.observed.n == POSITIVE


def test_slices_that_the_network_does_not_read_are_left_out() -> None:
    """They are neither hit nor counted as chance, and a lesion in them is out of view."""
    stack = np.zeros((SLICES, SIDE, SIDE), np.uint8)
    mask, unread = stack > 0, stack > 0
    mask[1, 16:40, 24:48] = unread[0, 16:40, 24:48] = True
    model = Brightness()
    model.preparation = model.preparation.replace(read_slices=3)
    made = model.explain(Exam("0", dict.fromkeys(PLANES, np.where(mask, np.uint8(9), stack))))
    found = localise_exam(made, "meniscus", {**dict.fromkeys(PLANES, mask), "axial": unread})
    assert "axial" not in found
    assert found["coronal"].slice_chance == pytest.approx(1 / 3)
    assert not found["coronal"].slice_hit
    assert localise_exam(made, "acl", dict.fromkeys(PLANES, mask))["coronal"].slice_hit


def test_a_mask_of_another_shape_is_refused(data: Path) -> None:
    """The error names the mask's file, the exam and both shapes."""
    file = data / "lesions" / "valid" / "acl" / "coronal" / "0001.npy"
    np.save(file, np.ones((SLICES + 1, SIDE, SIDE), np.uint8))
    with pytest.raises(DataError) as raised:
        mrknee.validate_maps(Brightness(), data)
    error = raised.value
    assert (error.code, error.file, error.exam) == ("shapes", str(file), "0001")
    assert error.found == f"({SLICES + 1}, {SIDE}, {SIDE})"


def test_without_an_exam_that_has_a_finding_there_is_nothing_to_measure(data: Path) -> None:
    """Without a label file of the model's findings, or a positive exam, an error is raised."""
    for finding in FINDINGS:
        write_labels(data, "valid", finding, {f"{n:04d}": 0.0 for n in range(POSITIVE + 2)})
    with pytest.raises(DataError, match="no exam is known"):
        mrknee.validate_maps(Brightness(), data)
    for finding in FINDINGS:
        (data / f"valid-{finding}.csv").unlink()
    with pytest.raises(DataError, match="no exam is known"):
        mrknee.validate_maps(Brightness(), data)


def test_the_verb_writes_maps_json_and_prints_the_table(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file has the scores with n and their methods, and the table is printed."""
    run, out = make_model(tmp_path / "run"), tmp_path / "maps"
    assert main(["validate-maps", str(run), str(data), "--out", str(out)]) == 0
    content = json.loads((out / "maps.json").read_text())
    assert (content["version"], content["split"], content["share"]) == (1, "valid", SHARE)
    assert content["findings"]["acl"]["localisation"][TOGETHER]["slices"]["observed"]["n"] == 4
    said = capsys.readouterr().out
    assert said.startswith("knees, valid: exams that have the finding")
    assert max(map(len, said.splitlines())) <= 120
    assert "chance" in said


def test_an_input_is_not_replaced(data: Path, tmp_path: Path) -> None:
    """A link called maps.json to a label file is refused before anything is explained."""
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "maps.json").symlink_to(data / "valid-acl.csv")
    with pytest.raises(OutputError, match="would replace"):
        mrknee.validate_maps(Brightness(), data, out=tmp_path / "maps")


def test_what_cannot_be_computed_is_null(tmp_path: Path) -> None:
    """Without exams the means are null in the JSON file."""
    nothing = summarise_deletions([])
    assert (nothing.n, nothing.lower) == (0, 0)
    assert math.isnan(nothing.difference)
    found = MapValidation("knees", "valid", {"acl": FindingMaps(0, 0, {}, {}, nothing)})
    found.write(tmp_path / "maps.json")
    content = json.loads((tmp_path / "maps.json").read_text())
    assert content["findings"]["acl"]["deletion"]["difference"] is None
