"""The complete training run, from a recipe and a data set to a run folder.

```
RUN/
├── settings.yaml            the complete recipe, including defaults
├── environment.json         per start: progress so far, versions, machine, command
├── split.csv                exam,part: which exams were trained on, which selected the epoch
├── data.json                per exam: sizes and samples of the files, and labels
├── best/  last/             weights.safetensors + model.json; predict accepts RUN or either
├── epochs/                  the same for every epoch, if the recipe keeps them
├── resume/last.ckpt         the state that --resume loads; previous.ckpt: the one before it
├── .running                 present while training; if left over, the process was killed
├── log.txt  metrics.csv  tensorboard/
├── predictions-inner.csv    the best epoch's predictions on the exams that selected it
├── predictions-valid.csv    the best epoch's predictions on valid
└── scorecard.json           AUCs on valid, with intervals
```
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mrknee.errors import DataError, MrkneeError, OutputError, SettingsError, legible
from mrknee.exams.listing import unread_text
from mrknee.files import list_folder, owned_folder, resolve_output, sync, whole_file
from mrknee.metrics.scorecard import Scorecard
from mrknee.models.network import Network
from mrknee.models.prediction import device_here
from mrknee.models.transfer import RUN, run_weights, transfer_weights
from mrknee.outputs import check_output_folder
from mrknee.progress import report
from mrknee.run_folder import RUN_FILES, RunFolder
from mrknee.training.coverage import coverage_notes
from mrknee.training.curves import quiet_writers
from mrknee.training.data_record import Record as DataRecord
from mrknee.training.data_record import (
    changes,
    findings_in,
    read_record,
    record_data,
    to_json,
    warning,
)
from mrknee.training.environment import describe_environment, has_bfloat16, software, storable
from mrknee.training.estimate import estimate, slices_at_once
from mrknee.training.final import evaluate_best, read_best
from mrknee.training.loop import Precision, TrainingLoop
from mrknee.training.objective import positive_weights
from mrknee.training.out_of_memory import (
    how_it_was_ended,
    marked_as_running,
    told_if_memory_runs_out,
)
from mrknee.training.parts import (
    Parts,
    count_steps,
    divide,
    load_part,
    skip_batches,
    stack_sizes,
)
from mrknee.training.processes import Processes, connected_processes
from mrknee.training.recipe import Recipe
from mrknee.training.record import RunRecord
from mrknee.training.recovery import (
    MAY_CHANGE,
    Start,
    broken_parts,
    find_start,
    has_same_exams,
    other_exams,
    run_of,
    settings_before,
    split_digest,
    starts_of,
)
from mrknee.training.resumption import Done, go_back, read_state


def train(data: str | Path, out: str | Path, recipe: Recipe, *, resume: bool = False) -> Scorecard:
    """Trains a network by a recipe and writes the run folder.

    Args:
        data: a data set in MRNet's layout, with a `train` split and, normally, `valid`.
        out: the run folder; must be empty or missing, unless `resume`.
        recipe: the settings.
        resume: continue an interrupted run of the same settings, or start a new one if there is
            none; a finished run is left unchanged. More `epochs` than before are allowed.

    Returns:
        The scorecard on `valid` (on the inner exams if there is no `valid`).

    Raises:
        MrkneeError: the data set or a setting can't be used, the folder holds other files, or
            memory ran out.
    """
    data, out = Path(data), Path(out)
    with (
        connected_processes() as processes,
        told_if_memory_runs_out(recipe),
        ExitStack() as owner,
    ):
        # the first process locks the folder for all
        processes.first_does(lambda: owner.enter_context(owned_folder(out)))
        card = _train(data, out, recipe, processes, resume=resume)
        if processes.rank == 0:
            report(f"wrote {out}")
        return card


def _train(
    data: Path, out: Path, recipe: Recipe, processes: Processes, *, resume: bool
) -> Scorecard:
    precision = _precision(recipe)  # an error here comes before anything is written
    parts = divide(data, recipe)
    split = parts.table()
    run = processes.first_does(lambda: run_of(out, recipe, split))
    start = processes.first_does(lambda: _find_start(out, recipe, parts, run, resume))
    data_now, changed = processes.first_does(lambda: compare_data(out, parts))
    if changed and processes.rank == 0:
        print(warning(changed), file=sys.stderr, flush=True)
    if start is None:
        return Scorecard.read(RunFolder(out).scorecard)
    done = replace(start.done, settings=recipe.to_dict(), split=split_digest(split))
    torch.manual_seed(recipe.seed)
    findings = parts.train.findings
    assert findings is not None  # noqa: S101  # divide refuses folders without labels
    source = run_weights(recipe.weights)
    weights_from = recipe.weights if source is None and start.state is None else "none"
    network = Network(recipe.network, findings, weights_from, parts.train.series)
    transfer = (
        None if source is None or start.state is not None else transfer_weights(network, source)
    )
    network.refuse_size(recipe.preparation.crop)
    network.slices_at_once = slices_at_once(recipe)
    fit_labels = parts.train.labels[parts.fit]
    balanced = positive_weights(fit_labels, findings)
    weights = balanced if recipe.pos_weight == "balanced" else torch.ones(len(findings))
    share = (processes.rank, processes.world)
    training = load_part(parts.train, parts.fit, recipe, training=True, share=share)
    selecting = load_part(parts.selecting, parts.chosen, recipe, share=share)
    provenance = {
        "run": run,
        "data": data.resolve().name,
        "trained_on": len(parts.fit),
        "stack_sizes": stack_sizes(parts.train, parts.fit),
        "series": parts.series(),
        "titles": dict(parts.train.titles),
        "selected_on": {"part": recipe.selection.part, "exams": len(parts.chosen)},
        "seed": recipe.seed,
        "recipe": recipe.to_dict(),
        "environment": software(),
    }
    before = None if start.state is None else settings_before(out, recipe, start.done)
    first = processes.rank == 0
    if first and (ended := how_it_was_ended(out, recipe)):
        report(ended)
    processes.first_does(lambda: _claim_folder(out, recipe, split, run, start, data_now, changed))
    record = RunRecord(
        out,
        recipe,
        storable(provenance),
        done,
        epochs_before=None if before is None else before["epochs"],
        writes=first,
    )
    if first and parts.unread:  # not in log.txt, which is the same however often a run is resumed
        print(f"warning: {legible(unread_text(parts.unread))}", file=sys.stderr, flush=True)
    if transfer is not None:
        record.say(f"weights of {recipe.weights.removeprefix(RUN)}\n{transfer.text()}")
    for note in coverage_notes(parts, recipe) if start.state is None else ():
        record.say(f"note: {note}")
    loop = TrainingLoop(
        network,
        recipe,
        weights,
        count_steps(training, recipe),
        precision=precision,
        processes=processes,
    )
    if start.state is not None:
        loop.restore(read_state(start.state)[1], done.epoch, done.batches)
        skip_batches(training, done.epoch, done.batches)
    with marked_as_running(out) if first else nullcontext():
        if first:
            workers = training.num_workers + selecting.num_workers
            needed = estimate(
                network,
                parts,
                recipe,
                precision,
                workers=workers * processes.world // processes.nodes,
                processes=processes.world,
            )
            report(needed.text())
        with quiet_writers(), _deterministic():
            loop.fit(training, selecting, record)
        del training, selecting  # ends their worker processes
        raw = read_best(out, parts, recipe, processes)

        def finish() -> None:
            card = evaluate_best(out, parts, recipe, raw)
            record.say(card.table())
            sync([RunFolder(out).log])  # so that it is complete, also after a power loss
            card.write(RunFolder(out).scorecard)  # written last: it marks the run as finished

        processes.first_does(finish)
    return Scorecard.read(RunFolder(out).scorecard)


def _find_start(out: Path, recipe: Recipe, parts: Parts, run: str, resume: bool) -> Start | None:
    """Finds the state that the run starts from; None if the folder holds a finished run.

    Raises:
        MrkneeError: the folder can't be used for this run.
    """
    split = parts.table()
    folder = RunFolder(out)
    settings = folder.settings
    there = {file.name for file in list_folder(out)}
    begun = {
        file.name for file in (folder.split, folder.environment, folder.data)
    }  # files of a start that was killed before it wrote the settings
    if not there or (resume and all(n in begun or n.startswith(".") for n in there)):
        return Start(Done())
    ours = any(file.exists() for file in (settings, folder.state, folder.previous_state))
    if not resume or not ours:
        raise OutputError(
            "the run folder is not empty",
            code="not-empty",
            file=out,
            expected="an empty or new folder, or --resume on an interrupted run",
            found=how_it_was_ended(out, recipe),
            advice="name another folder with --out, or go on with --resume",
        )
    start = find_start(out, recipe, split, run)
    before, now = settings_before(out, recipe, start.done), recipe.to_dict()
    changed = [n for n in now if before and now[n] != before[n] and n not in MAY_CHANGE]
    if before and changed:
        raise SettingsError(
            "the run was started with other settings",
            code="other-settings",
            file=settings,
            expected=", ".join(f"{name}={before[name]}" for name in changed),
            found=", ".join(f"{name}={now[name]}" for name in changed),
            advice="resume with the settings it was started with, or start a new run",
        )
    _refuse_other_findings(out, parts)
    if not has_same_exams(out, split, start.done):
        raise DataError(
            "the run was started with other exams",
            code="other-exams",
            file=folder.split,
            expected="the data set it was started with",
            found=other_exams(out, split),
            advice="resume with the same data set, or start a new run",
        )
    if before is None:
        note = f"{settings} can't be read: the settings given now are taken for those of the run"
        return replace(start, notes=(*start.notes, note))
    if not folder.scorecard.exists() or recipe.epochs > before["epochs"]:
        return start
    broken = broken_parts(out, recipe, split, run, start.done)
    if not broken:
        return None
    note = f"{', '.join(broken)} can't be used and will be written again"
    return replace(start, notes=(*start.notes, note))


def _refuse_other_findings(out: Path, parts: Parts) -> None:
    """Refuses to resume with other findings, since they define the outputs of the network."""
    record = _record_before(out)
    before, now = None if record is None else findings_in(record), parts.train.findings
    if before is not None and before != now:
        raise SettingsError(
            "the run was started with other findings",
            code="other-findings",
            file=RunFolder(out).data,
            expected=", ".join(before),
            found=f"labels of {', '.join(now or ())}",
            advice="resume with the label files that it was started with, or start a new run",
        )


def _record_before(out: Path) -> DataRecord | None:
    """Reads the record of the data that a run has been trained on; None if there is none."""
    folder = RunFolder(out)
    if not any(f.exists() for f in (folder.state, folder.previous_state, folder.scorecard)):
        return None
    try:
        return read_record(out)
    except MrkneeError:  # broken, for example by a power loss: it is written again
        return None


def compare_data(out: Path, parts: Parts) -> tuple[str, list[str]]:
    """Returns the record of the data as text, and its changes since the run was started.

    A run without a saved state starts again, so there is nothing to compare with. Otherwise the
    record of the first start is kept.
    """
    now, before = record_data(parts), _record_before(out)
    return (to_json(now), []) if before is None else (to_json(before), changes(before, now))


def _claim_folder(
    out: Path, recipe: Recipe, split: str, run: str, start: Start, data: str, changed: list[str]
) -> None:
    """Writes the files that identify the run, after all checks that could refuse it.

    The settings are written last: they mark the folder as a run folder.
    """
    _refuse_what_cannot_be_replaced(out)
    go_back(out, start.done, start.state)
    starts = starts_of(out, run)
    notes = list(start.notes)
    if starts is None:
        starts = []
        notes.append(f"{RunFolder(out).environment} can't be used and is begun anew")
    for note in notes:
        report(f"note: {note}")
    done = start.done
    this: dict[str, Any] = {
        "run": run,
        "after": {"epochs": done.epoch, "batches": done.batches},
        **({"data_changed": changed} if changed else {}),
        **describe_environment(),
    }
    if notes:
        this["notes"] = notes
    this = storable(this)
    folder = RunFolder(out)
    texts = {
        folder.split: split,
        folder.data: data,
        folder.environment: json.dumps([*starts, this], indent=2) + "\n",
        folder.settings: recipe.to_yaml(),
    }
    for file, text in texts.items():
        with whole_file(file) as beside:
            beside.write_text(text)


def _refuse_what_cannot_be_replaced(out: Path) -> None:
    """Refuses paths that can't be written, such as a folder in the place of a file."""
    for name in RUN_FILES:
        for folder in Path(name).parents[:-1]:
            for one in out.glob(str(folder)) if "*" in str(folder) else [out / folder]:
                check_output_folder(one)
        if not name.startswith("tensorboard"):  # it creates files with new names
            for file in out.glob(name) if "*" in name else [out / name]:
                resolve_output(file)


def _precision(recipe: Recipe) -> Precision:
    """Returns the precision to use on this machine."""
    if recipe.precision == "auto":
        return "bf16-mixed" if has_bfloat16() else "32-true"
    if recipe.precision == "16-mixed" and device_here() == "cpu":
        raise SettingsError(
            "the setting precision can't be used on a processor",
            code="setting",
            expected="32-true, bf16-mixed or auto; or a GPU",
            found=recipe.precision,
        )
    return recipe.precision


@contextmanager
def _deterministic() -> Iterator[None]:
    """Makes torch use deterministic operations, if available."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
