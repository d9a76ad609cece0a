"""Parts of pages that are generated from the code when the site is built.

Writes Markdown into `docs/_generated`, which pages include:

    commands.md   the `--help` of every command
    settings.md   every setting of the recipes, with the values of the recipes that ship
    schemas.md    JSON schemas of the pydantic models: the recipe, and what the service answers
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

COLUMNS = 96
"""Width of the help texts, in characters: what fits beside the site's menus."""


def run_mrknee(*words: str) -> str:
    """What a command prints."""
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-m", "mrknee", *words],
        env={**os.environ, "COLUMNS": str(COLUMNS), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ExtensionError(f"mrknee {' '.join(words)} failed: {done.stderr}")
    return done.stdout


def list_commands(overview: str) -> list[str]:
    """The commands that `mrknee --help` lists, in its order."""
    _, found, listed = overview.partition("commands (")
    names = re.findall(r"^ {2,4}([a-z][a-z-]*) {2,}\S", listed, re.MULTILINE)
    if not found or len(names) < 10:
        raise ExtensionError(
            f"`mrknee --help` no longer lists its commands as expected:\n{overview}"
        )
    return names


def commands() -> str:
    """One section per command: what `mrknee COMMAND --help` prints."""
    overview = run_mrknee("--help")
    names = list_commands(overview)
    with ThreadPoolExecutor(2) as pool:
        helps = list(pool.map(lambda name: run_mrknee(name, "--help"), names))
    parts = [f"```text\n{overview.rstrip()}\n```\n"]
    for name, text in zip(names, helps, strict=True):
        parts.append(f"## `mrknee {name}`\n\n```text\n{text.rstrip()}\n```\n")
    return "\n".join(parts)


def settings() -> str:
    """One table: setting, and its value in each recipe that ships."""
    from mrknee.training.recipe import flat_settings, load_recipe, recipe_names

    names = recipe_names()
    values = [dict(flat_settings(load_recipe(name).to_dict())) for name in names]
    rows = [f"| setting | {' | '.join(f'`{name}`' for name in names)} |"]
    rows.append("| --- |" + " --- |" * len(names))
    for setting in values[0]:
        cells = [f"`{json.dumps(one[setting], ensure_ascii=False)}`" for one in values]
        rows.append(f"| `{setting}` | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def schemas() -> str:
    """The JSON schema of each pydantic model that describes a file or an answer."""
    from pydantic import BaseModel

    from mrknee.server import api_schemas
    from mrknee.server import schemas as answers
    from mrknee.training.recipe import Recipe

    parts = [schema_block("Recipe (YAML)", Recipe.model_json_schema())]
    models = [
        one
        for module in (answers, api_schemas)
        for _, one in inspect.getmembers(module, inspect.isclass)
        if issubclass(one, BaseModel) and one.__module__ == module.__name__
    ]
    used = {name for one in models for name in one.model_json_schema().get("$defs", {})}
    for one in models:
        if one.__name__ not in used:  # the others are inside these
            about = inspect.getdoc(one) or ""
            title = f"`{one.__name__}`: {about.splitlines()[0].rstrip('.')}"
            parts.append(schema_block(title, one.model_json_schema()))
    return "\n".join(parts)


def schema_block(title: str, schema: Mapping[str, Any]) -> str:
    """A heading and a schema."""
    return f"### {title}\n\n```json\n{json.dumps(schema, indent=2, ensure_ascii=False)}\n```\n"


def write_pages(app: Sphinx) -> None:
    """Writes each part; one that has not changed is left alone, so that its page isn't rebuilt."""
    folder = Path(app.srcdir) / "_generated"
    folder.mkdir(exist_ok=True)
    for make in (commands, settings, schemas):
        file, text = folder / f"{make.__name__}.md", make()
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects the extension."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
