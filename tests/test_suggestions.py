from __future__ import annotations

import pytest

from mrknee import suggestions
from mrknee.cli import VERBS
from mrknee.settings import described
from mrknee.suggestions import OPTIONS, SETTINGS, meant
from mrknee.training.recipe import Recipe

KNOWN = [*described(Recipe), "out", "recipe", "resume"]


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("batch_size", "batch_exams"),
        ("batch-size", "batch_exams"),
        ("lr", "optimizer.learning_rate"),
        ("optimizer.lr", "optimizer.learning_rate"),
        ("learning_rate", "optimizer.learning_rate"),
        ("max_epochs", "epochs"),
        ("epoch", "epochs"),
        ("backbone", "network.encoder"),
        ("encoder", "network.encoder"),
        ("network.encodr", "network.encoder"),
        ("Epochs", "epochs"),
        ("num_workers", "workers"),
        ("resme", "resume"),
        ("output", "out"),
        ("network", "network.encoder"),
    ],
)
def test_a_setting_of_another_program_is_understood(written: str, right: str) -> None:
    """Synonyms, other spellings, the last part alone, and slips of the pen."""
    assert meant(written, KNOWN, SETTINGS) == right


@pytest.mark.parametrize("written", ["fast", "gpus", "x", "zzzzzz"])
def test_what_is_like_nothing_is_not_guessed(written: str) -> None:
    """A wrong suggestion is worse than none."""
    assert meant(written, KNOWN, SETTINGS) is None


def test_every_synonym_leads_to_something_there_is() -> None:
    """And no synonym is a name of its own."""
    assert set(SETTINGS.values()) <= set(KNOWN)
    assert not set(SETTINGS) & set(KNOWN)
    assert set(suggestions.VERBS.values()) <= set(VERBS)
    assert not set(suggestions.VERBS) & set(VERBS)
    assert set(OPTIONS.values()) <= {"exam", "int8", "out", "runtime", "seed", "split", "threads"}
