"""The nested protocol on MRNet: several networks and seeds, trained, evaluated and compared.

docs/how-to/mrnet-protocol.md explains which exams are used for what, and the results.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from mrknee.errors import DataError, SettingsError
from mrknee.exams import MRNET_FINDINGS
from mrknee.files import owned_folder, remove_incomplete, write_text
from mrknee.library import check_dataset, compare
from mrknee.metrics.predictions import Predictions
from mrknee.outputs import check_output_folder
from mrknee.progress import report
from mrknee.reports.evaluation import evaluate
from mrknee.run_folder import RunFolder
from mrknee.several_runs import (
    check_folder_contents,
    data_json,
    is_current,
    log,
    train_or_resume,
)
from mrknee.training.data_record import record_data
from mrknee.training.parts import split_exams
from mrknee.training.recipe import load_recipe
from mrknee.untrusted import read_json

NESTED = {"selection.part": "inner", "keep_every_epoch": False}
"""Settings of all training runs: the epoch is selected on exams of `train`."""

SYSTEMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "reference": ("reference", {}),
    "default": ("default", {}),
    **{finding: ("reference", {"findings": [finding]}) for finding in MRNET_FINDINGS},
}
"""Name of a system, which is trained once per seed -> recipe, and changes to its settings."""

COMPARED = {"reference": ["reference"], "singles": list(MRNET_FINDINGS), "default": ["default"]}
"""Name of a model -> systems that form it together. All others are compared with the first."""

SEEDS, SMOKE_SEEDS = (0, 1, 2), (0,)

SMOKE = {
    "epochs": 2,
    "max_exams": 40,
    "network.encoder": "test_resnet",
    "network.batchnorm": "trained",
    "weights": "none",
    "preparation.size": 32,
    "preparation.crop": 32,
    "batch_exams": 4,
    "workers": 0,
}
"""Settings that reduce each training run to seconds."""

PROTOCOL_FILE = "protocol.json"
"""Name of the file that identifies the protocol of an output folder."""

Step = tuple[Path, str, Callable[[], str]]
"""The output folder, the activity as printed, and the function that performs the step unless its
result is current; the function returns the text to print."""


def run_protocol(data: str | Path, out: str | Path, *, smoke: bool = False) -> None:
    """Checks a data set, trains all systems with all seeds, evaluates and compares them.

    The function can be interrupted at any time and called again with the same arguments: complete
    networks, reports and comparisons are kept, and training continues from the last saved state.
    All steps run sequentially in this process.

    Args:
        data: MRNet's folder, or a data set with the same layout and with labels of abnormal, acl
            and meniscus in `train` and `valid`.
        out: the output folder: new, empty, or of an earlier call with the same data and `smoke`.
        smoke: run the same steps in minutes, with one seed, two epochs, tiny networks and at most
            40 training exams. The results are meaningless.

    Raises:
        MrkneeError: the data set has errors or lacks labels; the folder contains other files, or
            belongs to other data or to the other protocol; or a step failed.
    """
    data, out = Path(data), Path(out)
    check_output_folder(out)
    with owned_folder(out):
        _check_folder(out, smoke=smoke)
        remove_incomplete(out)
        _prepare_folder(data, out, smoke=smoke)
        steps = list(_steps(data, out, smoke=smoke))
        started = time.monotonic()
        log(out, f"{datetime.now():%Y-%m-%d %H:%M:%S}, {len(steps)} steps")
        for number, (folder, activity, work) in enumerate(steps, start=1):
            elapsed = timedelta(seconds=int(time.monotonic() - started))
            name = folder.relative_to(out)
            log(out, f"step {number} of {len(steps)}, after {elapsed}: {name}, {activity}")
            log(out, work())
        log(out, _summary(out, smoke=smoke))


def _description(*, smoke: bool) -> dict[str, Any]:
    """Returns the description of the protocol that is stored in its output folder.

    It distinguishes the full from the smoke protocol, and both from those of other versions.
    """
    return {
        "version": 1,
        "smoke": smoke,
        "seeds": list(SMOKE_SEEDS if smoke else SEEDS),
        "settings": {**NESTED, **(SMOKE if smoke else {})},
        "systems": {name: list(system) for name, system in SYSTEMS.items()},
    }


def _check_folder(out: Path, *, smoke: bool) -> None:
    """Raises an error if the output folder contains something else, or another protocol."""
    file = out / PROTOCOL_FILE
    check_folder_contents(out, file, "protocol")
    description = _description(smoke=smoke)
    before = read_json(file, "description of the protocol") if file.exists() else description
    if before != description:
        kinds = {"the full protocol": False, "the smoke protocol (--smoke)": True}
        known = [name for name, kind in kinds.items() if before == _description(smoke=kind)]
        raise SettingsError(
            "the folder belongs to another protocol",
            code="other-settings",
            file=file,
            expected="".join(name for name, kind in kinds.items() if kind == smoke),
            found="".join(known) or "seeds, settings or systems of another version of mrknee",
            advice="start it with the same options as before, or use another folder",
        )


def _prepare_folder(data: Path, out: Path, *, smoke: bool) -> None:
    """Checks the data set, also against that of an earlier call, and writes the protocol's files.

    The files are the description of the protocol, the record of the data, and the check's result.
    """
    checkup = check_dataset(data)
    report(f"{checkup}")
    if not checkup.ok:
        raise DataError(
            "the data set has errors",
            code="faulty-data",
            file=data,
            expected="a data set in which `mrknee check` finds no error",
            found=f"errors: {len(checkup.errors)} (listed above)",
        )
    for split in ("train", "valid"):
        labels = checkup.splits[split].labels if split in checkup.splits else {}
        if missing := [finding for finding in MRNET_FINDINGS if finding not in labels]:
            raise DataError(
                f"the protocol requires labels of {', '.join(MRNET_FINDINGS)} in train and valid",
                code="no-labels",
                file=data / f"{split}-{missing[0]}.csv",
                expected="a label file",
            )
    recipe = load_recipe("reference", _description(smoke=smoke)["settings"])
    record = record_data(split_exams(data, recipe))
    texts = {
        PROTOCOL_FILE: json.dumps(_description(smoke=smoke), indent=2) + "\n",
        RunFolder(out).data.name: data_json(out, record),
        "check.json": checkup.to_json(),
    }
    for name, text in texts.items():
        write_text(out / name, text)


def _steps(data: Path, out: Path, *, smoke: bool) -> Iterator[Step]:
    seeds = SMOKE_SEEDS if smoke else SEEDS

    def run_folders(systems: Sequence[str], *seeds: int) -> list[Path]:
        return [out / system / f"seed{seed}" for seed in seeds for system in systems]

    def evaluation(folder: Path, runs: Sequence[Path], against: Sequence[Path] = ()) -> Step:
        return folder, "evaluating", partial(_evaluate, data, folder, runs, against)

    def comparison(name: str, models: Mapping[str, Sequence[Path]]) -> Step:
        folder = out / "comparison" / name
        return folder, "comparing", partial(_compare, data, folder, models)

    for seed in seeds:
        for system, (recipe, changed) in SYSTEMS.items():
            (run,) = run_folders([system], seed)
            settings = {**_description(smoke=smoke)["settings"], **changed, "seed": seed}
            yield run, "training", partial(train_or_resume, data, run, recipe, settings)
        for system in SYSTEMS:
            (run,) = run_folders([system], seed)
            singles = run_folders(COMPARED["singles"], seed) if system == "reference" else ()
            yield evaluation(run / "report", [run], singles)
    models = {name: run_folders(systems, *seeds) for name, systems in COMPARED.items()}
    yield evaluation(out / "report", models["reference"], models["singles"])
    yield comparison("systems", models)
    for name, systems in COMPARED.items() if len(seeds) > 1 else ():
        by_seed = {f"{name}, seed {seed}": run_folders(systems, seed) for seed in seeds}
        yield comparison(f"seeds-{name}", by_seed)


def _evaluate(data: Path, folder: Path, runs: Sequence[Path], against: Sequence[Path]) -> str:
    if _is_current(folder / "report.html", [*runs, *against]):
        return "up to date"
    other = _predictions(against) if against else None
    model = runs[0] if len(runs) == 1 else None
    return evaluate(_predictions(runs), data, folder, model=model, against=other).table()


def _compare(data: Path, folder: Path, models: Mapping[str, Sequence[Path]]) -> str:
    text = folder / "comparison.txt"  # the last file written
    if not _is_current(text, [run for runs in models.values() for run in runs]):
        first, second, *others = map(_predictions, models.values())
        comparison = compare(first, second, data, others=others, names=list(models), out=folder)
        write_text(text, comparison.table())
    return text.read_text(encoding="utf-8")


def _predictions(runs: Sequence[Path]) -> Predictions:
    """Returns the mean of several runs' predictions on `valid`, with their folders as source."""
    tables = [Predictions.read(RunFolder(run).predictions("valid")) for run in runs]
    return replace(
        Predictions.joined(tables), source=",".join("/".join(run.parts[-2:]) for run in runs)
    )


def _is_current(file: Path, runs: Sequence[Path]) -> bool:
    """Returns whether a file exists and is not older than the predictions of these runs."""
    return is_current(file, [RunFolder(run).predictions("valid") for run in runs])


def _summary(out: Path, *, smoke: bool) -> str:
    seeds = "" if smoke else "\n  comparison/seeds-*/                differences between seeds"
    end = "\nThis was the smoke test: its results are meaningless." if smoke else ""
    return f"""complete; in {out}:
  report/report.html                 main report: the multi-task network (mean of its seeds),
                                     compared with the single-finding networks
  NAME/seedN/report/report.html      report of each network
  comparison/systems/comparison.txt  tests of the differences between systems{seeds}
  check.json  log.txt                contents and problems of the data set; printed output{end}"""
