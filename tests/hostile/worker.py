"""Process that reads malformed inputs within limits of time and memory, and reports the outcomes.

It is a separate process, so that annotations are not checked at run time (values reach the code as
they do for a user) and limits apply to it alone. `python -m tests.hostile.worker`, started in an
empty folder, reads one line of JSON per case from standard input, `{"reader": ..., "path": ...}`,
and answers each with one line.

- Processor time: an alarm on the processor time of this process ends it after `CPU_SECONDS`.
- Memory: the address space may grow by `MEMORY_BYTES` above the size after the imports; larger
  requests fail. The largest resident size during a case is measured by the kernel (`VmHWM`, reset
  before each).

An import decodes compressed pixels in a further process. It inherits the limit of the address
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
"""docs/background/untrusted-files.md states 2 s, measured with AVX-512; slower processors may
take twice that (building the largest encoder without memory takes 2.8 s on one with AVX2)."""
MEMORY_BYTES = 500 * 2**20

NAMES = (
    *("stack", "labels", "predictions", "listing", "parts", "recipe", "scorecard", "phantom"),
    *("checkpoint", "weights", "resume", "onnx", "exam", "import", "sample"),
)
"""Names of the readers."""


def readers() -> dict[str, Callable[[Path], object]]:
    """Returns every reader of the package by the name that cases use."""
    import numpy as np

    from mrknee.errors import DataError, MrkneeError
    from mrknee.exams import Exam, Plane, read_labels, read_stack
    from mrknee.inference.onnx_model import OnnxModel
    from mrknee.inference.rsna_submission import read_studies
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
        """Imports a source; raises for studies that are refused in the table of the import only."""
        out = Path("imported")
        shutil.rmtree(out, ignore_errors=True)
        try:
            done = import_exams(path, out, workers=1, allow_missing_plane=True)
        except MrkneeError:
            assert not out.exists(), "output was written"
            raise
        if not done.complete:
            stacks = list(out.rglob("*.npy"))
            assert not stacks, "a refused study was written"
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
        "sample": read_studies,
        "exam": lambda path: OnnxModel(path).run(Exam("0000", planes)),
    }


def memory(name: str) -> int:
    """Returns a size of this process that the kernel reports, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Returns every path below a folder with size and modification time (0 for folders)."""
    return {
        str(path): (0, 0) if path.is_dir() else (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def measured(read: Callable[[Path], object], path: Path) -> dict[str, Any]:
    """Reads a file; returns the error, time and memory, and whether files were left or code ran."""
    from mrknee.errors import MrkneeError

    before = contents(path.parent)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
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
    """Answers each line of standard input with one line."""
    assert readers().keys() == set(NAMES)
    known = {**readers(), "python": lambda path: exec(path.read_text())}  # noqa: S102  # own tests
    sys.path.insert(0, str(Path.cwd()))
    for line in sys.stdin:
        case = json.loads(line)
        path = Path(case["path"])
        sys.path[0] = str(path.parent)  # a user's working directory: modules next to a recipe
        print(json.dumps(measured(known[case["reader"]], path)), flush=True)
        Path(MARKER).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
