"""Several training runs in one output folder.

What `experiment`, `protocol` and `cross_validation` have in common.

Several processes can train the runs of one folder (`share`): each takes runs that no other process
is training. The output folder itself is owned only while its own files are written.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mrknee.errors import DataError, OutputError
from mrknee.files import list_folder, owned_folder
from mrknee.library import Run
from mrknee.outputs import check_output_folder
from mrknee.progress import report
from mrknee.training.data_record import DataRecord, describe_changes, read_record, to_json
from mrknee.training.recipe import Recipe, flat_settings, with_defaults
from mrknee.training.recovery import CHANGEABLE_SETTINGS
from mrknee.training.run import train_owned
from mrknee.untrusted import read_json

SECONDS_BETWEEN_LOOKS = 2.0
"""Time after which the runs of other processes are looked at again."""


def check_folder_contents(out: Path, description: Path, command: str) -> None:
    """Refuses an output folder that contains files but not the one that identifies it.

    Args:
        out: the output folder; it may be missing.
        description: the file that identifies the folder.
        command: the command that writes such folders, for the message.

    Raises:
        OutputError: there are other files.
    """
    others = sorted(file.name for file in list_folder(out) if not file.name.startswith("."))
    if not description.exists() and others:
        raise OutputError(
            "the folder is not empty",
            code="not-empty",
            file=out,
            expected=f"a new or empty folder, or the output of an interrupted mrknee {command}",
            found=", ".join(others[:5]) + (", ..." if len(others) > 5 else ""),
            advice="use another folder",
        )


def read_description(file: Path, what: str, **required: type) -> dict[str, Any]:
    """Reads the JSON file that identifies an output folder.

    Args:
        file: the file.
        what: description of the file for error messages.
        required: keys that it must have, with the types of their values.

    Raises:
        DataError: the file can't be read, isn't JSON, or has no such keys.
    """
    found = read_json(file, what)
    if not isinstance(found, dict) or not all(
        isinstance(found.get(name), kind) for name, kind in required.items()
    ):
        raise DataError(
            f"the {what} can't be used",
            code="run-folder",
            file=file,
            expected=f"a JSON object with {', '.join(required)}",
            found="another content, for example of another version, or of an edited file",
            advice="use another folder",
        )
    return found


def data_json(folder: Path, record: DataRecord) -> str:
    """Compares the data with those of an earlier call, and returns what `data.json` must contain.

    Args:
        folder: the folder with `data.json`, if there is one.
        record: the record of the data as they are now.

    Raises:
        DataError: exams, labels or pixels differ.
    """
    before = read_record(folder)
    if before is None:
        return to_json(record)
    found = describe_changes(before, record)
    if before["exams"].keys() != record["exams"].keys():
        found.append(
            f"{len(record['exams'])} exams, not the {len(before['exams'])} of the first start"
        )
    if found:
        raise DataError(
            "the folder belongs to another data set",
            code="other-exams",
            file=folder,
            expected="the same exams and labels as at the first start",
            found="; ".join(found),
            advice="use another folder",
        )
    return to_json(before)


def changed_settings(before: Mapping[str, Any], recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """Compares the settings of several runs, which differ in their seeds, with those of before.

    Args:
        before: settings as returned by `Recipe.to_dict`, in this or an earlier version.
        recipe: the settings now.

    Returns:
        Dotted setting -> value before and now, for the settings that change a run's result.
    """
    old, now = (dict(flat_settings(one)) for one in (with_defaults(before), recipe.to_dict()))
    passed_over = {*CHANGEABLE_SETTINGS, "seed"} - {"epochs"}
    return {
        name: (old.get(name), now.get(name))
        for name in {**old, **now}
        if name not in passed_over and old.get(name) != now.get(name)
    }


def train_or_resume(data: Path, run: Path, recipe: Recipe) -> str:
    """Trains a network, continues its training, or restores damaged files of a finished run.

    Args:
        data: the data set's folder.
        run: the run folder, which the caller owns.
        recipe: the settings.

    Returns:
        A line with the run's result.
    """
    check_output_folder(run)
    try:
        train_owned(data, run, recipe)
    finally:
        gc.collect()  # frees networks that are part of reference cycles
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
    return repr(Run(run))


def share(folders: Sequence[Path], work: Callable[[Path], None]) -> None:
    """Does some work for each run folder, which is owned meanwhile.

    Each of several processes that call this with the same folders works on those that no other one
    owns. The call returns when the work is done for all folders: a run that another process has
    finished is then finished already, and one that another process has left is continued.

    Args:
        folders: run folders, in the order of preference.
        work: the work.
    """
    reported: Sequence[Path] = ()
    while folders:
        later = []
        for folder in folders:
            try:
                with owned_folder(folder):
                    work(folder)
                continue
            except OutputError as error:
                if error.code != "in-use" or error.file != str(folder):
                    raise
            later.append(folder)
        if len(later) == len(folders):
            if later != reported:
                names = ", ".join("/".join(folder.parts[-2:]) for folder in later)
                report(f"waiting for other processes, which train {names}")
                reported = later
            time.sleep(SECONDS_BETWEEN_LOOKS)
        folders = later


def is_current(file: Path, inputs: Sequence[Path]) -> bool:
    """Returns whether a file exists and is not older than the files that it is made from."""
    return file.is_file() and all(
        one.stat().st_mtime_ns <= file.stat().st_mtime_ns for one in inputs
    )


def log(out: Path, text: str) -> None:
    """Prints a text and appends it to `log.txt` in the output folder."""
    report(text)
    with (out / "log.txt").open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")
