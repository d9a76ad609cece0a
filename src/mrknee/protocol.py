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
from mrknee.exams import MRNET_FINDINGS, PLANES, Dataset, Findings, Plane
from mrknee.files import owned_folder, remove_incomplete, write_text
from mrknee.inference.model import load_model
from mrknee.library import check_dataset, compare
from mrknee.metrics.combination import fit_combination
from mrknee.metrics.predictions import Predictions, reorder
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
from mrknee.training.recipe import Recipe, load_recipe_for
from mrknee.untrusted import read_json

NESTED = {"selection.part": "inner", "keep_every_epoch": False}
"""Settings of all training runs: the epoch is selected on exams of `train`."""

COMBINED: Mapping[str, Mapping[str, Sequence[str]]] = {
    "bien2018": {
        finding: [f"bien2018-{plane}-{finding}" for plane in PLANES] for finding in MRNET_FINDINGS
    }
}
"""Name of a system -> finding -> networks whose probabilities a logistic regression combines."""

ELNET_SERIES = {
    "abnormal": (Plane.AXIAL, "elnet"),
    "acl": (Plane.AXIAL, "elnet"),
    "meniscus": (Plane.CORONAL, "elnet_contrast"),
}
"""Finding -> series and encoder of its ELNet: as in the paper, one series, with layer normalisation
if it is axial and contrast normalisation if it is coronal."""

SYSTEMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "reference": ("reference", {}),
    "default": ("default", {}),
    **{finding: ("reference", {"findings": [finding]}) for finding in MRNET_FINDINGS},
    **{
        f"bien2018-{plane}-{finding}": (
            "reference",
            {"findings": [finding], "series": [str(plane)], "calibration": "none"},
        )
        for plane in PLANES
        for finding in MRNET_FINDINGS
    },
    **{
        f"elnet-{finding}": (
            "reference",
            {
                "findings": [finding],
                "series": [str(series)],
                "network.encoder": encoder,
                "weights": "none",
                "optimizer.learning_rate": 1e-3,
            },
        )
        for finding, (series, encoder) in ELNET_SERIES.items()
    },
    "mrpyrnet": (
        "reference",
        {"network.feature_maps": [1, 2, 3], "network.channels": 64, "network.detail_crops": 5},
    ),
    "slice-transformer": (
        "default",
        {
            "network.slice_pooling": "transformer",
            "network.feature_maps": [],
            "network.channels": 0,
            "network.activation": "relu",
            "network.frozen_stages": 0,
            "optimizer.head_learning_rate": 1e-4,
            "slices_at_once": -1,
        },
    ),
}
"""Name of a network, which is trained once per seed -> recipe, and changes to its settings."""

COMPARED: Mapping[str, Sequence[str]] = {
    "reference": ["reference"],
    "singles": MRNET_FINDINGS,
    "default": ["default"],
    "bien2018": ["bien2018"],
    "elnet": [f"elnet-{finding}" for finding in MRNET_FINDINGS],
    "mrpyrnet": ["mrpyrnet"],
    "slice-transformer": ["slice-transformer"],
}
"""Name of a system -> networks, or combinations of networks, that form it together."""

USUAL = ("reference", "singles", "default")
"""The systems if none are named. All others are compared with the first."""

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


def run_protocol(
    data: str | Path, out: str | Path, *, systems: Sequence[str] = USUAL, smoke: bool = False
) -> None:
    """Checks a data set, trains systems with all seeds, evaluates and compares them.

    The function can be interrupted at any time and called again with the same arguments: complete
    networks, reports and comparisons are kept, and training continues from the last saved state.
    All steps run sequentially in this process.

    Args:
        data: MRNet's folder, or a data set with the same layout and with labels of abnormal, acl
            and meniscus in `train` and `valid`.
        out: the output folder: new, empty, or of an earlier call with the same arguments.
        systems: two or more names of `COMPARED`; all others are compared with the first.
        smoke: run the same steps in minutes, with one seed, two epochs, tiny networks and at most
            40 training exams. The results are meaningless.

    Raises:
        MrkneeError: a system is unknown; the data set has errors or lacks labels; the folder
            contains other files, or belongs to other data or to another protocol; or a step failed.
    """
    data, out = Path(data), Path(out)
    _refuse_unknown(systems)
    check_output_folder(out)
    with owned_folder(out):
        _check_folder(out, systems, smoke=smoke)
        remove_incomplete(out)
        _prepare_folder(data, out, systems, smoke=smoke)
        steps = list(_steps(data, out, systems, smoke=smoke))
        started = time.monotonic()
        log(out, f"{datetime.now():%Y-%m-%d %H:%M:%S}, {len(steps)} steps")
        for number, (folder, activity, work) in enumerate(steps, start=1):
            elapsed = timedelta(seconds=int(time.monotonic() - started))
            name = folder.relative_to(out)
            log(out, f"step {number} of {len(steps)}, after {elapsed}: {name}, {activity}")
            log(out, work())
        log(out, _summary(out, systems, smoke=smoke))


def _refuse_unknown(systems: Sequence[str]) -> None:
    if len(systems) < 2 or len(set(systems)) < len(systems) or not set(systems) <= set(COMPARED):
        raise SettingsError(
            "these systems can't be compared",
            code="setting",
            expected="two or more different ones of " + ", ".join(COMPARED),
            found=", ".join(systems) or "none",
        )


def _networks(systems: Sequence[str]) -> list[str]:
    """Returns the networks that are trained for systems, in the order of `SYSTEMS`."""
    members = [member for system in systems for member in COMPARED[system]]
    parts = {
        part
        for member in members
        for part in (
            [name for names in COMBINED[member].values() for name in names]
            if member in COMBINED
            else [member]
        )
    }
    return [name for name in SYSTEMS if name in parts]


def _description(systems: Sequence[str], *, smoke: bool) -> dict[str, Any]:
    """Returns the description of the protocol that is stored in its output folder.

    It distinguishes the full from the smoke protocol, and both from those of other versions.
    """
    return {
        "version": 1,
        "smoke": smoke,
        "seeds": list(SMOKE_SEEDS if smoke else SEEDS),
        "settings": {**NESTED, **(SMOKE if smoke else {})},
        "systems": {name: list(SYSTEMS[name]) for name in _networks(systems)},
        **({} if tuple(systems) == USUAL else {"compared": list(systems)}),
    }


def _check_folder(out: Path, systems: Sequence[str], *, smoke: bool) -> None:
    """Raises an error if the output folder contains something else, or another protocol."""
    file = out / PROTOCOL_FILE
    check_folder_contents(out, file, "protocol")
    description = _description(systems, smoke=smoke)
    before = read_json(file, "description of the protocol") if file.exists() else description
    if before != description:
        kinds = {"the full protocol": False, "the smoke protocol (--smoke)": True}
        known = [n for n, kind in kinds.items() if before == _description(systems, smoke=kind)]
        raise SettingsError(
            "the folder belongs to another protocol",
            code="other-settings",
            file=file,
            expected="".join(name for name, kind in kinds.items() if kind == smoke),
            found="".join(known) or "other --systems, or seeds or settings of another version",
            advice="start it with the same options as before, or use another folder",
        )


def _prepare_folder(data: Path, out: Path, systems: Sequence[str], *, smoke: bool) -> None:
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
    description = _description(systems, smoke=smoke)
    recipe = load_recipe_for(data, "reference", description["settings"])
    record = record_data(split_exams(data, recipe))
    texts = {
        PROTOCOL_FILE: json.dumps(description, indent=2) + "\n",
        RunFolder(out).data.name: data_json(out, record),
        "check.json": checkup.to_json(),
    }
    for name, text in texts.items():
        write_text(out / name, text)


def _steps(data: Path, out: Path, systems: Sequence[str], *, smoke: bool) -> Iterator[Step]:
    seeds, networks = SMOKE_SEEDS if smoke else SEEDS, _networks(systems)
    combined = [name for system in systems for name in COMPARED[system] if name in COMBINED]
    second = COMPARED[systems[1]]

    def run_folders(systems: Sequence[str], *seeds: int) -> list[Path]:
        return [out / system / f"seed{seed}" for seed in seeds for system in systems]

    def evaluation(folder: Path, runs: Sequence[Path], against: Sequence[Path] = ()) -> Step:
        return folder, "evaluating", partial(_evaluate, data, folder, runs, against)

    def comparison(name: str, models: Mapping[str, Sequence[Path]]) -> Step:
        folder = out / "comparison" / name
        return folder, "comparing", partial(_compare, data, folder, models)

    for seed in seeds:
        for network in networks:
            (run,) = run_folders([network], seed)
            name, changed = SYSTEMS[network]
            settings = {**_description(systems, smoke=smoke)["settings"], **changed, "seed": seed}
            recipe = load_recipe_for(data, name, settings)
            yield run, "training", partial(_train, data, run, recipe)
        for system in combined:
            (folder,) = run_folders([system], seed)
            runs = {name: run_folders(parts, seed) for name, parts in COMBINED[system].items()}
            yield folder, "combining", partial(_combine, data, folder, runs)
        for network in networks:
            (run,) = run_folders([network], seed)
            against = run_folders(second, seed) if [network] == list(COMPARED[systems[0]]) else ()
            yield evaluation(run / "report", [run], against)
    models = {system: run_folders(COMPARED[system], *seeds) for system in systems}
    yield evaluation(out / "report", models[systems[0]], models[systems[1]])
    yield comparison("systems", models)
    for system in systems if len(seeds) > 1 else ():
        by_seed = {f"{system}, seed {seed}": run_folders(COMPARED[system], seed) for seed in seeds}
        yield comparison(f"seeds-{system}", by_seed)


def _train(data: Path, run: Path, recipe: Recipe) -> str:
    with owned_folder(run):
        return train_or_resume(data, run, recipe)


def _combine(data: Path, folder: Path, runs: Mapping[str, Sequence[Path]]) -> str:
    """Combines the predictions of several networks per finding, and writes them like a run.

    The logistic regression is fitted on the exams of `train` that the networks were trained on, as
    in the paper. The networks' predictions of these exams are too good, but those of all networks.
    """
    file = RunFolder(folder).predictions("valid")
    if _is_current(file, [run for those in runs.values() for run in those]):
        return "up to date"
    combinations, tables = [], []
    for finding, those in runs.items():
        trained_on = (RunFolder(those[0]).read_split() or {})["train"]
        fitted_on = []
        for run in those:
            model = load_model(run)
            exams = Dataset.of_split(data, "train", findings=[finding], series=model.series.names)
            positions = [i for i, exam_id in enumerate(exams.ids) if exam_id in trained_on]
            ids = [exams.ids[i] for i in positions]
            fitted_on.append(reorder(model.predict(exams), ids, Findings([finding])))
        combination = fit_combination(finding, fitted_on, exams.labels[positions, 0])
        valid = [Predictions.read(RunFolder(run).predictions("valid")) for run in those]
        combinations.append(combination.to_dict())
        tables.append(combination.apply(valid))
    write_text(folder / "combination.json", json.dumps(combinations, indent=2) + "\n")
    Predictions.joined(tables).write(file)
    return f"wrote {file.name}: a logistic regression for each of {', '.join(runs)}"


def _evaluate(data: Path, folder: Path, runs: Sequence[Path], against: Sequence[Path]) -> str:
    if _is_current(folder / "report.html", [*runs, *against]):
        return "up to date"
    other = _predictions(against) if against else None
    # a combined system has predictions, but no model
    model = runs[0] if len(runs) == 1 and runs[0].parent.name not in COMBINED else None
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


def _summary(out: Path, systems: Sequence[str], *, smoke: bool) -> str:
    seeds = "" if smoke else "\n  comparison/seeds-*/                differences between seeds"
    end = "\nThis was the smoke test: its results are meaningless." if smoke else ""
    return f"""complete; in {out}:
  report/report.html                 main report: {systems[0]} (mean of its seeds),
                                     compared with {systems[1]}
  NAME/seedN/report/report.html      report of each network
  comparison/systems/comparison.txt  tests of the differences between systems{seeds}
  check.json  log.txt                contents and problems of the data set; printed output{end}"""
