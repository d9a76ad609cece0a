"""Writing of a synthetic data set in the form of RSNA's challenge, in parallel and resumable."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np

from mrknee import __version__
from mrknee.exams import RSNA_2026_FINDINGS
from mrknee.files import (
    atomic_write,
    list_folder,
    owned_folder,
    remove_incomplete,
    write_csv,
    write_text,
)
from mrknee.progress import track
from mrknee.ranges import SEED
from mrknee.sources.phantom.cohort import check_scale, open_output
from mrknee.sources.phantom.rsna.findings import FINDINGS
from mrknee.sources.phantom.rsna.reports import rule_labels, soft_labels
from mrknee.sources.phantom.rsna.sites import Site, draw_sites
from mrknee.sources.phantom.rsna.study import Split, Study, draw_study, write_study
from mrknee.workers import cores, map_in_processes

EXPERTS = 58
"""Number of studies with experts' labels, at most a tenth of the training studies."""
SPLITS: tuple[Split, ...] = ("train", "test")
PARTIAL = ".partial-"
"""Beginning of the name of a study's folder that is not complete."""
ID = "StudyInstanceUID"
STUDY_COLUMNS = (
    *(ID, "split", "expert", "site", "language", "side", "two_knees", "presentation"),
    *("transfer_syntax", "corrupt_series"),
)
"""Columns of truth/studies.csv."""


@dataclass(frozen=True)
class _Task:
    """One study to write."""

    out: Path
    seed: int
    split: Split
    index: int
    enriched: bool
    size: int
    slice_factor: float

    def draw(self, sites: tuple[Site, ...]) -> Study:
        """Draws the study."""
        return draw_study(
            self.seed,
            self.split,
            self.index,
            sites,
            enriched=self.enriched,
            size=self.size,
            slice_factor=self.slice_factor,
        )


def write_rsna_cohort(
    out: str | Path,
    *,
    train: int,
    test: int,
    seed: int,
    size: int = 512,
    slice_factor: float = 1.0,
    workers: int | None = None,
) -> None:
    """Writes a synthetic data set in the form of RSNA's knee challenge of 2026.

    The same arguments write the same bytes, whatever the number of workers. The same call resumes
    an interrupted run: complete studies are kept, others are removed and written again. The worker
    processes are new interpreters, so a script must call this function under
    ``if __name__ == "__main__":``.

    Args:
        out: folder of the data set; new, empty, or an unfinished run with the same parameters.
        train: number of training studies.
        test: number of test studies.
        seed: seed of all random numbers.
        size: median edge of the images in pixels, 32 or more; 512 in the real set.
        slice_factor: factor on the numbers of slices, for smaller and faster sets; 0.2 to 1. Slices
            are spread over the same extent, up to 7 mm apart, so that small factors may leave more.
        workers: number of processes; by default one per core.

    Raises:
        MrkneeError: an argument is invalid, or ``out`` holds something else.
    """
    SEED.check("the seed", seed)
    out = Path(out)
    check_scale({"train": train, "test": test}, "studies", size, slice_factor)
    parameters = {
        "mrknee": __version__,
        "layout": "rsna2026",
        "seed": seed,
        "size": size,
        "slice_factor": slice_factor,
        "train": train,
        "test": test,
    }
    with owned_folder(out):
        open_output(out, parameters)
        tasks = _plan(out, train, test, seed, size, slice_factor)
        sites = sites_of(seed)
        studies = [task.draw(sites) for task in tasks]
        _write_studies(out, tasks, studies, workers or cores())
        _write_tables(out, tasks, studies, sites, seed)


def sites_of(seed: int) -> tuple[Site, ...]:
    """Returns the sites of a data set."""
    return draw_sites(np.random.default_rng(np.random.SeedSequence((seed, 2))))


def _plan(
    out: Path, train: int, test: int, seed: int, size: int, slice_factor: float
) -> list[_Task]:
    experts = set(experts_of(seed, train))
    numbers: list[tuple[Split, int, bool]] = [("train", i, i in experts) for i in range(train)]
    numbers += [("test", i, True) for i in range(test)]
    return [
        _Task(out, seed, split, index, enriched, size, slice_factor)
        for split, index, enriched in numbers
    ]


def experts_of(seed: int, train: int) -> list[int]:
    """Returns the numbers of the training studies with experts' labels."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 3)))
    count = min(EXPERTS, -(-train // 10))
    return sorted(int(index) for index in rng.choice(train, count, replace=False))


def _masks_file(out: Path, uid: str) -> Path:
    return out / "truth" / "masks" / f"{uid}.npz"


def _write_studies(
    out: Path, tasks: Sequence[_Task], studies: Sequence[Study], workers: int
) -> None:
    for folder in (out, out / "truth", out / "truth" / "masks", out / "label_tables"):
        remove_incomplete(folder)
    for split in SPLITS:
        for folder in (out / f"{split}_series").glob(f"{PARTIAL}*"):
            shutil.rmtree(folder)
    missing = [
        task for task, study in zip(tasks, studies, strict=True) if not _is_complete(out, study)
    ]
    for _ in track(
        map_in_processes(_write_study, missing, workers), len(missing), "phantom", "studies"
    ):
        pass
    # Flushing each of some hundred thousand files would take longer than rendering them. All are
    # on disk before the tables, which mark the set as complete.
    if missing and hasattr(os, "sync"):
        os.sync()


def _is_complete(out: Path, study: Study) -> bool:
    """Returns whether all files of a study exist and none is empty, as after a power failure."""
    masks, folder = _masks_file(out, study.uid), _folder(out, study)
    if not (folder.is_dir() and masks.is_file() and is_zipfile(masks)):
        return False
    for series in study.series:
        files = list_folder(folder / series.uid)
        if len(files) != series.planned.acquisition.slices:
            return False
        if not all(file.stat().st_size for file in files):
            return False
    return True


def _folder(out: Path, study: Study) -> Path:
    return out / f"{study.split}_series" / study.uid


def _write_study(task: _Task) -> str:
    """Renders one study and writes its masks, then its series; its folder appears complete."""
    study = task.draw(sites_of(task.seed))
    final = _folder(task.out, study)
    partial = final.with_name(PARTIAL + final.name)
    shutil.rmtree(final, ignore_errors=True)  # not complete
    partial.mkdir(parents=True)
    masks = write_study(study, task.size, partial)
    flat: dict[str, Any] = {
        f"{series}/{finding}": mask
        for series, one in masks.items()
        for finding, mask in one.items()
    }
    with (
        atomic_write(_masks_file(task.out, study.uid), durable=False) as temporary,
        temporary.open("wb") as file,
    ):
        np.savez_compressed(file, **flat)
    partial.replace(final)
    return study.uid


def _write_tables(
    out: Path, tasks: Sequence[_Task], studies: Sequence[Study], sites: Sequence[Site], seed: int
) -> None:
    """Writes what a competitor has, and the truth, after all studies."""
    columns = list(RSNA_2026_FINDINGS.values())
    of = {
        split: [
            (task, study)
            for task, study in zip(tasks, studies, strict=True)
            if study.split == split
        ]
        for split in SPLITS
    }
    truth = out / "truth"
    write_text(
        truth / "lesions.json",
        json.dumps(
            {
                study.uid: [
                    {"lesion": type(lesion).__name__, **asdict(lesion)} for lesion in study.lesions
                ]
                for study in studies
            },
            indent=1,
        )
        + "\n",
    )
    write_csv(
        truth / "studies.csv",
        [
            STUDY_COLUMNS,
            *(_describe(task, study, sites) for task, study in zip(tasks, studies, strict=True)),
        ],
    )
    write_csv(
        truth / "labels.csv",
        [[ID, "split", *columns]]
        + [[study.uid, study.split, *_labels(study)] for study in studies],
    )
    rng = np.random.default_rng(np.random.SeedSequence((seed, 4)))
    _write_label_tables(out / "label_tables", of["train"], rng)
    for split in SPLITS:
        write_csv(out / f"{split}_series.csv", _series_rows(study for _, study in of[split]))
    write_csv(
        out / "sample_submission.csv",
        [[ID, *columns], *([study.uid, *[0.5] * len(columns)] for _, study in of["test"])],
    )
    write_csv(out / "test.csv", [[ID], *([study.uid] for _, study in of["test"])])
    write_csv(
        out / "train.csv",
        [
            [ID, "Report", *columns],
            *(
                [study.uid, study.report, *(_labels(study) if task.enriched else [""] * 12)]
                for task, study in of["train"]
            ),
        ],
    )


def _labels(study: Study) -> list[int]:
    return [int(name in study.present) for name in FINDINGS]


def _describe(task: _Task, study: Study, sites: Sequence[Site]) -> list[object]:
    return [
        study.uid,
        study.split,
        int(task.split == "train" and task.enriched),
        study.site,
        sites[study.site].language,
        "right" if study.knee.right else "left",
        int(study.other_knee is not None),
        study.presentation,
        study.syntax,
        next((series.uid for series in study.series if series.corrupt), ""),
    ]


def _series_rows(studies: Iterable[Study]) -> Iterable[Sequence[object]]:
    yield [ID, "SeriesInstanceUID", "Fluid_Sensitive", "Fat_Suppression", "Anatomical_Plane"]
    for study in studies:
        for series in study.series:
            flags = int(series.fluid_sensitive), int(series.fat_suppression)
            yield [study.uid, series.uid, *flags, series.planned.plane.capitalize()]


def _write_label_tables(
    folder: Path, studies: Sequence[tuple[_Task, Study]], rng: np.random.Generator
) -> None:
    """Writes two label tables as competitors share them, read out of the reports.

    The first has probabilities; the second labels by rules, other names of the columns, its rows in
    another order, and the experts' labels where they exist.
    """
    first: list[list[object]] = [[ID, *RSNA_2026_FINDINGS.values()]]
    second: list[list[object]] = []
    for task, study in studies:
        first.append([study.uid, *soft_labels(rng, study.statements).values()])
        ruled = rule_labels(rng, study.statements).values()
        values = ["" if value is None else int(value) for value in ruled]
        second.append([study.uid, *(_labels(study) if task.enriched else values)])
    order = rng.permutation(len(second))
    write_csv(folder / "language_model.csv", first)
    write_csv(folder / "rules.csv", [[ID, *FINDINGS], *(second[index] for index in order)])
