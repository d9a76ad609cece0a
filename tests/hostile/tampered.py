"""Descriptions of models with one changed value each, and everything that reads a model."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mrknee.errors import MrkneeError
from mrknee.exams import Dataset, Exam, open_dataset
from mrknee.export.onnx import export
from mrknee.inference.model import Model, load_model
from mrknee.inference.submission import submit
from mrknee.models.description import digest_of
from mrknee.reports.evaluation import evaluate
from mrknee.reports.exam_page import explain_exam
from mrknee.server.service import Service
from tests.hostile.exported import finished

Tampered = tuple[str, dict[str, Any]]


def nested(levels: int) -> Any:  # noqa: ANN401
    """Returns a list of this many nested lists."""
    inside: list[Any] = []
    for _ in range(levels):
        inside = [inside]
    return inside


VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "0": 0,
    "1": 1,
    "-1": -1,
    "0.5": 0.5,
    "-0.5": -0.5,
    "10^400": 10**400,
    "-10^30": -(10**30),
    "1e308": 1e308,
    "1e-308": 1e-308,
    "an empty text": "",
    "nan as text": "nan",
    "inf as text": "inf",
    "a number as text": "1",
    "a lone surrogate": "\ud800",
    "control characters": "\x1b[2J\0\n",
    "100,000 letters": "x" * 100_000,
    "an empty list": [],
    "a list of numbers": [1, 2, 3],
    "a list of null": [None],
    "an empty object": {},
    "an object": {"a": {"b": 1}},
    "30 levels": nested(30),
    "60 levels": nested(60),
}
"""Name -> value that replaces each value of a description in turn."""


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:  # noqa: ANN401
    """Yields the path of keys to each value of a description, including objects and lists."""
    if path:
        yield path
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    for name, one in pairs:
        yield from places(one, (*path, name))


def tampered(description: dict[str, Any]) -> Iterator[Tampered]:
    """Yields descriptions in which one value is replaced by one of `VALUES`, removed or doubled."""
    for path in places(description):
        for what, value in VALUES.items():
            yield f"{path}: {what}", _changed(description, path, partial(_put, value=value))
        yield f"{path}: removed", _changed(description, path, lambda at, key: at.pop(key))
        yield f"{path}: doubled", _changed(description, path, _more)


def _put(at: Any, key: str | int, value: Any) -> None:  # noqa: ANN401
    at[key] = value


def _more(at: Any, key: str | int) -> None:  # noqa: ANN401
    if isinstance(at[key], dict):
        at[key]["more"] = "more"
    elif isinstance(at[key], list):
        at[key].append(at[key][0] if at[key] else "more")
    elif isinstance(at, dict):
        at[f"{key} more"] = at[key]
    else:
        at.append(at[key])


def _changed(
    description: dict[str, Any],
    path: tuple[str | int, ...],
    change: Callable[[Any, str | int], object],
) -> dict[str, Any]:
    other = copy.deepcopy(description)
    at: Any = other
    for step in path[:-1]:
        at = at[step]
    change(at, path[-1])
    return other


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Writes a model.json with a correct digest, so that the following checks are reached."""
    if "digest" in description:
        digest = digest_of(description) if description["digest"] else description["digest"]
        description = {**description, "digest": digest}
    (folder / "model.json").write_text(json.dumps(description))


def write_metadata(file: Path, body: bytes, description: dict[str, Any]) -> None:
    """Writes an ONNX file with these metadata and a correct checksum."""
    file.write_bytes(finished(body, description))


def body_of(file: Path) -> bytes:
    """Returns an exported file without its metadata and checksum."""
    import onnx

    model = onnx.load(file)
    model.ClearField("metadata_props")
    return bytes(model.SerializeToString())


def read_with(path: Path, exam: Exam) -> Model:
    """Opens a model, predicts and explains an exam, and describes the model as the service does.

    Raises:
        MrkneeError: the model is invalid.
        AssertionError: a result is invalid.
    """
    model = load_model(path)
    probabilities = model.predict([exam]).probabilities
    assert probabilities.shape == (1, len(model.findings))
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    explained = model.explain(exam)
    assert np.isfinite(explained.logits).all()
    json.dumps(explained.description(), allow_nan=False).encode()
    service = Service(model, path.name)
    service.facts().model_dump_json()
    return model


def run_commands(path: Path, data: Path, out: Path, *, export_too: bool = True) -> dict[str, str]:
    """Runs all commands that read a model, with one model.

    Args:
        path: a run folder or an exported file.
        data: a data set in MRNet's layout with a split valid.
        out: a folder to write to.
        export_too: whether to export a run folder that another command has read.

    Returns:
        Command -> "read", or "refused" for a MrkneeError.

    Raises:
        BaseException: any other error of a command.
    """
    exams: Dataset = open_dataset(data, "valid")
    listing = out / "paths.csv"
    lines = [str(data / "valid" / plane / f"{exams.ids[0]}.npy") for plane in exams[0].stacks]
    listing.write_text("\n".join(lines))

    def predict() -> None:
        load_model(path).predict(exams).write(out / "p.csv")

    commands: dict[str, Callable[[], object]] = {
        "predict": predict,
        "submit": lambda: submit(path, listing, out / "s.csv"),
        "explain": lambda: explain_exam(path, data, exams.ids[0], out / "why"),
        "evaluate": lambda: evaluate(
            str(out / "p.csv"), data, out / "scores", split="valid", model=path
        ),
        "serve": lambda: read_with(path, exams[0]),
        "export": lambda: export(path, out / "m.onnx"),
    }
    found: dict[str, str] = {}
    for name, command in commands.items():
        if name == "export" and (path.is_file() or (not export_too and "read" in found.values())):
            continue
        try:
            command()
            found[name] = "read"
        except MrkneeError:
            found[name] = "refused"
    return found
