"""The MRNet competition's interface: paths in, three columns out.

The contract (the competition's evaluation script and its entries): a headerless list of `.npy`
paths, three lines an exam, `.../{plane}/{id}.npy`; a headerless CSV of abnormal, acl, meniscus, a
line an exam in the same order, without ids. The scorer checks the number of lines only, so a
wrong column would pass in silence: a model with other findings is refused here.
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
from mrknee.files import whole_file
from mrknee.inference.model import ModelPaths, load_model, name_of
from mrknee.inference.runtimes import RuntimeName
from mrknee.scoring.predictions import Predictions
from mrknee.untrusted import read_text

_MAX_BYTES = 16_000_000  # some 100,000 exams


class ListedExams:
    """The exams of a list of paths, in the order in which they first come.

    Args:
        listing: the file; one path a line, relative to the current folder, of the form
            `.../{plane}/{id}.npy`, each exam's three planes in any order.
        axes: the order of the files' axes, such as `rows,cols,slices`; None expects
            `slices,rows,cols`. Files whose shapes say otherwise are refused, unless
            `slices,rows,cols` was given.

    Raises:
        MrkneeError: the file isn't there, a path has another form, a plane comes twice or is
            missing, or the stacks' axes seem to be in another order.
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
                    "a path has another form",
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
                    "an exam's planes are not all listed",
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
        if given != AXES:  # else insisted on
            shapes: list[tuple[str, dict[str, Shape]]] = []
            for exam_id, planes in self._exams:
                shapes.append((exam_id, {}))
                for plane, path in planes.items():
                    with suppress(MrkneeError):  # said when the exam is read
                        shape = shape_in_order(read_shape(path, exam_id), self._axes)
                        shapes[-1][1][plane] = shape
            refuse_exams_with_other_axes(shapes, file=listing, given=given)

    def __len__(self) -> int:
        return len(self._exams)

    def __getitem__(self, index: int) -> Exam:
        exam_id, planes = self._exams[index]
        return read_exam(planes, exam_id, axes=self._axes)


def _as_stored(path: Path) -> Path:
    """The file that a path means, however accents are stored in its name; see `same_text`."""
    if path.name.isascii() or path.exists() or not path.parent.is_dir():
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
    """Reads the listed exams and writes the competition's CSV, whole or not at all.

    Remarks on odd exams are written beside it, as `mrknee predict` writes them.

    Args:
        model: a run folder, or an ONNX file that `mrknee export` wrote; or an ensemble's members.
        listing: the list of paths.
        out: the CSV to write.
        threads: processor threads to compute with; None leaves it to the library.
        runtime: what computes an ONNX file; None takes ONNX Runtime.
        axes: the order of the files' axes, as for `ListedExams`.

    Returns:
        How many exams were read.

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
    """Reads the listed exams; arguments as `submit`'s.

    Returns:
        The competition's three findings in its order, with ids and remarks.

    Raises:
        MrkneeError: the model's findings are not the competition's three, or the list or an exam
            can't be used.
    """
    predictor = load_model(model, threads=threads, runtime=runtime)
    if set(predictor.findings) != set(MRNET_FINDINGS):
        raise ModelError(
            "this model can't be submitted",
            code="findings",
            file=name_of(model),
            expected="the findings " + ", ".join(MRNET_FINDINGS),
            found=", ".join(predictor.findings),
            advice="submit a model trained on all three",
        )
    found = predictor.predict(ListedExams(Path(listing), axes=axes))
    columns = [found.findings.index(name) for name in MRNET_FINDINGS]
    return replace(
        found, findings=Findings(MRNET_FINDINGS), probabilities=found.probabilities[:, columns]
    )


def write_submission(predictions: Predictions, out: Path) -> Path | None:
    """Writes the competition's CSV; remarks go beside it, whose file is returned if there are."""
    lines = [",".join(f"{p:.9g}" for p in row) for row in predictions.probabilities]
    with whole_file(out) as beside:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return predictions.write_remarks(out)
