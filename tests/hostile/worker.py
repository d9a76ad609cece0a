"""Reads one malformed input after the other, and says what came of each.

A process of its own, so that no annotation is checked at run time (values reach the code as they
do for a user) and so that its limits are its own: `python -m tests.hostile.worker` in an empty
folder takes a line of JSON a case on standard input, `{"reader": ..., "path": ...}`, and answers
each with a line.

- Processor time: an alarm on the time that this process computes ends it after `CPU_SECONDS`.
- Memory: the address space may grow by `MEMORY_BYTES` over what the imports have taken, so that
  asking for more fails, and the largest resident size during a case is measured by the kernel
  (`VmHWM`, reset before each).

An import decodes compressed pixels in a process of its own. It inherits the limit on the address
space; its time and its resident size are not in the answer.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.case import MARKER

CPU_SECONDS = 4.0
"""docs/background/untrusted-files.md says 2 s, measured on processors with AVX-512; slower ones may
take twice that (building the largest encoder without memory takes 2.8 s on one with AVX2)."""
MEMORY_BYTES = 500 * 2**20

NAMES = (
    *("stack", "labels", "predictions", "listing", "parts", "recipe", "scorecard", "phantom"),
    *("checkpoint", "weights", "resume", "onnx", "exam", "import"),
)
"""Of the readers."""


def readers() -> dict[str, Callable[[Path], object]]:
    """Every reader of the package, by the name that cases use."""
    import numpy as np

    from mrknee.errors import DataError, MrkneeError
    from mrknee.exams import Exam, Plane, read_labels, read_stack
    from mrknee.inference.onnx_model import OnnxModel
    from mrknee.inference.submission import ListedExams
    from mrknee.inference.torch_model import TorchModel
    from mrknee.metrics.predictions import Predictions
    from mrknee.metrics.scorecard import Scorecard
    from mrknee.models.weights import read_weights
    from mrknee.run_folder import RunFolder
    from mrknee.sources.clinical.importing import import_exams
    from mrknee.sources.phantom.cohort import write_cohort
    from mrknee.training.recipe import load_recipe
    from mrknee.training.resumption import read_state

    def imported(path: Path) -> None:
        """What an import refuses of a source that holds something else it tells in its table."""
        out = Path("imported")
        shutil.rmtree(out, ignore_errors=True)
        try:
            done = import_exams(path, out, workers=1, allow_missing_plane=True)
        except MrkneeError:
            assert not out.exists(), "something was written"
            raise
        if not done.complete:
            stacks = list(out.rglob("*.npy"))
            assert not stacks, "a study was refused, and written"
            raise DataError(done.table(), code="check")

    planes = {
        Plane(name): np.zeros((n, 8, 8), np.uint8)
        for n, name in enumerate(("axial", "coronal", "sagittal"), start=2)
    }
    planes[Plane.AXIAL] = planes[Plane.AXIAL][:, :, :5]

    return {
        "stack": read_stack,
        "labels": read_labels,
        "predictions": Predictions.read,
        "listing": ListedExams,
        "parts": lambda path: RunFolder.containing(path.with_name("model.onnx")).read_split(),
        "recipe": lambda path: load_recipe(str(path)),
        "scorecard": Scorecard.read,
        "phantom": lambda path: write_cohort(path, train=1, valid=0, seed=0, size=32),
        "checkpoint": TorchModel,
        "weights": read_weights,
        "resume": lambda path: read_state(RunFolder(path).state),
        "onnx": OnnxModel,
        "import": imported,
        "exam": lambda path: OnnxModel(path).run(Exam("0000", planes)),
    }


def memory(name: str) -> int:
    """One of the kernel's sizes of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every name below a folder; of files also size and time of change."""
    return {
        str(path): (0, 0) if path.is_dir() else (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def watched(read: Callable[[Path], object], path: Path) -> dict[str, Any]:
    """Reads, and tells what was raised, what it took, and whether anything was left or run."""
    from mrknee.errors import MrkneeError

    before = contents(path.parent)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    resident = memory("VmRSS")
    limit = memory("VmSize") + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # ends this process
    started = time.process_time()
    raised, message = "nothing", ""
    try:
        read(path)
    except BaseException as error:
        ours = isinstance(error, MrkneeError)
        raised, message = "MrkneeError" if ours else type(error).__name__, str(error)
    seconds = time.process_time() - started
    signal.setitimer(signal.ITIMER_PROF, 0)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return {
        "raised": raised,
        "message": message,
        "seconds": seconds,
        "bytes": memory("VmHWM") - resident,
        "executed": Path(MARKER).exists(),
        "left": sorted(contents(path.parent).items() ^ before.items()),
    }


def main() -> None:
    """Answers line by line."""
    assert readers().keys() == set(NAMES)
    known = {**readers(), "python": lambda path: exec(path.read_text())}  # noqa: S102  # own tests
    sys.path.insert(0, str(Path.cwd()))
    for line in sys.stdin:
        case = json.loads(line)
        path = Path(case["path"])
        sys.path[0] = str(path.parent)  # where a user would stand: modules beside a recipe
        print(json.dumps(watched(known[case["reader"]], path)), flush=True)
        Path(MARKER).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
