"""Where a run starts: from the beginning, or from a saved state if it was interrupted.

A run is resumed only with the settings, findings and exams that it was started with. A power loss,
or a kill at the wrong moment, may leave files empty, filled with zeros or cut. Files that can be
written again are; a state is used only if the weights that it depends on are intact.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mrknee.errors import DataError, ModelError, MrkneeError, OutputError, SettingsError
from mrknee.files import list_folder
from mrknee.metrics.predictions import Predictions
from mrknee.metrics.scorecard import Scorecard
from mrknee.models.checkpoint import finish_replacing, load_checkpoint
from mrknee.run_folder import RunFolder, metrics_text
from mrknee.training.data_record import previous_record, recorded_findings
from mrknee.training.out_of_memory import describe_last_kill
from mrknee.training.parts import Parts
from mrknee.training.recipe import Recipe, load_recipe, with_defaults
from mrknee.training.resumption import RunProgress, read_state
from mrknee.training.run_writer import best_epoch
from mrknee.untrusted import read_bytes, read_json

CHANGEABLE_SETTINGS = (
    "epochs",
    "workers",
    "save_every",
    "loggers",
    "slices_at_once",
    "feature_cache",
    "log_train",
    "log_valid",
)
"""Settings that a resumed run may change, because they don't affect what an epoch computes
(`slices_at_once` and `feature_cache` affect its rounding only; with `network.drop_path`,
`slices_at_once` affects which blocks are skipped)."""

_MAX_TEXT_BYTES = 32_000_000  # limit of text files in a run folder; split.csv: a line per exam


@dataclass(frozen=True)
class Start:
    """The point from which a run starts or resumes.

    Attributes:
        progress: progress of the run; none if it starts from the beginning.
        state: file of the saved state; None if the run starts from the beginning.
        notes: what was lost and the consequences, one sentence each.
    """

    progress: RunProgress
    state: Path | None = None
    notes: tuple[str, ...] = ()


def find_start(out: Path, recipe: Recipe, parts: Parts, run: str, *, resume: bool) -> Start | None:
    """Finds the state that a run starts from.

    Args:
        out: the run folder; may be missing.
        recipe: the current settings.
        parts: the exams of each part.
        run: identity of the run, from `run_identity`.
        resume: whether to continue an interrupted run.

    Returns:
        The start; None if the folder holds a finished run.

    Raises:
        MrkneeError: the folder is not empty and `resume` is False, or the run can't be resumed with
            these settings and exams.
    """
    folder, split = RunFolder(out), parts.split_csv()
    existing = {file.name for file in list_folder(out)}
    # files of a start that was killed before it wrote the settings
    early = {file.name for file in (folder.split, folder.environment, folder.data)}
    if not existing or (resume and all(n in early or n.startswith(".") for n in existing)):
        return Start(RunProgress())
    is_run = any(file.exists() for file in (folder.settings, folder.state, folder.previous_state))
    if not resume or not is_run:
        raise OutputError(
            "the run folder is not empty",
            code="not-empty",
            file=out,
            expected="an empty or new folder, or an interrupted run with --resume",
            found=describe_last_kill(out, recipe),
            advice="choose another folder with --out, or continue the run with --resume",
        )
    start = _latest_start(out, recipe, split, run)
    before = previous_settings(out, recipe, start.progress)
    _refuse_other_settings(out, before, recipe)
    _refuse_other_findings(out, parts)
    _refuse_other_exams(out, split, start.progress)
    if before is None:
        note = f"{folder.settings} can't be read: the current settings are used"
        return replace(start, notes=(*start.notes, note))
    if not folder.scorecard.exists() or recipe.epochs > before["epochs"]:
        return start
    broken = broken_files(out, recipe, split, run, start.progress)
    if not broken:
        return None
    note = f"{', '.join(broken)} can't be used and will be written again"
    return replace(start, notes=(*start.notes, note))


def _refuse_other_settings(out: Path, before: dict[str, Any] | None, recipe: Recipe) -> None:
    now, changed = recipe.to_dict(), _changed_settings(before, recipe)
    if before and changed:
        raise SettingsError(
            "the run was started with other settings",
            code="other-settings",
            file=RunFolder(out).settings,
            expected=", ".join(f"{name}={before[name]}" for name in changed),
            found=", ".join(f"{name}={now[name]}" for name in changed),
            advice="resume with the original settings, or start a new run",
        )


def _refuse_other_findings(out: Path, parts: Parts) -> None:
    """Refuses to resume with other findings, since they define the outputs of the network."""
    record = previous_record(out)
    before, now = None if record is None else recorded_findings(record), parts.train.findings
    if before is not None and before != now:
        raise SettingsError(
            "the run was started with other findings",
            code="other-findings",
            file=RunFolder(out).data,
            expected=", ".join(before),
            found=f"labels of {', '.join(now or ())}",
            advice="resume with the original label files, or start a new run",
        )


def _refuse_other_exams(out: Path, split: str, progress: RunProgress) -> None:
    if not has_same_exams(out, split, progress):
        raise DataError(
            "the run was started with other exams",
            code="other-exams",
            file=RunFolder(out).split,
            expected="the exams it was started with",
            found=describe_other_exams(out, split),
            advice="resume with the original data set, or start a new run",
        )


def _latest_start(out: Path, recipe: Recipe, split: str, run: str) -> Start:
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
        run: identity of the run, from `run_identity`.

    Raises:
        MrkneeError: there are states, but none can be used.
    """
    states: list[tuple[Path, RunProgress]] = []
    errors: list[MrkneeError] = []
    for file in (RunFolder(out).state, RunFolder(out).previous_state):
        if os.path.lexists(file):
            try:
                states.append((file, _read_own(file, out, recipe, split)))
            except MrkneeError as error:
                errors.append(error)
    notes = [f"{error.file} can't be used ({error.found})" for error in errors]
    if not states:
        unrelated = [error for error in errors if not _is_lost(Path(str(error.file)))]
        if unrelated:
            raise unrelated[0]
    for file, progress in states:
        latest = states[0][1]
        best = best_epoch(latest.rows, recipe.selection)
        needed = ["best"] if 0 < best <= progress.epoch else []
        if progress is latest and progress.epoch and not progress.batches:
            needed.append("last")
        broken = [f"{out / name}" for name in needed if not _is_model(out / name, run)]
        if not broken:
            if file != RunFolder(out).state or notes:
                notes.append(f"training continues from the previous state, {file}")
            return Start(progress, file, tuple(notes))
        notes.append(f"{file} needs the weights in {' and '.join(broken)}, which can't be used")
    if notes:
        notes.append("training restarts from the first epoch")
    return Start(RunProgress(), None, tuple(notes))


def _read_own(file: Path, out: Path, recipe: Recipe, split: str) -> RunProgress:
    """Reads a state; refuses one of another run in a folder of the current run."""
    progress = read_state(file)[0]
    if _changed_settings(progress.settings, recipe) or not has_same_exams(out, split, progress):
        try:
            before = load_recipe(str(RunFolder(out).settings)).to_dict()
            same = not _changed_settings(before, recipe) and has_same_exams(
                out, split, RunProgress()
            )
        except MrkneeError:  # lost: nothing to compare the state with
            same = False
        if same:
            raise ModelError(
                "the state to resume from belongs to another run",
                code="another-run",
                file=file,
                expected="the settings and exams of settings.yaml and split.csv",
                found="a state with other settings or exams",
                advice=f"copy the run again, or remove {file.parent} to restart it from its first "
                "epoch",
            )
    return progress


def _changed_settings(before: dict[str, Any] | None, recipe: Recipe) -> list[str]:
    """Returns the settings that differ from those before although a run must keep them."""
    before, now = {} if before is None else with_defaults(before), recipe.to_dict()
    return [n for n in before if n in now and n not in CHANGEABLE_SETTINGS and before[n] != now[n]]


def run_identity(out: Path, recipe: Recipe, split: str) -> str:
    """Returns the identity of the run: a digest of its settings and exams, the same at each start.

    It is stored in every checkpoint and in environment.json to detect checkpoints of other runs in
    the folder. A later version of mrknee may have more settings and compute another digest.
    Therefore the digest stored by the first start is used, unless existing weights contradict it.
    """
    fixed = {n: value for n, value in recipe.to_dict().items() if n not in CHANGEABLE_SETTINGS}
    text = json.dumps([fixed, split], sort_keys=True)
    computed = hashlib.sha256(text.encode()).hexdigest()
    starts = _read_starts(out)
    stored = starts[0].get("run") if starts else None
    if not isinstance(stored, str) or stored == computed:
        return computed
    folder = RunFolder(out)
    models = [_run_of_model(model) for model in (folder.best, folder.last) if model.exists()]
    return stored if stored in models or not models else computed


def read_starts(out: Path, run: str) -> list[dict[str, Any]] | None:
    """Reads the earlier starts from environment.json; None if it is broken or of another run."""
    starts = _read_starts(out)
    return starts if starts is None or all(s.get("run") in (None, run) for s in starts) else None


def _read_starts(out: Path) -> list[dict[str, Any]] | None:
    environment = RunFolder(out).environment
    try:
        starts = read_json(environment, "list of starts") if environment.exists() else []
    except MrkneeError:  # broken, for example by a power loss: it is written again
        return None
    valid = isinstance(starts, list) and all(isinstance(start, dict) for start in starts)
    return starts if valid else None


def _run_of_model(folder: Path) -> str | None:
    """Returns the identity of the run stored in a model; None if unknown."""
    try:
        run = load_checkpoint(folder).provenance.get("run")
    except MrkneeError:
        return None
    return run if isinstance(run, str) else None


def previous_settings(out: Path, recipe: Recipe, progress: RunProgress) -> dict[str, Any] | None:
    """Returns the settings that a run was started with; None if they are lost.

    Raises:
        MrkneeError: settings.yaml can't be read, and no state holds the settings.
    """
    file = RunFolder(out).settings
    saved = None if progress.settings is None else with_defaults(progress.settings)
    if _is_truncated(file, recipe.to_yaml()):
        return saved
    try:
        return load_recipe(str(file)).to_dict()
    except MrkneeError:
        if saved is None:
            raise
        return saved


def has_same_exams(out: Path, split: str, progress: RunProgress) -> bool:
    """Returns whether a run was started with this content of split.csv; True if it is lost.

    Raises:
        MrkneeError: split.csv can't be read, and no state holds its digest.
    """
    file = RunFolder(out).split
    if progress.split:
        return progress.split == split_digest(split)
    return _is_truncated(file, split) or _read(file) == split.encode()


def describe_other_exams(out: Path, split: str) -> str:
    """Describes how the exams differ from those that a run was started with."""
    try:
        before, now = (
            dict(row[:2] for row in csv.reader(io.StringIO(text)) if len(row) == 2)
            for text in (_read(RunFolder(out).split).decode(), split)
        )
    except (MrkneeError, ValueError):  # broken, for example by a power loss
        return "other exams or labels"
    moved = [i for i in now if i in before and now[i] != before[i]]
    found = {
        "missing": [i for i in before if i not in now],
        "new": [i for i in now if i not in before],
        "in another part, because labels differ": moved,
    }
    shown = 5
    texts = [
        f"{change}: {', '.join(ids[:shown])}"
        + (f" and {len(ids) - shown} more" if len(ids) > shown else "")
        for change, ids in found.items()
        if ids
    ]
    return "; ".join(texts) or "other exams or labels"


def split_digest(split: str) -> str:
    """Returns the digest of split.csv that is stored in a state."""
    return hashlib.sha256(split.encode()).hexdigest()


def broken_files(
    out: Path, recipe: Recipe, split: str, run: str, progress: RunProgress
) -> list[str]:
    """Returns the names of broken files of a run with a scorecard; none if it is finished."""
    folder = RunFolder(out)
    broken = [model.name for model in (folder.best, folder.last) if not _is_model(model, run)]
    texts = {
        folder.settings: recipe.to_yaml(),
        folder.split: split,
        folder.metrics: metrics_text(progress.rows),
    }
    broken += [file.name for file, text in texts.items() if _is_truncated(file, text)]
    if not read_starts(out, run):
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
        stored = load_checkpoint(folder).provenance.get("run")
    except MrkneeError:
        return False
    return stored in (None, run)


def _is_lost(file: Path) -> bool:
    """Returns whether a file is missing, empty or filled with zeros, as after a power loss."""
    if not file.is_file():
        return not file.exists()
    with file.open("rb") as opened:
        blocks = iter(lambda: opened.read(1 << 20), b"")
        return all(block.count(0) == len(block) for block in blocks)


def _is_truncated(file: Path, text: str) -> bool:
    """Returns whether a file is lost, or holds only the beginning of the expected text."""
    if _is_lost(file):
        return True
    content = _read(file).rstrip(b"\0")
    return len(content) < len(text.encode()) and text.encode().startswith(content)


def _read(file: Path) -> bytes:
    return read_bytes(file, "file of the run", at_most=_MAX_TEXT_BYTES)
