"""Tests of runs that are resumed with another number of epochs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrknee.training.extension import extension_note
from mrknee.training.optimization import cosine_factor
from mrknee.training.recipe import ScheduleSettings, SelectionSettings
from mrknee.training.run import train
from tests.training.test_run import QUICK

pytestmark = pytest.mark.slow

COSINE = QUICK.replace(schedule=ScheduleSettings(name="cosine"), epochs=4)
BASE = COSINE.optimizer.learning_rate


def test_changed_cosine_schedule_is_noted(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The change of the learning rate is reported when the run is resumed."""
    recipe = COSINE.replace(epochs=1)  # 3 steps
    train(toy, tmp_path / "run", recipe)
    assert "now spans" not in capsys.readouterr().out
    train(toy, tmp_path / "run", recipe.replace(epochs=2), resume=True)
    jump = f"jumps from 0 to {BASE * cosine_factor(4, 6, COSINE.schedule):.3g}"
    note = f"the cosine schedule now spans 2 epochs, so the learning rate {jump}"
    assert capsys.readouterr().out.count(note) == 1


def test_same_number_of_epochs_gives_no_note() -> None:
    """With the same number of epochs, the current rate is that of the cosine."""
    rate = BASE * cosine_factor(5, 12, COSINE.schedule)
    assert extension_note(COSINE, 4, rate=rate, step=5, steps=12) is None


def test_extension_killed_before_saving_is_noted_again() -> None:
    """The settings in the folder are new already, but the learning rate isn't."""
    assert extension_note(COSINE, 4, rate=0.0, step=6, steps=12) is not None


def test_fewer_epochs_are_noted() -> None:
    """A lower number of epochs is reported, because the rate falls at once."""
    rate = BASE * cosine_factor(3, 12, COSINE.schedule)
    note = extension_note(COSINE, 8, rate=rate, step=3, steps=6)
    assert note is not None
    assert "spans 4 epochs" in note


def test_plateau_keeps_reduced_rate() -> None:
    """The note states the reduced rate; a constant rate needs no note."""
    plateau = QUICK.replace(schedule=ScheduleSettings(name="plateau"), epochs=4)
    note = extension_note(plateau, 2, rate=2.7e-4, step=6, steps=12)
    assert note == (
        "4 epochs instead of 2: the learning rate continues at 0.00027, as reduced by the plateau "
        "schedule"
    )
    assert extension_note(plateau, 4, rate=2.7e-4, step=6, steps=12) is None
    constant = QUICK.replace(schedule=ScheduleSettings(name="constant"), epochs=4)
    assert extension_note(constant, 2, rate=BASE, step=6, steps=12) is None


def test_early_stopped_run_is_not_extended(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More epochs have no effect, and a note gives the reason."""
    frozen = QUICK.replace(
        optimizer=QUICK.optimizer.replace(learning_rate=1e-30),
        selection=SelectionSettings(fraction=0.34, early_stop=1),
        epochs=4,
    )
    train(toy, tmp_path / "run", frozen)
    rows = (tmp_path / "run" / "metrics.csv").read_text()
    capsys.readouterr()
    train(toy, tmp_path / "run", frozen.replace(epochs=6), resume=True)
    assert "note: the run stopped early after epoch 2" in capsys.readouterr().out
    assert (tmp_path / "run" / "metrics.csv").read_text() == rows
