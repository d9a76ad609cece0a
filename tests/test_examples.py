"""Every example in docstrings, README and docs runs, on a toy data set and two small models."""

from __future__ import annotations

import doctest
import inspect
import io
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import jaxtyping
import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt

import mrknee
from mrknee.export.onnx import Exported
from mrknee.models.catalogue import EncoderTable
from mrknee.reports.evaluation import Evaluation
from mrknee.sources.phantom import Phantom
from tests.conftest import write_toy_dataset

ROOT = Path(__file__).parents[1]
RESULTS = [Evaluation, Phantom, Exported, EncoderTable]
"""Classes returned by public functions that are not public names themselves."""


def examples_of(thing: Any, name: str) -> list[doctest.DocTest]:  # noqa: ANN401
    """Returns the examples in the docstrings of an object and of its methods."""
    found = doctest.DocTestFinder().find(thing, name, globs={})
    return [test for test in found if test.examples]


def blocks() -> Iterator[tuple[str, str]]:
    """Yields page and text of every Python block of README and docs.

    The cells of tutorials are `{code-cell}` blocks, which are executed when the site is built.
    """
    docs = [file for file in (ROOT / "docs").rglob("*.md") if "_build" not in file.parts]
    for page in (ROOT / "README.md", *sorted(docs)):
        for block in re.findall(
            r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE
        ):
            yield page.relative_to(ROOT).as_posix(), block


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the examples: `knees`, `runs/first` (trained), `runs/second`, and `demo`."""
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    write_toy_dataset(tmp_path / "knees", 12, 6, slices=(2, 4))
    mrknee.show_progress(False)
    quick: dict[str, Any] = {
        "preparation.size": 64,
        "selection.fraction": 0.34,
        "network.shared_encoder": True,
    }
    mrknee.train("knees", "small", out="runs/first", epochs=1, **quick)
    for copy in ("runs/second", "demo/run"):
        shutil.copytree("runs/first/best", f"{copy}/best")
    shutil.copytree("knees", "demo/data")
    mrknee.show_progress(True)
    jaxtyping.config.update("jaxtyping_disable", True)  # while a graph is traced, sizes are symbols
    logging.disable(logging.INFO)  # what torch notes of each traced operation
    yield tmp_path
    logging.disable(logging.NOTSET)
    jaxtyping.config.update("jaxtyping_disable", False)
    mrknee.show_progress(True)
    plt.close("all")


@pytest.mark.parametrize("name", mrknee.__all__)
def test_everything_public_has_an_example(name: str) -> None:
    """Every public name has an example; errors share the one of their base class."""
    thing = getattr(mrknee, name)
    if inspect.isclass(thing) and issubclass(thing, mrknee.MrkneeError):
        thing = mrknee.MrkneeError
    assert examples_of(thing, name)


@pytest.mark.slow
def test_every_example_runs(place: Path) -> None:
    """Docstrings print the stated output, README and docs run, and nothing is skipped."""
    failures: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    things = {name: getattr(mrknee, name) for name in mrknee.__all__}
    things |= {thing.__name__: thing for thing in RESULTS}
    for name, thing in things.items():
        for test in examples_of(thing, name):
            assert not any(doctest.SKIP in one.options for one in test.examples)
            with redirect_stderr(io.StringIO()):
                runner.run(test, out=failures.append)
        plt.close("all")
    # after the docstrings: that of export_onnx has written model.onnx
    pages = []
    for page, block in blocks():
        pages.append(page)
        shutil.rmtree(place / "runs" / "new", ignore_errors=True)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            exec(block, {})  # noqa: S102  # our own pages
        plt.close("all")
    assert not failures, "\n".join(failures)
    assert {"README.md", "docs/reference/errors.md", "docs/how-to/export.md"} <= set(pages)
