"""Recovery of an interrupted run: choice of the saved state, and checks for broken files.

A power loss, or a kill at the wrong moment, may leave files empty, filled with zeros or cut. Files
that can be written again are; a state is used only if the weights that it depends on are intact.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrknee.errors import ModelError, MrkneeError
from mrknee.metrics.predictions import Predictions
from mrknee.metrics.scorecard import Scorecard
from mrknee.models.checkpoint import finish_replacing, load_checkpoint
from mrknee.run_folder import RunFolder, metrics_text
from mrknee.training.recipe import Recipe, load_recipe
from mrknee.training.record import best_epoch
from mrknee.training.resumption import Done, read_state
from mrknee.untrusted import read_bytes, read_json

MAY_CHANGE = ("epochs", "workers", "save_every", "loggers", "slices_at_once")
"""Settings that a resumed run may change, because they don't affect what an epoch computes
(`slices_at_once` affects its rounding only, and with `network.drop_path` which blocks are
skipped)."""

_MAX_TEXT_BYTES = 32_000_000  # limit of text files in a run folder; split.csv: a line per exam


@dataclass(frozen=True)
class Start:
    """The point from which a run starts or resumes.

    Attributes:
        done: progress of the run; none if it starts from the beginning.
        state: file of the saved state; None if the run starts from the beginning.
        notes: what was lost and the consequences, one sentence each.
    """

    done: Done
    state: Path | None = None
    notes: tuple[str, ...] = ()


def find_start(out: Path, recipe: Recipe, split: str, run: str) -> Start:
    """Chooses the state to resume from.

    This is the latest readable state whose weights are present: those of the best epoch, if that
    epoch came before the state, and those of the latest epoch. Without such a state, the run starts
    again from the beginning and ends with the same weights. If no state is readable but one has
    content, an error is raised, because the file may be unrelated. States and weights of other runs
    are not used.

    Args:
        out: the run folder; may be missing.
        recipe: the current settings.
        split: the current content of split.csv.
        run: identity of the run, from `run_of`.

    Raises:
        MrkneeError: there are states, but none can be used.
    """
    states: list[tuple[Path, Done]] = []
    faults: list[MrkneeError] = []
    for file in (RunFolder(out).state, RunFolder(out).previous_state):
        if os.path.lexists(file):
            try:
                states.append((file, _read_own(file, out, recipe, split)))
            except MrkneeError as fault:
                faults.append(fault)
    notes = [f"{fault.file} can't be used ({fault.found})" for fault in faults]
    if not states:
        unknown = [fault for fault in faults if not _is_lost(Path(str(fault.file)))]
        if unknown:
            raise unknown[0]
    for file, done in states:
        later = states[0][1]
        best = best_epoch(later.rows, recipe.selection)
        needed = ["best"] if 0 < best <= done.epoch else []
        needed += ["last"] if done is later and done.epoch and not done.batches else []
        lacking = [f"{out / part}" for part in needed if not _is_model(out / part, run)]
        if not lacking:
            if file != RunFolder(out).state or notes:
                notes.append(f"training goes on from the state before that, {file}")
            return Start(done, file, tuple(notes))
        notes.append(f"the weights in {' and '.join(lacking)} can't be used, which {file} needs")
    if notes:
        notes.append("training starts again from its first epoch")
    return Start(Done(), None, tuple(notes))


def _read_own(file: Path, out: Path, recipe: Recipe, split: str) -> Done:
    """Reads a state; refuses one of another run in a folder of the current run."""
    done = read_state(file)[0]
    if _differing(done.settings, recipe) or not has_same_exams(out, split, done):
        try:
            before = load_recipe(str(RunFolder(out).settings)).to_dict()
            same = not _differing(before, recipe) and has_same_exams(out, split, Done())
        except MrkneeError:  # lost: nothing to compare the state with
            same = False
        if same:
            raise ModelError(
                "the state to go on from is another run's",
                code="another-run",
                file=file,
                expected="settings and exams as settings.yaml and split.csv say",
                found="a state of other settings or exams",
                advice="copy the run again; to start it again from its first epoch, remove "
                f"{file.parent}",
            )
    return done


def _differing(before: dict[str, Any] | None, recipe: Recipe) -> list[str]:
    """Returns the settings that differ from those before although a run must keep them."""
    before, now = _with_defaults(before) or {}, recipe.to_dict()
    return [n for n in before if n in now and n not in MAY_CHANGE and before[n] != now[n]]


def _with_defaults(settings: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns saved settings with the defaults of those that an earlier version didn't have."""
    try:
        return None if settings is None else Recipe.model_validate(settings).to_dict()
    except MrkneeError:  # a setting that this version no longer has
        return settings


def run_of(out: Path, recipe: Recipe, split: str) -> str:
    """Returns the identity of the run: a digest of its settings and exams, the same at each start.

    It is stored in every checkpoint and in environment.json to detect checkpoints of other runs in
    the folder. A later version of mrknee may have more settings and compute another digest.
    Therefore the digest stored by the first start is used, unless existing weights contradict it.
    """
    fixed = {name: one for name, one in recipe.to_dict().items() if name not in MAY_CHANGE}
    text = json.dumps([fixed, split], sort_keys=True)
    computed = hashlib.sha256(text.encode()).hexdigest()
    starts = _read_starts(out)
    noted = starts[0].get("run") if starts else None
    if not isinstance(noted, str) or noted == computed:
        return computed
    folder = RunFolder(out)
    said = [_run_said(part) for part in (folder.best, folder.last) if part.exists()]
    return noted if noted in said or not said else computed


def starts_of(out: Path, run: str) -> list[dict[str, Any]] | None:
    """Reads the earlier starts from environment.json; None if it is broken or of another run."""
    starts = _read_starts(out)
    return starts if starts is None or all(s.get("run") in (None, run) for s in starts) else None


def _read_starts(out: Path) -> list[dict[str, Any]] | None:
    environment = RunFolder(out).environment
    try:
        starts = read_json(environment, "list of starts") if environment.exists() else []
    except MrkneeError:  # broken, for example by a power loss: it is written again
        return None
    whole = isinstance(starts, list) and all(isinstance(start, dict) for start in starts)
    return starts if whole else None


def _run_said(folder: Path) -> str | None:
    """Returns the identity of the run stored in a model; None if unknown."""
    try:
        run = load_checkpoint(folder).provenance.get("run")
    except MrkneeError:
        return None
    return run if isinstance(run, str) else None


def settings_before(out: Path, recipe: Recipe, done: Done) -> dict[str, Any] | None:
    """Returns the settings that a run was started with; None if they are lost.

    Raises:
        MrkneeError: settings.yaml can't be read, and no state holds the settings.
    """
    file = RunFolder(out).settings
    if _is_cut(file, recipe.to_yaml()):
        return _with_defaults(done.settings)
    try:
        return load_recipe(str(file)).to_dict()
    except MrkneeError:
        if done.settings is None:
            raise
        return _with_defaults(done.settings)


def has_same_exams(out: Path, split: str, done: Done) -> bool:
    """Returns whether a run was started with this content of split.csv; True if it is lost.

    Raises:
        MrkneeError: split.csv can't be read, and no state holds its digest.
    """
    file = RunFolder(out).split
    if done.split:
        return done.split == split_digest(split)
    return _is_cut(file, split) or _read(file) == split.encode()


def other_exams(out: Path, split: str, shown: int = 5) -> str:
    """Describes how the exams differ from those that a run was started with."""
    try:
        before, now = (
            dict(row[:2] for row in csv.reader(io.StringIO(text)) if len(row) == 2)
            for text in (_read(RunFolder(out).split).decode(), split)
        )
    except (MrkneeError, ValueError):  # broken, for example by a power loss
        return "other exams, or other labels"
    moved = [i for i in now if i in before and now[i] != before[i]]
    found = {
        "no longer there": [i for i in before if i not in now],
        "new": [i for i in now if i not in before],
        "in another part, because labels are others": moved,
    }
    texts = [
        f"{what}: {', '.join(ids[:shown])}"
        + (f" and {len(ids) - shown} more" if len(ids) > shown else "")
        for what, ids in found.items()
        if ids
    ]
    return "; ".join(texts) or "other exams, or other labels"


def split_digest(split: str) -> str:
    """Returns the digest of split.csv that is stored in a state."""
    return hashlib.sha256(split.encode()).hexdigest()


def broken_parts(out: Path, recipe: Recipe, split: str, run: str, done: Done) -> list[str]:
    """Returns the names of broken files of a run with a scorecard; none if it is finished."""
    folder = RunFolder(out)
    broken = [part.name for part in (folder.best, folder.last) if not _is_model(part, run)]
    texts = {
        folder.settings: recipe.to_yaml(),
        folder.split: split,
        folder.metrics: metrics_text(done.rows),
    }
    broken += [file.name for file, text in texts.items() if _is_cut(file, text)]
    if not starts_of(out, run):
        broken.append(folder.environment.name)
    try:
        scored = Scorecard.read(folder.scorecard).split
    except MrkneeError:
        return [folder.scorecard.name, *broken]
    for part in dict.fromkeys((scored, *(("inner",) if recipe.selection.part == "inner" else ()))):
        try:
            Predictions.read(folder.predictions(part))
        except MrkneeError:
            broken.append(folder.predictions(part).name)
    return broken


def _is_model(folder: Path, run: str) -> bool:
    """Returns whether a folder holds a readable model of this run, or of an unstated one."""
    finish_replacing(folder)
    try:
        said = load_checkpoint(folder).provenance.get("run")
    except MrkneeError:
        return False
    return said in (None, run)


def _is_lost(file: Path) -> bool:
    """Returns whether a file is missing, empty or filled with zeros, as after a power loss."""
    if not file.is_file():
        return not file.exists()
    with file.open("rb") as opened:
        parts = iter(lambda: opened.read(1 << 20), b"")
        return all(part.count(0) == len(part) for part in parts)


def _is_cut(file: Path, text: str) -> bool:
    """Returns whether a file is lost, or holds only the beginning of the expected text."""
    if _is_lost(file):
        return True
    content = _read(file).rstrip(b"\0")
    return len(content) < len(text.encode()) and text.encode().startswith(content)


def _read(file: Path) -> bytes:
    return read_bytes(file, "file of the run", at_most=_MAX_TEXT_BYTES)
