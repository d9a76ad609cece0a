from __future__ import annotations

import pytest

from mrknee import suggestions
from mrknee.cli import COMMANDS
from mrknee.settings import setting_schemas
from mrknee.suggestions import OPTIONS, SETTINGS, suggest
from mrknee.training.recipe import Recipe

KNOWN = [*setting_schemas(Recipe), "out", "recipe", "resume"]


@pytest.mark.parametrize(
    ("name", "expected"),
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
def test_similar_or_synonymous_setting_is_suggested(name: str, expected: str) -> None:
    """Synonyms, other spellings, last parts of names and typing errors are recognised."""
    assert suggest(name, KNOWN, SETTINGS) == expected


@pytest.mark.parametrize("name", ["fast", "gpus", "x", "zzzzzz"])
def test_unrelated_name_gets_no_suggestion(name: str) -> None:
    """A name that resembles no setting gives no suggestion."""
    assert suggest(name, KNOWN, SETTINGS) is None


def test_every_synonym_refers_to_an_existing_name() -> None:
    """Every synonym refers to a valid name, and none is itself a valid name."""
    assert set(SETTINGS.values()) <= set(KNOWN)
    assert not set(SETTINGS) & set(KNOWN)
    assert set(suggestions.COMMANDS.values()) <= set(COMMANDS)
    assert not set(suggestions.COMMANDS) & set(COMMANDS)
    assert set(OPTIONS.values()) <= {"exam", "int8", "out", "runtime", "seed", "split", "threads"}
