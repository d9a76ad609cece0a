"""Model card and data-set card: Markdown files written next to a scorecard.

Recorded facts about a run and its evaluation are filled in; what has to be written by hand is
marked. The sections are those of M. Mitchell et al., "Model cards for model reporting", FAT* 2019,
and of T. Gebru et al., "Datasheets for datasets", Communications of the ACM 64 (2021) 86-92.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mrknee import __version__
from mrknee.metrics.formatting import format_exams
from mrknee.reports import sentences, words
from mrknee.reports.contents import Contents
from mrknee.reports.templates import templates
from mrknee.training.recipe import flat_settings
from mrknee.untrusted import read_text

MODEL_CARD, DATA_CARD = "model_card.md", "data_card.md"

CARDS = (MODEL_CARD, DATA_CARD)
"""File names of both cards."""

MARK = "TO BE FILLED IN"
"""Placeholder in sections that have to be written by hand."""

MOST_BYTES = 1_000_000
"""Maximum size of an existing card, far above that of a card written by hand."""

_BY_HAND = re.compile(r"<!-- by hand: ([a-z-]+) -->\n(.*?)<!-- end -->", re.DOTALL)


def make_cards(contents: Contents, folder: Path) -> dict[str, str]:
    """Returns the text of both cards by file name.

    Sections written by hand are kept from existing cards in the folder; all others are rewritten.

    Args:
        contents: the contents of the evaluation report.
        folder: where the cards will be written.

    Raises:
        DataError: an existing card can't be read.
    """
    texts = {}
    for name in CARDS:
        file = folder / name
        before = read_text(file, "card", at_most=MOST_BYTES) if file.exists() else ""
        texts[name] = render_card(name, contents, dict(_BY_HAND.findall(before)))
    return texts


def render_card(name: str, contents: Contents, kept: Mapping[str, str] = {}) -> str:
    """Returns a card as Markdown.

    Args:
        name: `MODEL_CARD` or `DATA_CARD`.
        contents: the contents of the evaluation report.
        kept: section -> text written by hand.
    """

    def by_hand(section: str, question: str) -> Markup:
        text = kept.get(section, f"**{MARK}:** {question}\n")
        # text of our own template, or of the existing card
        return Markup(f"<!-- by hand: {section} -->\n{text}<!-- end -->")  # noqa: S704

    environment = templates().overlay(autoescape=False, finalize=_plain)
    facts = contents.model
    provenance: Mapping[str, Any] = {} if facts is None else facts.provenance
    return environment.get_template(name).render(
        contents=contents,
        card=contents.card,
        facts=facts,
        known=provenance,
        recipe=dict(flat_settings(provenance.get("recipe", {}))),
        packages=provenance.get("environment", {}).get("packages", {}),
        by_hand=by_hand,
        sentences=sentences,
        words=words,
        format_exams=format_exams,
        version=__version__,
    )


def _plain(value: object) -> object:
    """Returns a value as Markdown text, without HTML and without ends of table cells."""
    if isinstance(value, Markup):
        return value
    return str(value).replace("<", "&lt;").replace("|", "\\|")
