"""Malformed recipes, and malformed JSON files of scorecards and phantoms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mrknee.metrics.scorecard import Scorecard
from tests.hostile.case import MARKER, PICKLE, Case, content

RECIPE = "epochs: 3\nnetwork:\n  encoder: alexnet\n"
MODULE = "evil_settings"
"""A module next to the recipe; importing it creates the marker file."""

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(12)
)


def cases() -> Iterator[Case]:
    """Yields all malformed recipes."""
    yield from _recipes()
    yield from _classes()


def broken_json(whole: str) -> dict[str, str | bytes]:
    """Returns texts that every JSON reader of the package must refuse, by name."""
    lines = whole.splitlines(keepends=True)
    first = next(line for line in lines if ":" in line).rstrip().rstrip(",")
    return {
        "JSON, empty": "",
        "a brace": "{",
        "cut in the middle": whole[: len(whole) // 2],
        "cut before the last brace": whole.rstrip()[:-1],
        "text after the last brace": whole + "{}",
        "a key twice": whole.replace("{", "{" + first + ",", 1),
        "NaN": '{"format": NaN}',
        "infinity": '{"version": Infinity}',
        "1e999": '{"version": 1e999}',
        "a number of 10,000 digits": '{"version": ' + "9" * 10_000 + "}",
        "nested lists": "[" * 100_000,
        "nested objects": '{"a":' * 100_000,
        "a list": "[]",
        "null": "null",
        "JSON, text": '"format"',
        "comments": "// mrknee\n" + whole,
        "single quotes": whole.replace('"', "'"),
        "not UTF-8": b'{"format": "\xff"}',
        "UTF-16": whole.encode("utf-16"),
        "a pickle": PICKLE,
        "5 MB": whole + " " * 5_000_000,
    }


def scorecards(card: Scorecard) -> Iterator[Case]:
    """Yields malformed scorecards."""
    whole = card.to_json()
    for name, text in broken_json(whole).items():
        yield Case("scorecard", name, content(text))
    for key in ("findings", "notes", "seed", "split", "mean_auc", "mean_auc_ci", "mean_auc_method"):
        rest = json.loads(whole)
        del rest[key]
        yield Case("scorecard", f"no {key}", content(json.dumps(rest)), "can't be read")
    others: dict[str, Any] = {"findings": [[]], "notes": [[]], "mean_auc_ci": 7.5, "mean_auc": "x"}
    for key, value in others.items():
        text = json.dumps({**json.loads(whole), key: value})
        yield Case("scorecard", f"{key} of another kind", content(text), "can't be read")


def phantoms() -> Iterator[Case]:
    """Yields folders with a malformed phantom.json or one with other parameters."""
    texts: dict[str, str | bytes] = {
        "empty": "",
        "other parameters": '{"seed": 1}',
        "nested lists": "[" * 100_000,
        "not UTF-8": b"\xff\xfe\x00",
        "NaN": '{"seed": NaN}',
        "a pickle": PICKLE,
        "a terminal escape sequence": '{"\\u001b[2J": 1}',
    }
    for name, text in texts.items():

        def write(path: Path, text: str | bytes = text) -> None:
            path.mkdir()
            content(text)(path / "phantom.json")

        yield Case("phantom", name, write, "other parameters")

    def folder(path: Path) -> None:
        (path / "phantom.json").mkdir(parents=True)

    yield Case("phantom", "a folder", folder, "regular file")


def _recipes() -> Iterator[Case]:
    texts: dict[str, str | bytes] = {
        "a list": "- 1\n",
        "a number": "3\n",
        "the name of another file": "other.yaml\n",
        "the name of another file for a group": "network: other.yaml\n",
        "a setting twice": "epochs: 3\nepochs: 4\n",
        "a setting of a group twice": "network:\n  encoder: a\n  encoder: b\n",
        "a group twice": "network: {}\nnetwork: {}\n",
        "an unknown setting": "epocs: 3\n",
        "an unknown setting of a group": "network:\n  encode: alexnet\n",
        "a merged key": "network:\n  <<: {encoder: alexnet}\n",
        "aliases that grow exponentially": BOMB,
        "an anchor": "epochs: &a 3\n",
        "an alias to itself": "&a [*a]\n",
        "nested too deep": "epochs: " + "[" * 2000 + "]" * 2000,
        "nested mappings": "a: {" * 2000,
        "a tag of Python": f"!!python/object/apply:open ['{MARKER}', 'w']\n",
        "a module as a tag": f"epochs: !!python/module:{MODULE}\n",
        "a name as a tag": "weights: !!python/name:os.system\n",
        "a custom tag": "epochs: !mine 3\n",
        "bytes": "weights: !!binary aGVsbG8=\n",
        "a set": "findings: !!set {acl}\n",
        "a date": "epochs: 2026-11-27\n",
        "a sexagesimal number": "epochs: 1:30\n",
        "no setting": "# nothing\n",
        "NaN": "sensitivity: .nan\n",
        "infinity": "optimizer:\n  learning_rate: .inf\n",
        "a negative number": "epochs: -3\n",
        "text for a number": "epochs: many\n",
        "a number for text": "network:\n  encoder: {a: 1}\n",
        "a list for a number": "epochs: [3]\n",
        "a number of 10,000 digits": "epochs: " + "9" * 10_000 + "\n",
        "a key that is a list": "? [a]\n: 3\n",
        "a key that is null": "~: 3\n",
        "two documents": "epochs: 3\n---\nepochs: 4\n",
        "tabs": "network:\n\tencoder: alexnet\n",
        "an open quote": 'weights: "none\n',
        "NUL": "epochs: \0\n",
        "UTF-16": RECIPE.encode("utf-16"),
        "Latin-1": "weights: Münster\n".encode("latin1"),
        "a pickle": PICKLE,
        "100 kB": "#" * 100_000,
        "a finding that is a path": "findings: [../../acl]\n",
        "a finding twice": "findings: [acl, acl]\n",
        "an unknown schedule": "schedule:\n  name: whenever\n",
        "a preparation of 10^9 pixels": "preparation:\n  size: 1000000000\n  crop: 1000000000\n",
    }
    for name, text in texts.items():
        yield Case("recipe", name, content(text))


def _classes() -> Iterator[Case]:
    """Yields recipes with a class_path, which other libraries import and which is not a setting."""
    texts = {
        "a class for the recipe": f"class_path: {MODULE}.X\n",
        "a class for a group": f"network:\n  class_path: {MODULE}.X\n",
        "a class with arguments": f"optimizer:\n  class_path: {MODULE}.X\n  init_args: {{}}\n",
        "a class for a value": f"epochs:\n  class_path: {MODULE}.X\n",
        "a class in a list": f"loggers:\n- class_path: {MODULE}.X\n",
    }
    for name, text in texts.items():

        def write(path: Path, text: str = text) -> None:
            (path.parent / f"{MODULE}.py").write_text(f"open({MARKER!r}, 'w').close()\n")
            path.write_text(text)

        yield Case("recipe", name, write)
