"""Robustness of all commands against tampered model descriptions and exported files.

    python benchmarks/tamper.py [--seconds 600] [--seed 0]

Each part of the model.json of a small run folder, and of the metadata of its exported file, is
replaced by each of some thirty values (tests/hostile/tampered.py). Checksums are corrected, and
predict, submit, explain, evaluate, export and the service read the model. Any outcome other than a
result or a MrkneeError is printed and gives exit status 1. In the second half of the time, random
bytes of the exported file are changed and its checksum is corrected. The order is random
(`--seed`), so that an incomplete run is a fair sample.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from mrknee.errors import MrkneeError
from mrknee.export.onnx import export
from mrknee.inference.onnx_file import METADATA, read_exported, seal
from mrknee.models.checkpoint import load_checkpoint, save_checkpoint
from mrknee.models.settings import NetworkSettings
from tests.conftest import write_toy_dataset
from tests.export.test_onnx import make_run
from tests.hostile.tampered import (
    body_of,
    read_with,
    run_commands,
    tampered,
    write_description,
    write_metadata,
)
from tests.hostile.test_tampered import PROVENANCE, an_exam

EXPORTED = 20
"""One in `EXPORTED` readable run folders is also exported, which takes as long as all other
commands."""

Case = tuple[str, Callable[[], Path]]


def main() -> int:
    """Runs both parts until the time is over; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = write_toy_dataset(root / "toy", 2, 4)
        run = make_run(root / "run", NetworkSettings(encoder="test_resnet", shared_encoder=True))
        made = load_checkpoint(run / "best")
        save_checkpoint(run / "best", made.network, made.preparation, PROVENANCE, made.decisions)
        export(run, root / "model.onnx")
        cases = list(_cases(run, root / "model.onnx"))
        rng = random.Random(given.seed)  # noqa: S311  # not used for cryptography
        rng.shuffle(cases)
        half = time.monotonic() + given.seconds / 2
        print(f"{len(cases)} tampered descriptions, seed {given.seed}", flush=True)
        faults = _try_commands(cases, data, root / "out", half)
        faults += _flip(root / "model.onnx", rng, half + given.seconds / 2)
    return 1 if faults else 0


def _cases(run: Path, file: Path) -> list[Case]:
    said = json.loads((run / "best" / "model.json").read_text())
    facts, body = read_exported(file)[1], body_of(file)
    target = file.with_name("tampered.onnx")

    def folder(changed: dict[str, object]) -> Path:
        write_description(run / "best", changed)
        return run

    def exported(changed: dict[str, object]) -> Path:
        write_metadata(target, body, changed)
        return target

    cases: list[Case] = []
    for name, changed in tampered(said):
        cases.append((f"model.json {name}", lambda one=changed: folder(one)))  # type: ignore[misc]
    for name, changed in tampered(facts):
        cases.append((f"{METADATA} {name}", lambda one=changed: exported(one)))  # type: ignore[misc]
    return cases


def _try_commands(cases: list[Case], data: Path, out: Path, until: float) -> int:
    out.mkdir()
    counts: Counter[str] = Counter()
    faults = tried = 0
    for name, write in cases:
        if time.monotonic() > until:
            break
        tried += 1
        quiet = io.StringIO()
        try:
            with contextlib.redirect_stderr(quiet), contextlib.redirect_stdout(quiet):
                found = run_commands(write(), data, out, export_too=tried % EXPORTED == 0)
            counts.update(f"{command} {what}" for command, what in found.items())
        except BaseException:
            faults += 1
            print(f"FAULT {name}\n{traceback.format_exc()}", flush=True)
    print(f"{tried} descriptions tried, {faults} faults")
    for what, count in sorted(counts.items()):
        print(f"  {what}: {count}")
    return faults


def _flip(file: Path, rng: random.Random, until: float) -> int:
    """Changes random bytes of graph and metadata; returns the number of unexpected exceptions."""
    whole = read_exported(file)[0]
    end = len(whole) - len(seal(b""))
    target, exam = file.with_name("flipped.onnx"), an_exam()
    # most bytes are weights, so half of the changes are in the last part, with nodes and metadata
    counts: Counter[str] = Counter()
    faults = 0
    while time.monotonic() < until:
        content = bytearray(whole[:end])
        for _ in range(rng.choice((1, 1, 2, 8))):
            low = rng.choice((0, max(0, end - 30_000)))
            content[rng.randrange(low, end)] = rng.randrange(256)
        target.write_bytes(seal(bytes(content)))
        try:
            read_with(target, exam)
            counts["read"] += 1
        except MrkneeError as error:
            counts[f"refused: {error.what}"] += 1
        except BaseException:
            faults += 1
            print(f"FAULT flipped\n{traceback.format_exc()}", flush=True)
    print(f"{sum(counts.values())} files with changed bytes, {faults} faults")
    for what, count in counts.most_common():
        print(f"  {what}: {count}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
