"""The error classes and their codes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import mrknee
from mrknee import errors
from mrknee.errors import MrkneeError

PACKAGE = Path(mrknee.__file__).parent
PAGE = PACKAGE.parents[1] / "docs" / "reference" / "errors.md"
FAMILY = {kind.__name__ for kind in MrkneeError.__subclasses__()}


def raised() -> Iterator[tuple[str, str, ast.expr | None]]:
    """Yields every raised error of the package: location, class and the expression of its code."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                kind = node.func.id
                if (file.name, kind) == ("untrusted.py", "kind"):  # the caller's class
                    kind = "DataError"
                code = next((k.value for k in node.keywords if k.arg == "code"), None)
                if kind in FAMILY | {"MrkneeError"}:
                    yield f"{file.relative_to(PACKAGE)}:{node.lineno}", kind, code


def codes(value: ast.expr | None) -> list[str]:
    """Returns the codes that an expression can have: a literal, or a choice between literals."""
    if isinstance(value, ast.IfExp):
        return codes(value.body) + codes(value.orelse)
    assert isinstance(value, ast.Constant), "a code is written out where it is raised"
    assert isinstance(value.value, str)
    return [value.value]


def test_the_base_class_is_caught_and_never_raised() -> None:
    """Only subclasses are raised, which tell whether data, model, settings, ... are at fault."""
    assert {"DataError", "ModelError", "SettingsError", "OutputError", "PlatformError"} <= FAMILY
    assert all(kind.__module__ == errors.__name__ for kind in MrkneeError.__subclasses__())
    assert not [place for place, kind, _ in raised() if kind == "MrkneeError"]


def test_every_code_is_documented() -> None:
    """docs/reference/errors.md lists each class's codes, all that are raised and no others."""
    used = {(kind, code) for _, kind, value in raised() for code in codes(value)}
    listed, kind = set(), ""
    for line in PAGE.read_text().splitlines():
        if heading := re.fullmatch(r"## `(\w+)`.*", line):
            kind = heading[1]
        elif row := re.match(r"\| `([a-z0-9-]+)` \|", line):
            listed.add((kind, row[1]))
    assert listed == used
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code) for _, code in used)
