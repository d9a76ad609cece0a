"""The package unpickles nothing, and evaluates or imports nothing that a file names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "mrknee"

FORBIDDEN = {
    "pickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "jsonpickle",
}
"""Modules that execute code from the files that they read."""

ALONE = {"json": "untrusted.py", "yaml": "recipe_yaml.py"}
"""Library that parses text -> the only file that may call its `load` functions."""


def dangers(code: str, file: str) -> Iterator[str]:
    """Yields the calls and imports in a file's code that could execute another file's content."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            yield from (f"import {name}" for name in names if name.split(".")[0] in FORBIDDEN)
        if isinstance(node, ast.Call):
            yield from _in_call(ast.unparse(node.func), node, file)


def _in_call(name: str, call: ast.Call, file: str) -> Iterator[str]:
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    library, _, function = name.rpartition(".")
    if name in ("eval", "exec", "compile", "__import__") or function == "read_pickle":
        yield name
    if function == "import_module":
        table = [ast.unparse(word) for word in call.args] == [
            "_HOME[name]"
        ]  # the package's own names
        if not (file == "__init__.py" and table):
            yield name
    if function in ("load", "loads", "load_all", "full_load", "unsafe_load"):
        known = {
            "torch": given.get("weights_only") == "True",
            "np": given.get("allow_pickle") == "False",
            "json": function == "loads" and file == ALONE["json"],
            "yaml": given.get("Loader") == "_YamlLoader" and file == ALONE["yaml"],
            "safetensors.torch": True,
            "onnx": True,  # protobuf
        }
        if not known.get(library, False):
            yield name


def test_the_package_has_no_way_to_unpickle() -> None:
    """No pickle, torch.load of weights only, and only the safe forms of np.load, JSON and YAML."""
    found = {
        str(file.relative_to(SOURCE)): list(dangers(file.read_text(encoding="utf-8"), file.name))
        for file in SOURCE.rglob("*.py")
    }
    assert len(found) > 50
    assert {file: what for file, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.memory",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(f)",
        "yaml.load(f, Loader=yaml.Loader)",
        "yaml.unsafe_load(f)",
        "json.loads(f)",
        "eval(f)",
        "pandas.read_pickle(f)",
        "importlib.import_module(f)",
        "torch.jit.load(f)",
    ],
)
def test_the_search_finds(code: str) -> None:
    """The search finds each forbidden call and import."""
    assert list(dangers(code, "reader.py"))
