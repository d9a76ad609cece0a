"""Training on some of a data set's series: the setting `series`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mrknee.errors import DataError, SettingsError
from mrknee.exams import PLANES, Dataset, Exam, open_dataset
from mrknee.inference.model import load_model
from mrknee.training.recipe import load_recipe
from mrknee.training.run import train
from tests.conftest import write_toy_dataset
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set."""
    return write_toy_dataset(tmp_path_factory.mktemp("series") / "toy")


@pytest.fixture(scope="module")
def run(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one series and one finding."""
    folder = tmp_path_factory.mktemp("series") / "run"
    train(toy, folder, QUICK.replace(series=["coronal"], findings=["acl"]))
    return folder


def test_a_network_has_the_chosen_series_only(toy: Path, run: Path) -> None:
    """It has one encoder, is trained on that series, and reads exams with others unchanged."""
    model = load_model(run)
    assert model.series.names == model.trained.names == ("coronal",)
    assert model.provenance["series"] == {"coronal": 8}
    whole = open_dataset(toy, "valid")
    found = model.predict(whole).probabilities
    alone = [Exam(one.id, {"coronal": one.stacks["coronal"]}) for one in whole]
    np.testing.assert_allclose(model.predict(alone).probabilities, found, atol=1e-6)
    assert list(model.explain(whole[0]).native) == ["coronal"]
    assert model.explain(whole[0]).adds_up


def test_the_exams_are_those_of_all_series(toy: Path, run: Path, tmp_path: Path) -> None:
    """Networks of different series train and select on the same exams."""
    train(toy, tmp_path / "all", QUICK.replace(epochs=1))
    assert (run / "split.csv").read_text() == (tmp_path / "all" / "split.csv").read_text()


def test_an_exam_without_the_series_is_refused(toy: Path) -> None:
    """Of a data set in which one is missing, the others can be used."""
    whole = Dataset.of_split(toy, "train", series=["SAG", "axial"])
    assert whole.series.names == ("axial", "sagittal")
    assert whole.unread == ()
    file = toy / "train" / "coronal" / "0003.npy"
    content = file.read_bytes()
    file.unlink()
    try:
        assert len(Dataset.of_split(toy, "train", series=["axial"])) == 12
        for allow in (False, True):
            with pytest.raises(DataError, match="lacks the series coronal") as caught:
                Dataset.of_split(toy, "train", series=["coronal"], allow_missing_plane=allow)
            assert caught.value.exam == "0003"
        both = Dataset.of_split(toy, "train", series=["coronal", "axial"], allow_missing_plane=True)
        assert list(both["0003"].stacks) == ["axial"]
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("series", [["knee"], [], ["axial", "ax"]])
def test_unknown_series_are_refused(toy: Path, series: list[str]) -> None:
    """The message names the series that the data set has."""
    with pytest.raises(DataError, match="these series") as caught:
        Dataset.of_split(toy, "train", series=series)
    assert all(plane in (caught.value.expected or "") for plane in PLANES)


def test_the_setting_is_read_from_text() -> None:
    """Names with commas between them, or a list; anything else is refused."""
    assert load_recipe("reference", {"series": "axial, Sagittal"}).series == ["axial", "sagittal"]
    assert load_recipe("reference", {"series": ["coronal"]}).series == ["coronal"]
    assert load_recipe("reference").series is None
    wrong: object
    for wrong in ("", "axial,axial", [], 3):
        with pytest.raises(SettingsError, match="series"):
            load_recipe("reference", {"series": wrong})
