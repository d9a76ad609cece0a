"""Interface of the MRNet competition: list of paths -> CSV with three columns.

Format (from the competition's evaluation script and its entries): the input is a headerless list of
`.npy` paths `.../{plane}/{id}.npy`, three lines per exam; the output is a headerless CSV of
abnormal, acl, meniscus, one line per exam in the same order, without ids. The evaluation script
checks only the number of lines and would accept wrong columns, so models with other findings are
refused here.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mrknee.errors import DataError, ModelError, MrkneeError
from mrknee.exams import MRNET_FINDINGS, PLANES, Exam, Findings, read_exam
from mrknee.exams.axes import (
    AXES,
    Shape,
    parse_axes,
    refuse_exams_with_other_axes,
    shape_in_order,
)
from mrknee.exams.listing import same_text
from mrknee.exams.stackfile import read_shape
from mrknee.files import exists, is_dir, write_text
from mrknee.inference.model import ModelPaths, load_model, name_of
from mrknee.inference.runtimes import RuntimeName
from mrknee.metrics.predictions import Predictions
from mrknee.untrusted import read_text

_MAX_BYTES = 16_000_000  # some 100,000 exams


class ListedExams:
    """The exams of a list of paths, in the order of their first path.

    Args:
        listing: the file: one path per line, relative to the current folder, of the form
            `.../{plane}/{id}.npy`; the three planes of an exam in any order.
        axes: order of the axes in the files, such as `rows,cols,slices`; None expects
            `slices,rows,cols`, and refuses files whose shapes indicate another order.

    Raises:
        MrkneeError: the file does not exist, a path has another form, a plane is missing or listed
            twice, or the axes of the stacks seem to be in another order.
    """

    def __init__(self, listing: Path, *, axes: str | None = None) -> None:
        lines = read_text(listing, "list of paths", at_most=_MAX_BYTES).split("\n")
        exams: dict[tuple[Path, str], dict[str, Path]] = {}
        for line in lines:
            if not line.strip():
                continue
            path = _as_stored(Path(line.strip()))
            plane = path.parent.name.lower()
            if plane not in PLANES or path.suffix.lower() != ".npy":
                raise DataError(
                    "a path does not have the required form",
                    code="paths-list",
                    file=listing,
                    expected=".../{axial,coronal,sagittal}/{id}.npy",
                    found=line,
                )
            planes = exams.setdefault((path.parent.parent, path.stem), {})
            if plane in planes:
                raise DataError(
                    f"the {plane} plane is listed twice",
                    code="paths-list",
                    file=listing,
                    exam=path.stem,
                    found=line,
                )
            planes[plane] = path
        for (_, exam_id), planes in exams.items():
            if len(planes) < len(PLANES):
                raise DataError(
                    "a plane of an exam is not listed",
                    code="paths-list",
                    file=listing,
                    exam=exam_id,
                    expected=", ".join(PLANES),
                    found=", ".join(planes),
                )
        if not exams:
            raise DataError("the list of paths is empty", code="paths-list", file=listing)
        self._exams = [(exam_id, planes) for (_, exam_id), planes in exams.items()]
        given = None if axes is None else parse_axes(axes)
        self._axes = given or AXES
        if given != AXES:  # an order given explicitly as the usual one is not checked
            shapes: list[tuple[str, dict[str, Shape]]] = []
            for exam_id, planes in self._exams:
                shapes.append((exam_id, {}))
                for plane, path in planes.items():
                    with suppress(MrkneeError):  # reported when the exam is read
                        shape = shape_in_order(read_shape(path, exam_id), self._axes)
                        shapes[-1][1][plane] = shape
            refuse_exams_with_other_axes(shapes, file=listing, given=given)

    def __len__(self) -> int:
        return len(self._exams)

    def __getitem__(self, index: int) -> Exam:
        exam_id, planes = self._exams[index]
        return read_exam(planes, exam_id, axes=self._axes)


def _as_stored(path: Path) -> Path:
    """Returns the file of a path, whose accents may be encoded differently; see `same_text`."""
    if path.name.isascii() or exists(path) or not is_dir(path.parent):
        return path
    name = same_text(path.name)
    return next((file for file in path.parent.iterdir() if same_text(file.name) == name), path)


def submit(
    model: ModelPaths,
    listing: str | Path,
    out: str | Path,
    *,
    threads: int | None = None,
    runtime: RuntimeName | None = None,
    axes: str | None = None,
) -> int:
    """Predicts the listed exams and writes the competition's CSV atomically.

    Remarks on unusual exams are written to a second file, as by `mrknee predict`.

    Args:
        model: a run folder, an ONNX file written by `mrknee export`, or the members of an ensemble.
        listing: the list of paths.
        out: the CSV to write.
        threads: number of CPU threads; None: the default of the library.
        runtime: runtime of an ONNX file; None: ONNX Runtime.
        axes: order of the axes in the files, as for `ListedExams`.

    Returns:
        The number of exams.

    Raises:
        MrkneeError: as `predict_listed`.
    """
    predictions = predict_listed(model, listing, threads=threads, runtime=runtime, axes=axes)
    write_submission(predictions, Path(out))
    return len(predictions.ids)


def predict_listed(
    model: ModelPaths,
    listing: str | Path,
    *,
    threads: int | None = None,
    runtime: RuntimeName | None = None,
    axes: str | None = None,
) -> Predictions:
    """Predicts the listed exams; arguments as of `submit`.

    Returns:
        Probabilities of the competition's three findings in its order, with ids and remarks.

    Raises:
        MrkneeError: the model has other findings than the competition, or the list or an exam can't
            be used.
    """
    predictor = load_model(model, threads=threads, runtime=runtime)
    if set(predictor.findings) != set(MRNET_FINDINGS):
        raise ModelError(
            "this model can't be used for a submission",
            code="findings",
            file=name_of(model),
            expected="the findings " + ", ".join(MRNET_FINDINGS),
            found=", ".join(predictor.findings),
            advice="use a model of these three findings",
        )
    found = predictor.predict(ListedExams(Path(listing), axes=axes))
    columns = [found.findings.index(name) for name in MRNET_FINDINGS]
    return replace(
        found, findings=Findings(MRNET_FINDINGS), probabilities=found.probabilities[:, columns]
    )


def write_submission(predictions: Predictions, out: Path) -> Path | None:
    """Writes the competition's CSV; returns the file of remarks, if there are any."""
    lines = [",".join(f"{p:.9g}" for p in row) for row in predictions.probabilities]
    write_text(out, "\n".join(lines) + "\n")
    return predictions.write_remarks(out)
