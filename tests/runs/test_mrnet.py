"""The nested protocol as its user runs it: a script, killed and started again.

Once with the real mrknee, in small. What is the script's own (what it starts in which order, what
it keeps, how it ends) is tested in no time with stand_in/mrknee.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mrknee.exams import PLANES, write_labels, write_stack
from mrknee.sources.phantom.cohort import KINDS, draw_truths
from mrknee.sources.phantom.exam import FINDINGS, render_exam

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "runs" / "mrnet.sh"
STAND_IN = Path(__file__).parent / "stand_in"
REAL = Path(sys.executable).parent
COUNTS = {"train": 160, "valid": 40}
"""Exams, in place of MRNet's 1130 and 120; --smoke trains on 40."""

NAMES = ("reference", "default", *FINDINGS)
GO_ON = "run the same command again"


def write_mrnet_layout(root: Path, pixels: int = 32) -> Path:
    """A phantom with MRNet's layout, ids and labels, in small: few exams, pixels and slices.

    Two knees of each kind are rendered, and each exam is one of its kind, of every tenth slice. A
    little noise makes it no copy of another.
    """
    rng = np.random.default_rng(0)
    knees = {truth: [render_exam(seed, truth, size=pixels) for seed in (0, 1)] for truth in KINDS}
    number = 0
    for split, count in COUNTS.items():
        labels: dict[str, dict[str, float]] = {finding: {} for finding in FINDINGS}
        for truth in draw_truths(split, count, seed=0):
            exam_id = f"{number:04d}"
            number += 1
            knee = knees[truth][rng.integers(2)]
            for plane in PLANES:
                stack = knee.stacks[plane][::10]
                noise = rng.integers(0, 3, stack.shape, dtype=np.uint8)
                write_stack(root / split, plane, exam_id, np.minimum(stack, 250) + noise)
            for finding in FINDINGS:
                labels[finding][exam_id] = float(getattr(truth, finding))
        for finding in FINDINGS:
            write_labels(root, split, finding, labels[finding])
    return root


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the script in a process group of its own; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "killed").mkdir()

    def start_script(
        *words: object, mrknee: Path = STAND_IN, stand_in: str = "", **variables: str
    ) -> subprocess.Popen[str]:
        """The script, with the mrknee of that folder; what the stand-in is to do is said in it."""
        process = subprocess.Popen(  # noqa: S603  # our own script
            ["/bin/bash", str(SCRIPT), *map(str, words)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # whoever starts pytest in the background may have it ignore Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            env={
                **os.environ,
                "PATH": os.pathsep.join(map(str, (mrknee, REAL, os.environ["PATH"]))),
                "OMP_NUM_THREADS": "1",
                "STAND_IN": stand_in,
                "CALLS": str(tmp_path / "calls"),
                "KILLED": str(tmp_path / "killed"),
                **variables,
            },
        )
        started.append(process)
        return process

    yield start_script
    for process in started:
        if process.returncode is None:
            kill(process)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """All of a data set that the script itself looks at: that its label files are there."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split in COUNTS:
        for finding in FINDINGS:
            (folder / f"{split}-{finding}.csv").touch()
    return folder


def calls(tmp_path: Path) -> list[list[str]]:
    """What the stand-in was asked since the last call of this."""
    lines = (tmp_path / "calls").read_text().splitlines()
    (tmp_path / "calls").unlink()
    return [line.split() for line in lines]


def of(verb: str, asked: list[list[str]]) -> list[str]:
    """Where each of these commands was to write, in order."""
    return [words[words.index("--out") + 1] for words in asked if words[0] == verb]


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the script and all that it has started."""
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Waits for the script; its exit status and all that it said."""
    said, _ = process.communicate()
    return process.returncode, said


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file: whoever writes one again changes them."""
    return {
        str(f.relative_to(folder)): (f.stat().st_ino, f.stat().st_mtime_ns)
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until the path is there; fails where the process ends first."""
    while not path.exists():
        assert process.poll() is None or path.exists(), finish(process)[1]
        time.sleep(0.005)


def kill_half_trained(start_it: Callable[[], subprocess.Popen[str]], out: Path) -> str:
    """Starts the script and kills it when a training other than the first has a whole epoch.

    A network of --smoke has only one epoch to go then. Where that one is done before the kill
    comes, the next network is waited for.

    Returns:
        The name of the half-trained network.
    """
    for name in NAMES[1:]:
        process = start_it()
        wait_for(out / name / "seed0" / "resume" / "last.ckpt", process)
        kill(process)
        if not (out / name / "seed0" / "scorecard.json").exists():
            return name
    pytest.fail("every training was complete before it was killed")


@pytest.mark.timeout(2400)  # a dozen processes that import torch, on cores shared with other tests
def test_the_protocol_killed_midway_completes_what_is_missing(start: Start, tmp_path: Path) -> None:
    """Check, five trainings, pages, comparison; killed in a training, which then goes on."""
    mrnet = write_mrnet_layout(tmp_path / "MRNet-v1.0")
    out = tmp_path / "out"
    half = kill_half_trained(lambda: start(mrnet, out, "--smoke", mrknee=REAL), out)
    complete = identities(out / "reference" / "seed0")
    assert "scorecard.json" in complete
    rows = (out / half / "seed0" / "metrics.csv").read_text().splitlines()

    status, said = finish(start(mrnet, out, "--smoke", mrknee=REAL))
    assert status == 0, said
    assert "reference/seed0: trained before" in said
    after = identities(out / "reference" / "seed0")
    assert {name: after[name] for name in complete} == complete
    starts = json.loads((out / half / "seed0" / "environment.json").read_text())
    assert [start["after"]["epochs"] for start in starts] == [0, 1]
    after_rows = (out / half / "seed0" / "metrics.csv").read_text().splitlines()
    assert after_rows[: len(rows)] == rows

    for name in NAMES:
        run = out / name / "seed0"
        settings = (run / "settings.yaml").read_text()
        assert "part: inner" in settings
        assert "keep_every_epoch: false" in settings
        inner = [x for x in (run / "split.csv").read_text().splitlines() if x.endswith(",inner")]
        assert len(inner) == 6  # 15 % of 40
        assert len((run / "metrics.csv").read_text().splitlines()) == 1 + 2  # epochs
        card = json.loads((run / "scorecard.json").read_text())
        findings = [name] if name in FINDINGS else list(FINDINGS)
        assert (card["split"], card["n_exams"]) == ("valid", COUNTS["valid"])
        assert list(card["findings"]) == findings
        assert not [note for note in card["notes"] if "optimistic" in note]
        page = run / "report" / "report.html"
        assert "<html" in page.read_text()
        assert page.stat().st_mtime >= (run / "predictions-valid.csv").stat().st_mtime
    splits = {(out / name / "seed0" / "split.csv").read_text() for name in NAMES}
    assert len(splits) == 1, "networks that are compared are trained on the same exams"
    comparison = json.loads((out / "comparison" / "systems" / "comparison.json").read_text())
    assert len(comparison["models"]) == 3
    assert [list(model["findings"]) for model in comparison["models"]] == [list(FINDINGS)] * 3
    assert json.loads((out / "check.json").read_text())["errors"] == 0
    assert "<html" in (out / "report" / "report.html").read_text()
    assert (out / "comparison" / "systems" / "comparison.txt").read_text() in said
    assert said in (out / "log.txt").read_text()


def test_faulty_data_stop_it_before_anything_is_trained(
    start: Start, toy: Path, tmp_path: Path
) -> None:
    """A stack can't be read: the check's own words and exit status, and no advice to repeat it."""
    stack = next((toy / "train" / "axial").iterdir())
    stack.write_bytes(b"no stack")
    status, said = finish(start(toy, tmp_path / "out", "--smoke", mrknee=REAL))
    assert status == 1
    assert stack.name in said
    assert GO_ON not in said
    assert not list((tmp_path / "out").glob("*/seed0"))


def test_the_full_protocol_trains_and_compares_every_seed(
    start: Start, data: Path, tmp_path: Path
) -> None:
    """15 trainings that differ as the tables say, their pages, and who is compared with whom."""
    status, said = finish(start(data, "out"))
    assert status == 0, said
    asked = calls(tmp_path)
    seeds = (0, 1, 2)
    assert of("train", asked) == [f"{name}/seed{seed}" for seed in seeds for name in NAMES]
    for words in asked:
        if words[0] == "train":
            name, seed = words[words.index("--out") + 1].split("/seed")
            recipe = "default" if name == "default" else "reference"
            only = ["--findings", name] if name in FINDINGS else []
            settings = ["--recipe", recipe, *only, "--seed", seed]
            nested = ["--resume", "--selection.part", "inner", "--keep-every-epoch=false"]
            assert words[4:] == [*nested, *settings]

    def joined(names: tuple[str, ...], seeds: tuple[int, ...]) -> str:
        return ",".join(
            f"{name}/seed{seed}/predictions-valid.csv" for seed in seeds for name in names
        )

    where = [str(data), "--split", "valid", "--out"]
    pages = [words[1:] for words in asked if words[0] == "evaluate"]
    expected = [
        [
            joined((name,), (seed,)),
            *where,
            f"{name}/seed{seed}/report",
            "--model",
            f"{name}/seed{seed}",
        ]
        + (["--against", joined(FINDINGS, (seed,))] if name == "reference" else [])
        for seed in seeds
        for name in NAMES
    ]
    both = [joined(("reference",), seeds), joined(FINDINGS, seeds)]
    assert pages == [*expected, [both[0], *where, "report", "--against", both[1]]]
    compared = [words[1:] for words in asked if words[0] == "compare"]
    assert compared == [
        [*both, joined(("default",), seeds), *where, "comparison/systems"],
        *(
            [*(joined(names, (seed,)) for seed in seeds), *where, f"comparison/seeds-{title}"]
            for title, names in (
                ("reference", ("reference",)),
                ("default", ("default",)),
                ("singles", FINDINGS),
            )
        ),
    ]
    assert "comparison/seeds-*" in said


def test_killed_at_every_step_it_ends_as_if_it_never_was(
    start: Start, data: Path, tmp_path: Path
) -> None:
    """Twice in each training, once in each page and comparison; the same files in the end."""
    status, said = finish(start(data, "whole", "--smoke"))
    assert status == 0, said
    assert "comparison/seeds-*" not in said  # --smoke has one seed
    kills = 0
    while (ended := finish(start(data, "out", "--smoke", stand_in="kill")))[0] != 0:
        assert ended[0] == -signal.SIGKILL, ended[1]
        kills += 1
    assert kills == 2 * 5 + 6 + 1
    contents = [
        {
            str(f.relative_to(tmp_path / folder)): f.read_text()
            for f in (tmp_path / folder).rglob("*")
            if f.is_file() and f.name != "log.txt"
        }
        for folder in ("whole", "out")
    ]
    assert contents[0] == contents[1]


def test_what_is_built_on_another_training_is_built_again(
    start: Start, data: Path, tmp_path: Path
) -> None:
    """A network is trained anew: the pages and comparisons that read it are written anew too."""
    assert finish(start(data, "out", "--smoke"))[0] == 0
    calls(tmp_path)
    for file in (tmp_path / "out").rglob("*"):  # no clock is too coarse to tell before from after
        os.utime(file, (0, 0))
    shutil.rmtree(tmp_path / "out" / "reference" / "seed0")
    assert finish(start(data, "out", "--smoke"))[0] == 0
    asked = calls(tmp_path)
    assert of("train", asked) == ["reference/seed0"]
    assert of("evaluate", asked) == ["reference/seed0/report", "report"]
    assert of("compare", asked) == ["comparison/systems"]

    shutil.rmtree(tmp_path / "out" / "acl" / "seed0")  # the others are compared with it
    assert finish(start(data, "out", "--smoke"))[0] == 0
    asked = calls(tmp_path)
    assert of("train", asked) == ["acl/seed0"]
    assert of("evaluate", asked) == ["reference/seed0/report", "acl/seed0/report", "report"]
    assert of("compare", asked) == ["comparison/systems"]

    assert finish(start(data, "out", "--smoke"))[0] == 0
    assert {words[0] for words in calls(tmp_path)} == {"check"}


@pytest.mark.parametrize(
    ("send", "number"),
    [(os.kill, signal.SIGTERM), (os.killpg, signal.SIGTERM), (os.killpg, signal.SIGINT)],
    ids=["kill", "timeout", "Ctrl-C"],
)
def test_a_signal_ends_it_and_its_training(
    send: Callable[[int, int], None], number: int, start: Start, data: Path, tmp_path: Path
) -> None:
    """Sent to the script alone or to all: the training is gone with it, and nothing comes after."""
    script = start(data, "out", "--smoke", stand_in="wait")
    wait_for(tmp_path / "out" / "reference" / "seed0" / "pid", script)
    training = int((tmp_path / "out" / "reference" / "seed0" / "pid").read_text())
    os.kill(training, 0)  # it is there
    send(script.pid, number)
    status, said = finish(script)
    assert status == 128 + number
    assert GO_ON in said.splitlines()[-1]
    with pytest.raises(ProcessLookupError):
        os.kill(training, 0)
    assert of("train", calls(tmp_path)) == ["reference/seed0"]


@pytest.mark.parametrize("how", ["fail", "quit"])
def test_a_training_that_ends_before_it_is_complete_ends_the_script(
    how: str, start: Start, data: Path, tmp_path: Path
) -> None:
    """By an error or by a SIGTERM of its own: exit status 1, and what to do."""
    status, said = finish(start(data, "out", "--smoke", stand_in=how))
    assert status == 1
    assert GO_ON in said
    assert len(calls(tmp_path)) == 3  # two checks, one training


@pytest.mark.parametrize("missing", [["train-acl.csv"], ["train-acl.csv", "valid-acl.csv"]])
def test_a_label_file_that_was_missing_can_be_added(
    missing: list[str], start: Start, data: Path, tmp_path: Path
) -> None:
    """Told by name, nothing is trained; with the files there the same command works."""
    for name in missing:
        (data / name).unlink()
    status, said = finish(start(data, "out", "--smoke"))
    assert status == 1
    assert f"the protocol needs {data / missing[0]}" in said
    assert GO_ON not in said
    assert [words[0] for words in calls(tmp_path)] == ["check"]
    for name in missing:
        (data / name).touch()
    status, said = finish(start(data, "out", "--smoke"))
    assert status == 0, said


def test_a_folder_belongs_to_one_data_set_and_one_protocol(
    start: Start, data: Path, tmp_path: Path
) -> None:
    """The full protocol where --smoke was, or other data: refused, and nothing is changed."""
    assert finish(start(data, "out", "--smoke"))[0] == 0
    before = identities(tmp_path / "out")
    other = shutil.copytree(data, tmp_path / "other")
    for words in ((data, "out"), (other, "out", "--smoke")):
        status, said = finish(start(*words))
        assert status == 1
        assert "belongs to something else" in said
        assert GO_ON not in said
    after = identities(tmp_path / "out")
    assert after.keys() == before.keys()
    changed = {name for name, state in after.items() if before[name] != state}
    assert changed <= {"protocol.txt", "log.txt", ".lock"}


def test_two_at_once_are_refused(start: Start, data: Path, tmp_path: Path) -> None:
    """While one works in a folder, another that is started there says so and ends."""
    first = start(data, "out", "--smoke", stand_in="wait")
    wait_for(tmp_path / "out" / "reference" / "seed0" / "pid", first)
    status, said = finish(start(data, "out", "--smoke"))
    assert first.poll() is None
    assert status == 1
    assert "is in use" in said


def test_a_lock_that_cannot_be_had_is_not_told_as_in_use(
    start: Start, data: Path, tmp_path: Path
) -> None:
    """Here Python is broken; its words, and what to do."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shutil.copy(STAND_IN / "mrknee", folder)
    (folder / "python").write_text("#!/bin/sh\necho 'no Python here'\nexit 1\n")
    (folder / "python").chmod(0o755)
    status, said = finish(start(data, "out", "--smoke", mrknee=folder))
    assert status == 1
    assert "no Python here" in said
    assert "can't be locked" in said
    assert "is in use" not in said


def test_it_finds_its_folders_whatever_cdpath_says(
    start: Start, data: Path, tmp_path: Path
) -> None:
    """With a CDPATH in the environment, cd would say where it goes, or go elsewhere."""
    (tmp_path / "elsewhere" / data.name).mkdir(parents=True)
    for cdpath in (f".:{tmp_path}", str(tmp_path / "elsewhere")):
        status, said = finish(start(data.name, "out", "--smoke", CDPATH=cdpath))
        assert status == 0, said
        assert f"{data} -> {tmp_path / 'out'} " in said


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ((), 2, "DATA is missing"),
        (("nowhere",), 1, "there is no folder nowhere"),
        (("a", "b", "c"), 2, "one word too many"),
        (("a", "--fast"), 2, "unknown option --fast"),
        (("--help",), 0, "usage: runs/mrnet.sh"),
        ((".", "killed/file"), 1, "killed/file can't be a folder: name another for OUT"),
    ],
)
def test_a_command_line_that_is_wrong_is_told(
    start: Start, tmp_path: Path, words: tuple[str, ...], status: int, says: str
) -> None:
    """What is wrong, in one line, and nothing is written."""
    (tmp_path / "killed" / "file").touch()
    ended, said = finish(start(*words))
    assert ended == status
    assert says in said
