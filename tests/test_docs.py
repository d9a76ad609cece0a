"""Agreement of the documentation with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mrknee

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [file for file in DOCS.rglob("*.md") if not {"_build", "_generated"} & set(file.parts)]


def test_the_api_page_lists_every_public_name() -> None:
    """docs/reference/python-api.md has exactly the public names and the returned classes."""
    page = (DOCS / "reference" / "python-api.md").read_text()
    listed = re.findall(r"^   ([A-Za-z_.]+)$", page, re.MULTILINE)
    assert len(set(listed)) == len(listed)
    assert {name for name in listed if "." not in name} == set(mrknee.__all__)


@pytest.mark.parametrize("file", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_links_to_pages_lead_somewhere(file: str) -> None:
    """Relative links in the files at the root name existing files."""
    links = re.findall(r"\]\(((?!https?:)[^)#]+)", (ROOT / file).read_text())
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_page_is_in_a_menu() -> None:
    """Each page of the site is listed in a table of contents."""
    listed = {DOCS / "index.md"}
    for page in PAGES:
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
            names = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed |= {page.parent / f"{name}.md" for name in names}
    assert set(PAGES) == listed


def test_the_readme_is_short() -> None:
    """The README has at most 120 lines and no file tree."""
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert "├──" not in text


def test_the_architecture_has_at_most_25_decisions() -> None:
    """ARCHITECTURE.md contains what every reader needs; other decisions are documented locally."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert len(re.findall(r"^\d+\. \*\*", text, re.MULTILINE)) <= 25
