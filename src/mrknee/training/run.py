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
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mrknee.errors import SettingsError, legible
from mrknee.exams.listing import unread_text
from mrknee.files import owned_folder, resolve_output, sync, write_text
from mrknee.metrics.predictions import Predictions
from mrknee.metrics.scorecard import Scorecard
from mrknee.models.feature_cache import refuse_trained_encoders
from mrknee.models.network import Network
from mrknee.models.prediction import device_here
from mrknee.models.transfer import RUN, Transfer, run_weights, transfer_weights
from mrknee.outputs import check_output_folder
from mrknee.progress import report
from mrknee.run_folder import RUN_FILES, RunFolder
from mrknee.training.coverage import coverage_notes
from mrknee.training.data_record import (
    changes_warning,
    compare_data,
)
from mrknee.training.distributed import Processes, connected_processes
from mrknee.training.environment import (
    describe_environment,
    has_bfloat16,
    json_safe,
    software_versions,
)
from mrknee.training.estimate import estimate, slices_at_once
from mrknee.training.evaluation import evaluate_best, predict_best
from mrknee.training.loggers import suppress_writer_tracebacks
from mrknee.training.loop import Precision, TrainingLoop
from mrknee.training.loss import label_weights, positive_weights
from mrknee.training.out_of_memory import (
    convert_memory_errors,
    describe_last_kill,
    running_marker,
)
from mrknee.training.parts import (
    Parts,
    count_steps,
    make_loader,
    skip_batches,
    split_exams,
    stack_sizes,
)
from mrknee.training.recipe import Recipe
from mrknee.training.recovery import (
    Start,
    find_start,
    previous_settings,
    read_starts,
    run_identity,
    split_digest,
)
from mrknee.training.resumption import read_state, roll_back
from mrknee.training.run_writer import RunWriter


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
    out = Path(out)
    with connected_processes() as processes, ExitStack() as lock:
        # the first process locks the folder for all
        processes.on_rank_zero(lambda: lock.enter_context(owned_folder(out)))
        return _train(Path(data), out, recipe, processes, resume=resume)


def train_owned(data: Path, out: Path, recipe: Recipe) -> Scorecard:
    """Does what `train` does with `resume`, in a run folder that the caller owns already."""
    with connected_processes() as processes:
        return _train(data, out, recipe, processes, resume=True)


def _train(
    data: Path, out: Path, recipe: Recipe, processes: Processes, *, resume: bool
) -> Scorecard:
    with convert_memory_errors(recipe):
        card = _train_or_read(data, out, recipe, processes, resume=resume)
    if processes.rank == 0:
        report(f"wrote {out}")
    return card


def _train_or_read(
    data: Path, out: Path, recipe: Recipe, processes: Processes, *, resume: bool
) -> Scorecard:
    precision = _precision(recipe)  # an error here comes before anything is written
    parts = split_exams(data, recipe)
    split = parts.split_csv()
    run = processes.on_rank_zero(lambda: run_identity(out, recipe, split))
    start = processes.on_rank_zero(lambda: find_start(out, recipe, parts, run, resume=resume))
    record, changes = processes.on_rank_zero(lambda: compare_data(out, parts))
    is_first = processes.rank == 0
    if changes and is_first:
        print(changes_warning(changes), file=sys.stderr, flush=True)
    if start is None:
        return Scorecard.read(RunFolder(out).scorecard)
    torch.manual_seed(recipe.seed)
    network, transfer = _create_network(recipe, parts, resumed=start.state is not None)
    pos_weight = _pos_weight(recipe, parts)
    share = (processes.rank, processes.world_size)
    training = make_loader(parts.train, parts.train_positions, recipe, training=True, share=share)
    validation = make_loader(parts.selection, parts.selection_positions, recipe, share=share)
    provenance = _provenance(data, recipe, parts, run)
    before = None if start.state is None else previous_settings(out, recipe, start.progress)
    if is_first and (killed := describe_last_kill(out, recipe)):
        report(killed)
    # nothing has been written up to here
    processes.on_rank_zero(lambda: _prepare_folder(out, recipe, split, run, start, record, changes))
    writer = RunWriter(
        out,
        recipe,
        provenance,
        replace(start.progress, settings=recipe.to_dict(), split=split_digest(split)),
        epochs_before=None if before is None else before["epochs"],
        writes=is_first,
    )
    if is_first and parts.unread:  # not in log.txt, which doesn't depend on the number of starts
        print(f"warning: {legible(unread_text(parts.unread))}", file=sys.stderr, flush=True)
    if start.state is None:
        _report_notes(writer, recipe, parts, network, transfer)
    loop = TrainingLoop(
        network,
        recipe,
        pos_weight,
        count_steps(training, recipe),
        precision=precision,
        processes=processes,
    )
    if start.state is not None:
        done = start.progress
        loop.restore(read_state(start.state)[1], done.epoch, done.batches)
        skip_batches(training, done.epoch, done.batches)
    with running_marker(out) if is_first else nullcontext():
        if is_first:
            workers = training.num_workers + validation.num_workers
            report(_estimate_text(network, parts, recipe, precision, workers, processes))
        with suppress_writer_tracebacks(), _deterministic():
            loop.fit(training, validation, writer)
        del training, validation  # ends their worker processes
        raw = predict_best(out, parts, recipe, processes)
        processes.on_rank_zero(lambda: _finish(out, parts, recipe, raw, writer))
    return Scorecard.read(RunFolder(out).scorecard)


def _create_network(
    recipe: Recipe, parts: Parts, *, resumed: bool
) -> tuple[Network, Transfer | None]:
    """Creates the network with its initial weights; a resumed run restores its weights later.

    Returns:
        The network; and which weights come from another run, None if none do.

    Raises:
        MrkneeError: the weights, or the findings' weights in the loss, can't be used, or the input
            is too small for the encoder.
    """
    findings = parts.train.findings
    assert findings is not None  # noqa: S101  # split_exams refuses folders without labels
    source = run_weights(recipe.weights)
    weights = recipe.weights if source is None and not resumed else "none"
    network = Network(recipe.network, findings, weights, parts.train.series)
    transfer = None if source is None or resumed else transfer_weights(network, source)
    network.refuse_size(recipe.preparation.crop)
    label_weights(recipe.finding_weights, findings)  # refuses findings that are not learned
    if recipe.feature_cache is not None:
        check_output_folder(Path(recipe.feature_cache))
        refuse_trained_encoders(network)
    network.slices_at_once = slices_at_once(recipe)
    return network, transfer


def _pos_weight(recipe: Recipe, parts: Parts) -> Float[Tensor, " findings"]:
    """Returns the weights of positive labels, from the exams trained on.

    Raises:
        MrkneeError: a finding has no positive or no negative exam.
    """
    findings = parts.train.findings or ()
    balanced = positive_weights(parts.train.labels[parts.train_positions], findings)
    return balanced if recipe.pos_weight == "balanced" else torch.ones(len(findings))


def _provenance(data: Path, recipe: Recipe, parts: Parts, run: str) -> dict[str, Any]:
    """Returns the origin of the weights, for the `model.json` of each checkpoint."""
    return json_safe(
        {
            "run": run,
            "data": data.resolve().name,
            "trained_on": len(parts.train_positions),
            "stack_sizes": stack_sizes(parts.train, parts.train_positions),
            "series": parts.exams_per_series(),
            "titles": dict(parts.train.titles),
            **({"canonical_sides": True} if parts.canonical_sides else {}),
            "selected_on": {
                "part": recipe.selection.part,
                "exams": len(parts.selection_positions),
            },
            "seed": recipe.seed,
            "recipe": recipe.to_dict(),
            "environment": software_versions(),
        }
    )


def _prepare_folder(
    out: Path, recipe: Recipe, split: str, run: str, start: Start, record: str, changes: list[str]
) -> None:
    """Writes the files that identify the run, after all checks that could refuse it.

    The settings are written last: they mark the folder as a run folder.
    """
    _check_writable(out)
    roll_back(out, start.progress, start.state)
    starts = read_starts(out, run)
    notes = list(start.notes)
    if starts is None:
        starts = []
        notes.append(f"{RunFolder(out).environment} can't be used and is replaced")
    for note in notes:
        report(f"note: {note}")
    progress = start.progress
    entry: dict[str, Any] = {
        "run": run,
        "after": {"epochs": progress.epoch, "batches": progress.batches},
        **({"data_changed": changes} if changes else {}),
        **describe_environment(),
    }
    if notes:
        entry["notes"] = notes
    entry = json_safe(entry)
    folder = RunFolder(out)
    texts = {
        folder.split: split,
        folder.data: record,
        folder.environment: json.dumps([*starts, entry], indent=2) + "\n",
        folder.settings: recipe.to_yaml(),
    }
    for file, text in texts.items():
        write_text(file, text)


def _report_notes(
    writer: RunWriter, recipe: Recipe, parts: Parts, network: Network, transfer: Transfer | None
) -> None:
    """Reports notes on a new run: weights of another run, the data, and `feature_cache`."""
    if transfer is not None:
        writer.report(f"weights of {recipe.weights.removeprefix(RUN)}\n{transfer.text()}")
    for note in coverage_notes(parts, recipe):
        writer.report(f"note: {note}")
    repeats = recipe.feature_cache is None and recipe.epochs > 1 and not recipe.changing_slices
    if repeats and all(network.encoder(name).frozen for name in network.series.names):
        writer.report(
            "note: the encoders are not trained; with the setting feature_cache FOLDER, their "
            "feature maps are computed only once, and epochs after the first are faster"
        )


def _estimate_text(
    network: Network,
    parts: Parts,
    recipe: Recipe,
    precision: Precision,
    workers: int,
    processes: Processes,
) -> str:
    """Returns the estimate of time and memory, for `workers` reading processes per process."""
    return estimate(
        network,
        parts,
        recipe,
        precision,
        workers=workers * processes.world_size // processes.nodes,
        processes=processes.world_size,
    ).text()


def _finish(
    out: Path, parts: Parts, recipe: Recipe, raw: Mapping[str, Predictions], writer: RunWriter
) -> None:
    """Evaluates the best epoch and writes the scorecard, which marks the run as finished."""
    card = evaluate_best(out, parts, recipe, raw)
    writer.report(card.table())
    sync([RunFolder(out).log])  # so that it is complete, also after a power loss
    card.write(RunFolder(out).scorecard)


def _check_writable(out: Path) -> None:
    """Refuses paths that can't be written, such as a folder in the place of a file."""
    for name in RUN_FILES:
        for folder in Path(name).parents[:-1]:
            for path in out.glob(str(folder)) if "*" in str(folder) else [out / folder]:
                check_output_folder(path)
        if not name.startswith("tensorboard"):  # it creates files with new names
            for file in out.glob(name) if "*" in name else [out / name]:
                resolve_output(file)


def _precision(recipe: Recipe) -> Precision:
    """Returns the precision to use on this machine."""
    if recipe.precision == "auto":
        return "bf16-mixed" if has_bfloat16() else "32-true"
    if recipe.precision == "16-mixed" and device_here() == "cpu":
        raise SettingsError(
            "the setting precision can't be used without a GPU",
            code="setting",
            expected="32-true, bf16-mixed or auto",
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
