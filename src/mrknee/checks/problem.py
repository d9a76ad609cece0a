"""All kinds of problems that a check reports: code, severity, meaning and advice."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mrknee.errors import MrkneeError

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Kind:
    """One kind of problem.

    Attributes:
        severity: error (training fails, or its results can't be trusted) or warning (training is
            possible, but the problem must be considered in its results).
        means: description of the problem.
        advice: how to correct the problem.
    """

    severity: Severity
    means: str
    advice: str


KINDS: Mapping[str, Kind] = {
    # layout
    "no-train": Kind(
        "error",
        "there is no split `train`: nothing can be trained",
        "name the folder of the training exams train/",
    ),
    "no-valid": Kind(
        "warning",
        "there is no split `valid`: a run is scored on the exams that selected its epoch",
        "set exams aside as valid/, by patient where patients are known",
    ),
    "no-exams": Kind(
        "error",
        "the folders of series in a split are empty",
        "add the stacks, or remove the folder",
    ),
    "missing-plane": Kind(
        "error",
        "an exam has no file for one series",
        "add the file, or allow exams with fewer series (--allow-missing-plane)",
    ),
    "extra-file": Kind(
        "warning",
        "a file is not recognised and is never read",
        "correct its name or its folder, or remove it",
    ),
    "series-differ": Kind(
        "error",
        "a split declares other series than the first split, in its own series.csv",
        "use one series.csv in the data set's folder, and remove those of the splits",
    ),
    "id-twice": Kind(
        "error",
        "two splits have an exam with the same id",
        "remove the exam from one of them, or give it another id",
    ),
    "stack-twice": Kind(
        "error",
        "two files of a series belong to one exam: their names differ in the case of the suffix, "
        "or in the Unicode form of an accented letter; the rest of the split was not checked",
        "remove or rename one of them",
    ),
    "exam-id": Kind(
        "error",
        "an exam's id is invalid, so its split can't be used: the id isn't UTF-8, contains a "
        "non-printable character, has a space at an end, or begins like a formula",
        "rename the exam's files, and change the id in the label files",
    ),
    "group-across": Kind(
        "warning",
        "exams of one group of `groups.csv` are in two splits: a model is scored on patients, "
        "scanners or reports that it was trained on, and looks better than on others",
        "move the group's exams into one of the splits, always if it is one patient; or score with "
        "grouped folds (`mrknee train --folds`)",
    ),
    "group-unknown": Kind(
        "error",
        "`groups.csv` names an exam that is in no split, so its group is incomplete",
        "write ids exactly as in the file names: 0000 is not 0; remove the lines of exams that no "
        "longer exist",
    ),
    "mixed-sides": Kind(
        "warning",
        "`sides.csv` says that some exams are mirrored, and yet not all knees look like left ones",
        "import all exams with the same option --sides",
    ),
    # stacks
    "not-npy": Kind(
        "error",
        "a file is not a `.npy` file, or its header is broken",
        "copy or download the file again, or write it with np.save",
    ),
    "truncated": Kind(
        "error",
        "a file is shorter than its header states",
        "copy or download the file again",
    ),
    "pickled": Kind(
        "error",
        "a file contains pickled Python objects, which could run code; it is never opened",
        "save it again as a numeric array: np.save(path, array.astype('uint8'))",
    ),
    "wrong-type": Kind(
        "error",
        "the values are not grey values: complex, text, dates, truth values",
        "save the stack as uint8",
    ),
    "wrong-rank": Kind(
        "error",
        "the array is not (slices, rows, cols), or an axis is empty",
        "save the stack as (slices, rows, cols), without a channel axis",
    ),
    "not-finite": Kind(
        "error",
        "the stack contains NaN or infinite values",
        "create the stack again from its source, and look for a division by zero",
    ),
    "unreadable": Kind(
        "error",
        "the stack can't be read for another reason, given in the text",
        "create the stack again from its source",
    ),
    "all-zero": Kind(
        "error",
        "every pixel of the stack is 0",
        "create the stack again from its source, or remove the exam",
    ),
    "constant": Kind(
        "error",
        "every pixel of the stack has the same value, which is not 0",
        "create the stack again from its source, or remove the exam",
    ),
    "not-bytes": Kind(
        "warning",
        "the values are not uint8: unless they are integral and from 0 to 255, the stack is scaled "
        "by its own percentiles each time it is read, which is slow, and discards differences in "
        "brightness between exams",
        "save the stack as uint8, with the same rule for all exams",
    ),
    "outliers": Kind(
        "warning",
        "a few values lie so far from all others that they are clipped "
        "(docs/reference/plausibility.md)",
        "look at the stack: outlier pixels, metal, or values that stand for padding?",
    ),
    "other-axes": Kind(
        "error",
        "the shape indicates that the axes are in an order other than (slices, rows, cols)",
        "save the stacks in that order, or read them with --axes; "
        "docs/reference/plausibility.md has the rules",
    ),
    "one-slice": Kind(
        "warning",
        "the stack has one slice",
        "look at the stack: was a volume saved slice by slice?",
    ),
    "equal-slices": Kind(
        "warning",
        "all slices of the stack are the same",
        "create the stack again from its source",
    ),
    "low-contrast": Kind(
        "warning",
        "98 % of the pixels lie within fewer than 16 of 256 grey values, with or without the "
        "darkest and the brightest value; or 9 in 10 pixels have one value",
        "look at the stack: is there one bright pixel, padding, or a far too wide window?",
    ),
    "odd-size": Kind(
        "warning",
        "the size in plane differs from that of at least 9 in 10 stacks of this series",
        "look at the stack: is it cropped, not resampled, or are its axes in another order?",
    ),
    "odd-slices": Kind(
        "warning",
        "the stack has less than a third or more than three times the series' median of slices",
        "look at the stack: a localiser, a 3D series, or axes in another order?",
    ),
    "empty-slices": Kind(
        "warning",
        "single-valued slices; nearly empty slices between others; or more than a quarter of the "
        "stack nearly empty (a tenth or less of the highest contrast in the stack)",
        "look at the stack; remove padding slices, create it again if slices are missing",
    ),
    "other-plane": Kind(
        "warning",
        "the stack looks like a plane other than that of its folder",
        "look at the stack, and move it; if two stacks of the exam were swapped, move both",
    ),
    # copies
    "copy-planes": Kind(
        "error",
        "two series of an exam are the same stack, byte for byte",
        "replace the incorrect stack",
    ),
    "copy-across": Kind(
        "error",
        "a stack is in two splits, byte for byte: a model would be scored on what it memorised",
        "remove the exam from one of the splits",
    ),
    "copy": Kind(
        "warning",
        "a stack is in two exams of a split, byte for byte",
        "remove one of the exams: it counts twice, and the inner split may separate the two",
    ),
    "alike-across": Kind(
        "warning",
        "exams of two splits are as similar as altered copies of one exam",
        "look at both; if they are the same knee, remove it from one of the splits",
    ),
    "alike": Kind(
        "warning",
        "two exams of a split are as similar as altered copies of one exam",
        "look at both; if they are the same knee, remove one of the exams",
    ),
    # labels
    "no-labels": Kind(
        "error",
        "`train` has no label file",
        "write one file per finding, train-<finding>.csv: no header, one line per exam: 0000,1",
    ),
    "no-valid-labels": Kind(
        "warning",
        "`valid` has no label file: nothing can be scored",
        "write one file per finding, valid-<finding>.csv: no header, one line per exam: 0000,1",
    ),
    "label-name": Kind(
        "error",
        "the finding of a label file has an invalid name",
        "rename the file; use lower-case letters, digits, _ and -",
    ),
    "declaration": Kind(
        "error",
        "`findings.csv`, `groups.csv` or `sides.csv` doesn't have the required columns, or has "
        "invalid values; it was ignored here, and training fails on it",
        "correct the file; docs/reference/data-sets.md describes it",
    ),
    "undeclared-finding": Kind(
        "error",
        "a label file belongs to a finding that `findings.csv` doesn't declare",
        "rename the file, or add the finding to findings.csv",
    ),
    "unlabelled-finding": Kind(
        "warning",
        "`findings.csv` declares a finding without a label file in `train`: it can't be learned",
        "add the file, or remove the finding from findings.csv",
    ),
    "label-format": Kind(
        "error",
        "a label file is not text, or a line is not `id,label`",
        "write it as UTF-8: no header, one line per exam: 0000,1",
    ),
    "label-value": Kind(
        "error",
        "a label is neither a number from 0 to 1 nor empty",
        "write 1 for present, 0 for absent, nothing for unknown; no header line",
    ),
    "soft-label": Kind(
        "warning",
        "labels lie between 0 and 1: training accepts them only if its recipe allows soft labels; "
        "here they count as present from 0.5 on",
        "set soft_labels in the recipe; or write 0 and 1 if no label is meant to be soft",
    ),
    "label-twice": Kind("error", "an exam has two lines in a label file", "delete one of them"),
    "label-unknown": Kind(
        "error",
        "a label file names an exam that doesn't exist",
        "write ids exactly as in the file names: 0000 is not 0",
    ),
    "label-missing": Kind(
        "warning",
        "exams have no line in a label file, and count as unknown",
        "add their lines; if the label is unknown, with nothing after the comma",
    ),
    "not-learnable": Kind(
        "error",
        "a finding of `train` is all present or all absent",
        "exclude it with --findings",
    ),
    "no-auc": Kind(
        "warning",
        "a finding of another split is all present or all absent, and has no AUC there",
        "add exams of the other class, or don't draw conclusions about the finding",
    ),
    "findings-differ": Kind(
        "error",
        "`train` and `valid` have labels of different findings: training would not score valid",
        "add the file, or train on the common findings with --findings",
    ),
    "contradiction": Kind(
        "warning",
        "a tear is present though the exam is not abnormal; MRNet's `abnormal` includes both tears",
        "read the exam's report, and correct one of the labels",
    ),
    "prevalence": Kind(
        "warning",
        "the prevalence of a finding differs between `train` and `valid` beyond chance",
        "split again at random; otherwise interpret calibration, PPV and NPV with care",
    ),
}
"""Code -> kind; `docs/reference/checks.md` has the same table."""


@dataclass(frozen=True)
class Problem:
    """One problem of a data set.

    Attributes:
        code: the kind of problem, a key of `KINDS`.
        text: details: what was expected, what was found.
        file: path relative to the data set's folder; `*` stands for all series.
        exam: the exam's id, if the problem concerns one exam.
        advice: how to correct the problem; by default the advice of its kind.
    """

    code: str
    text: str
    file: str
    exam: str | None = None
    advice: str = ""

    def __post_init__(self) -> None:
        if not self.advice:
            object.__setattr__(self, "advice", KINDS[self.code].advice)

    @property
    def severity(self) -> Severity:
        """The severity of the kind of problem."""
        return KINDS[self.code].severity

    def within(self, root: Path) -> Problem:
        """Returns the problem with its file relative to the data set's folder."""
        path = Path(self.file)
        seen = path.relative_to(root).as_posix() if path.is_relative_to(root) else self.file
        return replace(self, file=seen)


def from_error(error: MrkneeError, codes: Collection[str], otherwise: str, file: Path) -> Problem:
    """Converts an error of a reader to a problem.

    Args:
        error: the error.
        codes: codes of errors that are also codes of problems.
        otherwise: code of the problem if the error has any other code.
        file: the file that was read, for errors without a file.
    """
    parts = [("expected", error.expected), ("found", error.found)]
    text = "; ".join([error.what, *(f"{name} {value}" for name, value in parts if value)])
    code = error.code if error.code in codes else otherwise
    return Problem(code, text, error.file or str(file), error.exam, error.advice or "")
