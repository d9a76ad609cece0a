"""Writing of a synthetic data set in MRNet's layout, in parallel and resumable."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mrknee import __version__
from mrknee.errors import MrkneeError, OutputError, SettingsError
from mrknee.exams import MRNET_SERIES, SeriesList, write_labels, write_series, write_stack
from mrknee.exams.splits import largest_remainder
from mrknee.exams.stackfile import is_whole_stack
from mrknee.files import list_folder, owned_folder, remove_incomplete, sync, write_text
from mrknee.progress import track
from mrknee.ranges import SEED
from mrknee.sources.phantom.exam import FINDINGS, draw_exam_lesions, render_exam
from mrknee.sources.phantom.lesions import Truth
from mrknee.untrusted import read_json, require_regular_file
from mrknee.workers import cores, map_in_processes

KINDS = (
    Truth(abnormal=False, acl=False, meniscus=False),
    Truth(abnormal=True, acl=False, meniscus=False),
    Truth(abnormal=True, acl=False, meniscus=True),
    Truth(abnormal=True, acl=True, meniscus=False),
    Truth(abnormal=True, acl=True, meniscus=True),
)
# Number of MRNet's exams per kind, in the order of KINDS, counted in its label files
# (train 1130 exams, valid 120).
FREQUENCIES = {"train": (217, 433, 272, 83, 125), "valid": (25, 20, 21, 23, 31)}
PARAMETERS = "phantom.json"
_MAX_PARAMETER_BYTES = 64_000_000  # some 100,000 exams


@dataclass(frozen=True)
class _Task:
    """One exam to write: location, seed, truth and parameters."""

    out: Path
    split: str
    exam_id: str
    seed: tuple[int, int]
    truth: Truth
    size: int
    slice_factor: float
    fov_factor: float
    series: SeriesList

    def files(self) -> list[Path]:
        """Returns the paths of all files of the exam, masks before stacks."""
        file, names = f"{self.exam_id}.npy", self.series.names
        stacks = [self.out / self.split / name / file for name in names]
        masks = [
            self.out / "lesions" / self.split / finding / name / file
            for finding in FINDINGS
            if getattr(self.truth, finding)
            for name in names
        ]
        return masks + stacks


def draw_truths(split: str, count: int, seed: int) -> list[Truth]:
    """Draws the truth of each exam of a split: MRNet's joint frequencies in random order.

    Args:
        split: "train" or "valid", whose frequencies differ.
        count: number of exams; counts per kind are rounded by largest remainder.
        seed: seed of the order.
    """
    share = np.array(FREQUENCIES[split], float)
    numbers = largest_remainder(share / share.sum() * count, count)
    kinds = np.repeat(np.arange(len(KINDS)), numbers)
    stream = 0 if split == "train" else 1
    np.random.default_rng(np.random.SeedSequence((seed, stream, 2**31))).shuffle(kinds)
    return [KINDS[kind] for kind in kinds]


def write_cohort(
    out: str | Path,
    *,
    train: int,
    valid: int,
    seed: int,
    size: int = 256,
    slice_factor: float = 1.0,
    fov_factor: float = 1.0,
    series: SeriesList = MRNET_SERIES,
    workers: int | None = None,
) -> None:
    """Writes a synthetic data set in MRNet's layout, with lesion masks and its parameters.

    The same arguments write the same bytes, whatever the number of workers. The same call resumes
    an interrupted run: complete exams are kept, half-written files are removed. The worker
    processes are new interpreters, so a script must call this function under
    ``if __name__ == "__main__":``.

    Args:
        out: folder of the data set; new, empty, or an unfinished run with the same parameters.
        train: number of training exams, ids from 0000.
        valid: number of validation exams, ids continuing after train's.
        seed: seed of all random numbers.
        size: edge of the images in pixels, 32 or more.
        slice_factor: factor on MRNet's slice counts, for smaller and faster sets; 0.2 to 1.
        fov_factor: factor on MRNet's field of view; 0.65, about the joint only, to 1.
        series: series of each exam; if not MRNet's, they are declared in ``series.csv``.
        workers: number of processes; by default one per core.

    Raises:
        MrkneeError: an argument is invalid, or ``out`` holds something else.
    """
    SEED.check("the seed", seed)
    out = Path(out)
    check_scale({"train": train, "valid": valid}, "exams", size, slice_factor)
    _check_field(fov_factor)
    with owned_folder(out):
        tasks = _plan(out, train, valid, seed, size, slice_factor, fov_factor, series)
        open_output(out, _parameters(tasks, train, valid, seed))
        if series != MRNET_SERIES:
            write_series(out, series)
        _write_exams(out, tasks, workers or cores())


def _write_exams(out: Path, tasks: Sequence[_Task], workers: int) -> None:
    for folder in (out, *{file.parent for task in tasks for file in task.files()}):
        remove_incomplete(folder)
    missing = [task for task in tasks if not all(map(is_whole_stack, task.files()))]
    written = map_in_processes(_write_exam, missing, workers)
    for _ in track(written, len(missing), "phantom", "exams"):
        pass
    # labels mark the set as complete, so they are written after everything else is on disk
    sync(file for task in missing for file in task.files())
    for split in FREQUENCIES:
        mine = [task for task in tasks if task.split == split]
        for finding in FINDINGS:
            labels = {task.exam_id: float(getattr(task.truth, finding)) for task in mine}
            if labels:
                write_labels(out, split, finding, labels)


def check_scale(counts: Mapping[str, int], what: str, size: int, slice_factor: float) -> None:
    """Checks what all synthetic data sets have in common.

    Args:
        counts: split -> number of its exams.
        what: what exams are called: exams or studies.
        size: edge of the images in pixels.
        slice_factor: factor on the slice counts.

    Raises:
        SettingsError: a number is negative, all are 0, or size or factor is out of range.
    """
    if min(counts.values()) < 0 or sum(counts.values()) < 1:
        raise SettingsError(
            f"invalid number of {what}",
            code="range",
            expected=f"{' and '.join(counts)} not negative, at least one in total",
            found=", ".join(f"{split} {count}" for split, count in counts.items()),
        )
    if size < 32:
        raise SettingsError(
            "the images are too small", code="range", expected="32 px or more", found=f"{size}"
        )
    if not 0.2 <= slice_factor <= 1.0:
        raise SettingsError(
            "invalid factor on the slice counts",
            code="range",
            expected="0.2 to 1",
            found=f"{slice_factor}",
        )


def _check_field(fov_factor: float) -> None:
    if not 0.65 <= fov_factor <= 1.0:
        raise SettingsError(
            "invalid factor on the field of view",
            code="range",
            expected="0.65 to 1",
            found=f"{fov_factor}",
        )


def _plan(
    out: Path,
    train: int,
    valid: int,
    seed: int,
    size: int,
    slice_factor: float,
    fov_factor: float,
    series: SeriesList,
) -> list[_Task]:
    truths = [("train", truth) for truth in draw_truths("train", train, seed)]
    truths += [("valid", truth) for truth in draw_truths("valid", valid, seed)]
    return [
        _Task(
            out, split, f"{index:04d}", (seed, index), truth, size, slice_factor, fov_factor, series
        )
        for index, (split, truth) in enumerate(truths)
    ]


def _parameters(tasks: Sequence[_Task], train: int, valid: int, seed: int) -> dict[str, object]:
    """Returns the content of phantom.json: the arguments, and each exam's truth and lesions."""
    exams = {
        task.exam_id: {
            "split": task.split,
            **asdict(task.truth),
            "lesions": [
                {"lesion": type(lesion).__name__, **asdict(lesion)}
                for lesion in draw_exam_lesions(task.seed, task.truth)
            ],
        }
        for task in tasks
    }
    one = tasks[0]
    return {
        "mrknee": __version__,
        "seed": seed,
        "size": one.size,
        "slice_factor": one.slice_factor,
        **({} if one.fov_factor == 1 else {"fov_factor": one.fov_factor}),
        **({} if one.series == MRNET_SERIES else {"series": one.series.to_dicts()}),
        "train": train,
        "valid": valid,
        "exams": exams,
    }


def open_output(out: Path, parameters: Mapping[str, object]) -> None:
    """Starts or resumes a data set in ``out``.

    Raises:
        OutputError: ``out`` holds something other than a data set with these parameters.
    """
    text = json.dumps(parameters, indent=1) + "\n"
    file = out / PARAMETERS
    if out.exists() and not out.is_dir():
        raise OutputError(
            "not a folder", code="not-a-folder", file=out, expected="a new folder", found="a file"
        )
    if file.exists():
        require_regular_file(file, "set's parameters")
        if file.stat().st_size != len(text) or file.read_bytes() != text.encode():
            raise OutputError(
                "the folder holds a phantom data set with other parameters",
                code="other-phantom",
                file=file,
                expected=_summary(parameters),
                found=_summary(_read(file)) or "no parameters",
                advice="choose another folder, or remove this one",
            )
    elif not all(path.name.startswith(f".{PARAMETERS}.") for path in list_folder(out)):
        raise OutputError(
            "the folder is not empty",
            code="not-empty",
            file=out,
            expected=f"a new or empty folder, or one with {PARAMETERS}",
            found=", ".join(sorted(path.name for path in list_folder(out))[:3]),
            advice="choose another folder",
        )
    else:
        write_text(file, text)


def _read(file: Path) -> Mapping[str, object]:
    try:
        content = read_json(file, "set's parameters", at_most=_MAX_PARAMETER_BYTES)
    except MrkneeError:
        return {}
    return content if isinstance(content, dict) else {}


def _summary(parameters: Mapping[str, object]) -> str:
    shown = {key: value for key, value in parameters.items() if key != "exams"}
    series = shown.get("series", MRNET_SERIES.to_dicts())
    if isinstance(series, list):
        names = [str(one.get("name")) for one in series if isinstance(one, dict)]
        shown["series"] = " ".join(names)
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def _write_exam(task: _Task) -> str:
    """Renders one exam, then writes its files: masks first, stacks last."""
    exam = render_exam(
        task.seed,
        task.truth,
        size=task.size,
        slice_factor=task.slice_factor,
        fov_factor=task.fov_factor,
        series=task.series,
    )
    for finding, masks in exam.masks.items():
        folder = task.out / "lesions" / task.split / finding
        for name, mask in masks.items():
            write_stack(folder, name, task.exam_id, mask, among=task.series, durable=False)
    folder = task.out / task.split
    for name, stack in exam.stacks.items():
        write_stack(folder, name, task.exam_id, stack, among=task.series, durable=False)
    return task.exam_id
