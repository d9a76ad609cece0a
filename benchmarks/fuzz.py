"""Coverage-guided fuzzing of the readers: any bytes must give a result or a MrkneeError.

    pip install atheris
    python benchmarks/fuzz.py READER --seconds 600 --corpus fuzz/READER

The corpus consists of the malformed inputs of tests/hostile and of inputs kept in `--corpus` by
earlier runs. On any other exception, an input that takes more than 10 s, or more than 2 GB of
memory, fuzzing stops and writes the input to a file. `--list` prints the readers. If a reader uses
compiled code for parsing (csv, safetensors, ONNX Runtime), only the Python code around it guides
the search. Seconds are processor time, so other programs on the machine don't matter; an input
that waits for something else is a fault after 5 minutes by the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

LONGEST = 16_384
"""Maximum size of an input in bytes."""

SECONDS_PER_INPUT = 10


@dataclass(frozen=True)
class Reader:
    """One reader to fuzz.

    Attributes:
        load: imports and returns the reader, a function of a file's path.
        suffix: file name extension of inputs.
        instrumented: modules, in addition to mrknee, whose branches guide the search.
        part: the part of the reader that is fuzzed, if not all.
    """

    load: Callable[[], Callable[[Path], object]]
    suffix: str = ""
    instrumented: tuple[str, ...] = ()
    part: str = "all"


def stack() -> Callable[[Path], object]:
    """Loads the reader of .npy files."""
    from mrknee.exams import read_stack

    return read_stack


def labels() -> Callable[[Path], object]:
    """Loads the reader of label files."""
    from mrknee.exams import read_labels

    return read_labels


def predictions() -> Callable[[Path], object]:
    """Loads the reader of tables of predictions."""
    from mrknee.metrics.predictions import Predictions

    return Predictions.read


def listing() -> Callable[[Path], object]:
    """Loads the reader of lists of paths."""
    from mrknee.inference.submission import ListedExams

    return ListedExams


def recipe() -> Callable[[Path], object]:
    """Loads the reader of recipes, from YAML to settings."""
    from mrknee.training.recipe import read_recipe

    return lambda path: read_recipe(str(path))


def scorecard() -> Callable[[Path], object]:
    """Loads the reader of scorecards."""
    from mrknee.metrics.scorecard import Scorecard

    return Scorecard.read


def checkpoint() -> Callable[[Path], object]:
    """Loads the reader of model.json, up to the creation of the network."""
    from mrknee.metrics.decisions import Decisions
    from mrknee.models.checkpoint import _read_description

    def read(path: Path) -> None:
        description = _read_description(path)  # the preparation's settings too
        Decisions.from_dict(description["decisions"])

    return read


def weights() -> Callable[[Path], object]:
    """Loads the reader of PyTorch files of tensors."""
    from mrknee.models.weights import read_weights

    return read_weights


def onnx() -> Callable[[Path], object]:
    """Loads the reader of exported models, up to the creation of the ONNX Runtime session."""
    from mrknee.inference.onnx_file import read_exported, seal

    def read(path: Path) -> None:
        # with a valid checksum, so that the code after its verification is reached
        path.write_bytes(seal(path.read_bytes()))
        read_exported(path)

    return read


def dicom() -> Callable[[Path], object]:
    """Loads the reader of DICOM files: header, series, pixels."""
    from mrknee.sources.clinical.dicomfile import is_dicom
    from mrknee.sources.clinical.header import read_header
    from mrknee.sources.clinical.knees import studies_of
    from mrknee.sources.clinical.locate import Location, Opener
    from mrknee.sources.clinical.study import read_study

    def read(path: Path) -> None:
        with Opener() as opener, opener.open(Location(path)) as file:
            images = read_header(file, Location(path)) if is_dicom(file) else []
        for study in studies_of(images):
            read_study(study, {}, allow_missing_plane=True)

    return read


def nifti() -> Callable[[Path], object]:
    """Loads the reader of NIfTI files."""
    from mrknee.exams import Plane
    from mrknee.sources.clinical.locate import Location
    from mrknee.sources.clinical.nifti import read_nifti

    return lambda path: read_nifti(Location(path), Plane.AXIAL)


def zipped() -> Callable[[Path], object]:
    """Loads the reader of zip files: the directory and the bytes of every member."""
    from mrknee.sources.clinical.locate import Opener, find_files

    def read(path: Path) -> None:
        with Opener() as opener:
            for location in find_files(path).files:
                opener.read(location)

    return read


READERS = {
    "stack": Reader(stack, ".npy", ("numpy.lib",)),
    "labels": Reader(labels, ".csv"),
    "predictions": Reader(predictions, ".csv"),
    "listing": Reader(listing, ".csv"),
    "recipe": Reader(recipe, ".yaml", ("yaml",)),
    "scorecard": Reader(scorecard, ".json", ("json",)),
    "checkpoint": Reader(checkpoint, ".json", ("json",), "without building the network"),
    "weights": Reader(weights, ".pth", (), "guided by our own part only: torch is too large"),
    "onnx": Reader(onnx, ".onnx", ("json",), "without loading the graph"),
    "dicom": Reader(dicom, ".dcm", ("pydicom",)),
    "nifti": Reader(nifti, ".nii", ("nibabel.nifti1", "nibabel.nifti2", "nibabel.analyze")),
    "zip": Reader(zipped, ".zip", ("zipfile",)),
}


def seeds(reader: str, folder: Path) -> Iterator[bytes]:
    """Yields the inputs of tests/hostile for a reader that are files of a reasonable size."""
    from tests.hostile import exported, models, recipes, stacks, studies, tables
    from tests.metrics.test_scorecard import a_scorecard

    yield from {
        "stack": [stacks.GOOD],
        "labels": [tables.LABELS.encode()],
        "predictions": [tables.PREDICTIONS.encode()],
        "listing": [tables.LISTING.encode()],
        "recipe": [recipes.RECIPE.encode()],
        "scorecard": [a_scorecard(full=True).to_json().encode()],
        "onnx": [exported.GOOD],
        "dicom": [studies.small_dicom()],
        "nifti": [studies.small_nifti()],
        "zip": [studies.zipped(("a.dcm", b"knee"))],
    }.get(reader, [])
    model = models.write_model(folder / "model")
    if reader == "checkpoint":
        yield (model / "model.json").read_bytes()
    several = (
        stacks.cases(),
        tables.cases(),
        recipes.cases(),
        recipes.scorecards(a_scorecard(full=True)),
        models.cases(model),
        exported.cases(),
        studies.cases(),
    )
    wanted = {"dicom": "DICOM", "nifti": "NIfTI", "zip": "zip"}.get(reader)
    cases = (
        case
        for some in several
        for case in some
        if case.reader == reader or (wanted is not None and case.name.startswith(f"{wanted}, "))
    )
    for number, case in enumerate(cases):
        place = folder / str(number)
        place.mkdir()
        case.write(place / "input")
        for file in (place / "input" / "model.json", *place.glob("input*")):
            if file.is_file() and file.stat().st_size <= LONGEST:
                yield file.read_bytes()


def fuzz(name: str, seconds: int, corpus: Path) -> None:
    """Fuzzes one reader, and ends the process."""
    reader = READERS[name]
    with atheris.instrument_imports(include=["mrknee", *reader.instrumented]):
        for module in [m for m in sys.modules if m.split(".")[0] in ("json", "zipfile")]:
            if module.split(".")[0] in reader.instrumented:
                del sys.modules[module]
        read = reader.load()
    from mrknee.errors import MrkneeError

    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        with tempfile.TemporaryDirectory() as folder:
            for number, seed in enumerate(seeds(name, Path(folder))):
                (corpus / f"seed{number:04d}").write_bytes(seed)
    memory = Path("/dev/shm")  # noqa: S108  # one file per input, which needn't be stored on a disk
    file = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None)) / f"input{reader.suffix}"

    started, inputs = time.process_time(), 0

    def one(data: bytes) -> None:
        nonlocal inputs
        before = time.process_time()
        if before - started > seconds:
            print(f"{name}: {inputs} inputs in {before - started:.0f} s, no fault", flush=True)
            os._exit(0)  # libFuzzer ends after a time by the clock only
        file.write_bytes(data)
        with contextlib.suppress(MrkneeError):
            read(file)
        inputs += 1
        taken = time.process_time() - before
        if taken > SECONDS_PER_INPUT:
            raise TimeoutError(f"{taken:.0f} s for one input")

    options = [
        f"-max_len={LONGEST}",
        "-timeout=300",
        "-rss_limit_mb=2000",
        f"-artifact_prefix={corpus.parent}/{name}-",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("reader", choices=READERS, nargs="?")
    parser.add_argument("--seconds", type=int, default=600, help="processor time")
    parser.add_argument("--corpus", type=Path, help="a folder; fuzz/READER if not given")
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    if given.list or given.reader is None:
        for name, reader in READERS.items():
            print(f"{name:12} {reader.part}")
        return
    fuzz(given.reader, given.seconds, given.corpus or Path("fuzz", given.reader))


if __name__ == "__main__":
    main()
