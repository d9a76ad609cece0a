"""Every kind of problem there is: its code, how bad it is, what it means, what to do."""

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
        severity: error (a run fails on it, or its numbers could not be trusted) or warning (a run
            can live with it, but its reader must know).
        means: what is wrong.
        advice: what to do about it.
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
        "a split's series' folders are empty",
        "put the stacks there, or remove the folder",
    ),
    "missing-plane": Kind(
        "error",
        "an exam has no file for one series",
        "add the file, or allow exams with fewer series (--allow-missing-plane)",
    ),
    "extra-file": Kind(
        "warning",
        "a file belongs to nothing and is never read",
        "correct its name or its folder, or take it away",
    ),
    "series-differ": Kind(
        "error",
        "a split's folder declares other series than the first split's, in a series.csv of its own",
        "put one series.csv beside the splits, and remove those in their folders",
    ),
    "id-twice": Kind(
        "error",
        "two splits have an exam of the same id",
        "take the exam out of one of them, or give it an id of its own",
    ),
    "stack-twice": Kind(
        "error",
        "two files of a series are one exam's: their names differ in the case of the ending, or in "
        "how an accented letter is stored; nothing else of the split was looked at",
        "remove or rename one of them",
    ),
    "exam-id": Kind(
        "error",
        "an exam's id can't be used, so none of its split's exams can: it isn't UTF-8, holds a "
        "character that isn't printed, has a space at an end, or begins like a formula",
        "rename the exam's files, and the exam in label files",
    ),
    "group-across": Kind(
        "error",
        "exams of one group of `groups.csv` are in two splits: what was learned of one would be "
        "scored in another",
        "move the group's exams into one of the splits",
    ),
    "group-unknown": Kind(
        "error",
        "`groups.csv` names an exam that is in no split, so its group is not complete",
        "ids must be written as the files are named: 0000 is not 0; take out lines of exams that "
        "are gone",
    ),
    # stacks
    "not-npy": Kind(
        "error",
        "a file is no `.npy` file, or its header is broken",
        "copy or download the file again, or write it with np.save",
    ),
    "truncated": Kind(
        "error",
        "a file is shorter than its header says",
        "copy or download the file again",
    ),
    "pickled": Kind(
        "error",
        "a file holds pickled Python objects, which could run code; it is never opened",
        "save it again as a plain array: np.save(path, array.astype('uint8'))",
    ),
    "wrong-type": Kind(
        "error",
        "the values are no grey values: complex, text, dates, truth values",
        "save the stack as uint8",
    ),
    "wrong-rank": Kind(
        "error",
        "the array is not (slices, rows, cols), or one of them is zero",
        "save the stack as (slices, rows, cols), without a channel axis",
    ),
    "not-finite": Kind(
        "error",
        "the stack holds NaN or infinite values",
        "make the stack again from its source, and look for a division by zero",
    ),
    "unreadable": Kind(
        "error",
        "the stack can't be read for another reason, which is told",
        "make the stack again from its source",
    ),
    "all-zero": Kind(
        "error",
        "every pixel of the stack is 0",
        "make the stack again from its source, or take the exam out",
    ),
    "constant": Kind(
        "error",
        "every pixel of the stack has the same value, which is not 0",
        "make the stack again from its source, or take the exam out",
    ),
    "not-bytes": Kind(
        "warning",
        "the values are not uint8: unless they are whole and from 0 to 255, the stack is scaled by "
        "its own percentiles each time it is read, which is slow, and loses what the exams' "
        "brightness have in common",
        "save the stack as uint8, with one rule for all exams",
    ),
    "outliers": Kind(
        "warning",
        "a few values lie so far from all others that they are clipped "
        "(docs/reference/plausibility.md)",
        "look at the stack: hot pixels, metal, or values that stand for padding?",
    ),
    "other-axes": Kind(
        "error",
        "the shape says that the axes are in another order than (slices, rows, cols)",
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
        "make the stack again from its source",
    ),
    "low-contrast": Kind(
        "warning",
        "98 % of the pixels lie within fewer than 16 of 256 grey values, with or without the "
        "darkest and the brightest value; or 9 in 10 pixels have one value",
        "look at the stack: one bright pixel, padding, or a window that is far too wide?",
    ),
    "odd-size": Kind(
        "warning",
        "the size in plane is unlike that of 9 in 10 stacks or more of this series",
        "look at the stack: is it cropped, not resampled, or are its axes in another order?",
    ),
    "odd-slices": Kind(
        "warning",
        "the stack has less than a third or more than three times the series' median of slices",
        "look at the stack: a localiser, a 3D series, or axes in another order?",
    ),
    "empty-slices": Kind(
        "warning",
        "slices of one value; nearly empty ones between others; or a quarter of the stack nearly "
        "empty (nearly empty: a tenth or less of the contrast of the stack's richest slice)",
        "look at the stack; leave out slices that pad it, make it again where some are missing",
    ),
    "other-plane": Kind(
        "warning",
        "the stack looks like another plane than its folder says",
        "look at the stack, and move it with the exam's other one if they were swapped",
    ),
    # copies
    "copy-planes": Kind(
        "error",
        "two series of an exam are the same stack, byte for byte",
        "replace the wrong one",
    ),
    "copy-across": Kind(
        "error",
        "a stack is in two splits, byte for byte: what was learned by heart would be scored",
        "take the exam out of one of the splits",
    ),
    "copy": Kind(
        "warning",
        "a stack is in two exams of a split, byte for byte",
        "take one of the exams out: it counts twice, and the inner split may part the two",
    ),
    "alike-across": Kind(
        "warning",
        "exams of two splits are as alike as altered copies of one exam",
        "look at both; if it is one knee, take it out of one of the splits",
    ),
    "alike": Kind(
        "warning",
        "two exams of a split are as alike as altered copies of one exam",
        "look at both; if it is one knee, take one of the exams out",
    ),
    # labels
    "no-labels": Kind(
        "error",
        "`train` has no label file",
        "write one file a finding, train-<finding>.csv: no header, a line an exam: 0000,1",
    ),
    "no-valid-labels": Kind(
        "warning",
        "`valid` has no label file: nothing can be scored",
        "write one file a finding, valid-<finding>.csv: no header, a line an exam: 0000,1",
    ),
    "label-name": Kind(
        "error",
        "a label file's finding has a name that can't be used",
        "rename the file: lower-case letters, digits, _ and -",
    ),
    "declaration": Kind(
        "error",
        "`findings.csv` or `groups.csv` is no table with the columns that it should have, or holds "
        "what can't be used; it was passed over here, and a run fails on it",
        "correct the file; docs/reference/data-sets.md describes it",
    ),
    "undeclared-finding": Kind(
        "error",
        "a label file is of a finding that `findings.csv` does not declare",
        "rename the file, or add the finding to findings.csv",
    ),
    "unlabelled-finding": Kind(
        "warning",
        "`findings.csv` declares a finding that `train` has no label file of: it can't be learned",
        "add the file, or take the finding out of findings.csv",
    ),
    "label-format": Kind(
        "error",
        "a label file is not text, or a line is not `id,label`",
        "write it as UTF-8: no header, a line an exam: 0000,1",
    ),
    "label-value": Kind(
        "error",
        "a label is something else than a number from 0 to 1 or nothing",
        "write 1 for present, 0 for absent, nothing for not known; no header line",
    ),
    "soft-label": Kind(
        "warning",
        "labels lie between 0 and 1: a run takes them only where its recipe allows soft labels; "
        "here they count as present from 0.5 on",
        "set soft_labels in the recipe; or write 0 and 1 if none was meant to be soft",
    ),
    "label-twice": Kind("error", "an exam has two lines in a label file", "delete one of them"),
    "label-unknown": Kind(
        "error",
        "a label file names an exam that is not there",
        "ids must be written as the files are named: 0000 is not 0",
    ),
    "label-missing": Kind(
        "warning",
        "exams have no line in a label file, and count as not known",
        "add their lines; where the label is not known, with nothing behind the comma",
    ),
    "not-learnable": Kind(
        "error",
        "a finding of `train` is all present or all absent",
        "leave it out with --findings",
    ),
    "no-auc": Kind(
        "warning",
        "a finding of another split is all present or all absent, and has no AUC there",
        "add exams of the other kind, or read nothing into the finding",
    ),
    "findings-differ": Kind(
        "error",
        "`train` and `valid` have labels of different findings: a run would not score valid",
        "add the file, or train on the findings that both have, with --findings",
    ),
    "contradiction": Kind(
        "warning",
        "a tear is present though the exam is not abnormal; MRNet's `abnormal` includes both tears",
        "look at the exam's report, and correct one of the labels",
    ),
    "prevalence": Kind(
        "warning",
        "a finding is more frequent in `train` than in `valid`, or less, beyond chance",
        "split anew at random; or, if it can't be, read calibration, PPV and NPV with care",
    ),
}
"""Code -> what it is; `docs/reference/checks.md` has the same table."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        code: its kind, a key of `KINDS`.
        text: what is wrong here: what was expected, what was found.
        file: where, seen from the data set's folder; `*` stands for all series.
        exam: the exam's id, if it concerns one.
        advice: what to do about it; the kind's, where nothing better is known.
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
        """How bad it is."""
        return KINDS[self.code].severity

    def within(self, root: Path) -> Problem:
        """The same with the file as it is seen from the data set's folder."""
        path = Path(self.file)
        seen = path.relative_to(root).as_posix() if path.is_relative_to(root) else self.file
        return replace(self, file=seen)


def from_error(error: MrkneeError, codes: Collection[str], otherwise: str, file: Path) -> Problem:
    """A reader's error as a problem.

    Args:
        error: what the reader raised.
        codes: the codes of errors that are the codes of problems too.
        otherwise: the problem's code where the error has any other code.
        file: the file that was read, for errors that name none.
    """
    parts = [("expected", error.expected), ("found", error.found)]
    text = "; ".join([error.what, *(f"{name} {value}" for name, value in parts if value)])
    code = error.code if error.code in codes else otherwise
    return Problem(code, text, error.file or str(file), error.exam, error.advice or "")
