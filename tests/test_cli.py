"""The command line as a user runs it: real files, and real processes if the test is about them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mrknee.cli import COMMANDS, main
from mrknee.exams import PLANES
from tests.conftest import write_toy_dataset
from tests.inference.test_torch_model import make_model
from tests.processes import mrknee, start

pytestmark = pytest.mark.slow

QUICK = """
network: {encoder: test_resnet, shared_encoder: true}
weights: none
preparation: {size: 48, crop: 48}
optimizer: {name: adamw, learning_rate: 1.0e-3}
selection: {part: inner, fraction: 0.34, early_stop: 0}
epochs: 2
batch_exams: 3
workers: 0
"""


def run(*words: object) -> int:
    """Runs the command in this process; returns its exit status."""
    try:
        return main(list(map(str, words)))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that trains in seconds."""
    file = tmp_path / "quick.yaml"
    file.write_text(QUICK)
    return file


HEAVY = {"torch", "torchvision", "timm", "numpy", "scipy", "sklearn", "jaxtyping", "onnxruntime"}
HEAVY |= {"PIL", "fastapi", "pydicom", "nibabel", "rich", "pandas", "matplotlib", "lightning"}

LOADED = """
import json, sys
import mrknee
from mrknee.cli import COMMANDS, main
loaded = {"import": list(sys.modules)}
for command in ("", *(name for name in COMMANDS if name != "train"), "train"):
    try:
        main([command, "--help"] if command else ["--help"])
    except SystemExit as end:
        assert end.code == 0
    loaded[command] = list(sys.modules)
print(json.dumps(loaded))
"""


def test_help_imports_nothing_heavy() -> None:
    """No `--help` imports numpy or torch, and only that of `train` imports pydantic."""
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert set(loaded) == {"import", "", *COMMANDS}
    for command, modules in loaded.items():
        packages = {name.partition(".")[0] for name in modules}
        assert not packages & HEAVY, command
        assert ("pydantic" in packages) == (command == "train"), command
        assert "mrknee.exams" not in modules, command
    assert all(f"  {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`mrknee COMMAND --help` prints the usage with exit status 0."""
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert "usage: mrknee " + command in capsys.readouterr().out


def test_train_predict_evaluate_submit(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands from exams to AUCs in the README work."""
    data = write_toy_dataset(tmp_path / "toy", 12, 6)
    assert run("train", data, "--out", tmp_path / "run", "--recipe", recipe) == 0
    assert "95 % interval" in capsys.readouterr().out
    assert run("predict", tmp_path / "run", data, "--out", tmp_path / "p.csv") == 0
    assert (tmp_path / "p.csv").read_text() == (
        tmp_path / "run" / "predictions-valid.csv"
    ).read_text()
    model, table = ["--model", str(tmp_path / "run")], [str(tmp_path / "p.csv"), str(data)]
    assert main(["evaluate", *table, *model, "--out", str(tmp_path / "scores")]) == 0
    assert "Research use only" in (tmp_path / "scores" / "report.html").read_text()
    ours = json.loads((tmp_path / "scores" / "scorecard.json").read_text())
    trainings = json.loads((tmp_path / "run" / "scorecard.json").read_text())
    assert ours["findings"] == trainings["findings"]
    assumed = ["--prevalence", "acl=0.1,meniscus=0.2", "--out", str(tmp_path / "assumed")]
    assert main(["evaluate", *table, *model, *assumed]) == 0
    acl = json.loads((tmp_path / "assumed" / "scorecard.json").read_text())["findings"]["acl"]
    assert {point["at_prevalence"]["prevalence"] for point in acl["operating"]} == {0.1}
    planes = ("sagittal", "coronal", "axial")
    listing = tmp_path / "paths.csv"
    listing.write_text("".join(f"{data}/valid/{p}/0012.npy\n" for p in planes))
    assert main(["submit", str(tmp_path / "run"), str(listing), str(tmp_path / "s.csv")]) == 0
    assert np.loadtxt(tmp_path / "s.csv", delimiter=",").shape == (3,)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set, and a run folder with a network of random weights and no decisions."""
    root = tmp_path_factory.mktemp("model")
    return write_toy_dataset(root / "toy", 1, 6), make_model(root / "run")


def test_compare_prints_and_writes_the_comparison(
    model: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two models, one of them in two files, give a table and comparison.json."""
    data, run_folder = model
    whole, halves = tmp_path / "whole.csv", [tmp_path / "acl.csv", tmp_path / "rest.csv"]
    assert main(["predict", str(run_folder), str(data), "--out", str(whole)]) == 0
    exams, acl = np.loadtxt(whole, str, delimiter=",")[1:, [0, 2]].T
    halves[0].write_text(
        "exam,acl\n" + "".join(f"{i},{1 - float(p)}\n" for i, p in zip(exams, acl, strict=True))
    )
    halves[1].write_text("exam,meniscus\n" + "".join(f"{i},0.5\n" for i in exams))
    words = [str(whole), ",".join(map(str, halves)), str(data), "--out", str(tmp_path / "c")]
    assert main(["compare", *words]) == 0
    assert "Holm" in capsys.readouterr().out
    found = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert [one["name"] for one in found["models"]] == ["whole", "acl + rest"]
    assert {one["finding"] for one in found["differences"]} == {"acl", "meniscus"}
    first, second = (one["findings"]["acl"]["value"] for one in found["models"])
    assert first == pytest.approx(1 - second)


def test_explain_writes_numbers_images_and_a_page(
    model: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Explain writes numbers, images and a page; an unknown exam is an error without output."""
    data, run_folder = model
    words = ["explain", str(run_folder), str(data), "--exam", "0003", "--out"]
    assert main([*words, str(tmp_path / "why")]) == 0
    assert "wrote" in capsys.readouterr().out
    names = {file.name for file in (tmp_path / "why").iterdir()}
    assert {"index.html", "explanation.npz", "explanation.json", "contact-acl.png"} <= names
    assert main([*words[:-2], "9999", "--out", str(tmp_path / "none")]) == 1
    assert "9999" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_exit_status_of_check(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 0 without errors and 1 with an error; --json lists the problems."""
    assert main(["check", str(toy)]) == 0
    (toy / "train" / "axial" / "0003.npy").write_bytes(b"not an array")
    capsys.readouterr()
    assert main(["check", str(toy), "--json"]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [p["exam"] for p in problems if p["severity"] == "error"] == ["0003"]


@pytest.mark.parametrize(
    "prevalence", ["acl", "acl=much", "acl=1.5", "=0.2", "acl=0.1,acl=0.2", "acl=nan"]
)
def test_invalid_prevalence_is_a_usage_error(prevalence: str) -> None:
    """An invalid --prevalence ends with exit status 2 before any file is read."""
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "p.csv", "data", "--out", "s", "--prevalence", prevalence])
    assert end.value.code == 2


def test_settings_are_changed_on_the_command_line(tmp_path: Path, recipe: Path) -> None:
    """Dotted settings, with dashes or underscores, override those of the recipe."""
    data = write_toy_dataset(tmp_path / "toy", 12, 6)
    words = ["train", str(data), "--out", str(tmp_path / "run"), "--recipe", str(recipe)]
    words += ["--network.slice-pooling", "mean", "--findings", "acl", "--epochs", "1"]
    assert main(words) == 0
    settings = (tmp_path / "run" / "settings.yaml").read_text()
    assert "slice_pooling: mean" in settings
    assert "encoder: test_resnet" in settings
    assert json.loads((tmp_path / "run" / "scorecard.json").read_text())["findings"].keys() == {
        "acl"
    }


def test_values_with_dashes_and_switches_without_value(tmp_path: Path, recipe: Path) -> None:
    """`--out=my-run`, `1e-4` and `--allow-missing-plane` are parsed correctly."""
    data = write_toy_dataset(tmp_path / "toy", 12, 6)
    (data / "train" / "axial" / "0002.npy").unlink()
    words = [f"--out={tmp_path}/my-run", "--optimizer.learning-rate=1e-4", "--allow-missing-plane"]
    assert main(["train", str(data), *words, "--recipe", str(recipe), "--epochs", "1"]) == 0
    settings = (tmp_path / "my-run" / "settings.yaml").read_text()
    assert "learning_rate: 0.0001" in settings
    assert "allow_missing_plane: true" in settings


def test_error_is_one_message_without_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An error that the user can correct is printed to standard error, with exit status 1."""
    assert main(["predict", str(tmp_path), str(tmp_path), "--out", str(tmp_path / "p.csv")]) == 1
    printed = capfd.readouterr().err
    assert printed.startswith("mrknee predict: ")
    assert "Traceback" not in printed


def test_file_in_place_of_an_output_folder_is_named(
    model: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command that would write below a file names that file in its error."""
    data, run_folder = model
    table, file = tmp_path / "p.csv", tmp_path / "file"
    file.write_text("mine")
    main(["predict", str(run_folder), str(data), "--out", str(table)])
    for words in (
        ["phantom", str(file), "--train", "1", "--valid", "1"],
        ["train", str(data), "--out", str(file)],
        ["evaluate", str(table), str(data), "--out", str(file)],
        ["compare", str(table), str(table), str(data), "--out", str(file)],
        ["explain", str(run_folder), str(data), "--exam", "0003", "--out", str(file / "below")],
        ["predict", str(run_folder), str(data), "--out", str(file / "below.csv")],
    ):
        capsys.readouterr()
        assert main(words) == 1
        printed = capsys.readouterr().err
        assert str(file) in printed
        assert "Errno" not in printed
    assert file.read_text() == "mine"


def test_error_in_a_worker_process_is_one_message(
    tmp_path: Path, recipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A damaged exam that a worker process reads while training gives one error message."""
    data = write_toy_dataset(tmp_path / "toy", 12, 6)
    broken = data / "train" / "axial" / "0005.npy"
    broken.write_bytes(broken.read_bytes()[:150])
    words = ["--recipe", str(recipe), "--workers", "2"]
    assert main(["train", str(data), "--out", str(tmp_path / "run"), *words]) == 1
    printed = capfd.readouterr().err
    assert str(broken) in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "mrknee: a command is required, such as check, train or predict"),
        ("zzz", "mrknee: no such command: zzz\n"),
        ("trian DATA", "mrknee: no such command: trian; did you mean train?"),
        ("infer RUN DATA", "mrknee: no such command: infer; did you mean predict?"),
        ("--verson", "mrknee: no such option: --verson; did you mean --version?"),
        ("predict --fast", "mrknee predict: no such option: --fast\n"),
        ("predict RUN DATA --output x.csv", "no such option: --output; did you mean --out?"),
        ("submit RUN A B --num_threads 4", "no such option: --num_threads; did you mean --threads"),
        ("explain RUN D --id 7 --out O", "no such option: --id; did you mean --exam?"),
        ("export RUN --quantize --out x", "no such option: --quantize; did you mean --int8?"),
        ("serve RUN --prot 80", "no such option: --prot; did you mean --port?"),
        ("check DATA --jsn", "no such option: --jsn; did you mean --json?"),
        ("import A B --keep_map x", "no such option: --keep_map; did you mean --keep-map?"),
        ("phantom D --random_state 3", "--random_state; did you mean --seed?"),
        ("predict RUN", "the following arguments are required: exams, --out"),
        (
            "train DATA --out RUN --batch_size 4",
            "no such option: --batch_size; did you mean --batch_exams",
        ),
    ],
)
def test_invalid_command_lines_give_two_lines(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, with the error, a suggestion, and how to get help."""
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 2


def test_an_empty_path_in_a_list_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A comma at the end of a list of models doesn't mean the current folder."""
    assert main(["predict", f"{tmp_path},", str(tmp_path), "--out", str(tmp_path / "p.csv")]) == 1
    assert "remove the comma that is not followed by a path" in capsys.readouterr().err


def test_options_may_be_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    """The beginning of an option's name is accepted, as in argparse."""
    assert main(["encoders", "--js"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "RUN", "DATA", "--out", "OUT/x.csv", "--threads", "100000"],
        ["submit", "RUN", "PATHS", "OUT/x.csv", "--threads", "0"],
        ["serve", "RUN", "--threads", "100000"],
        ["train", "DATA", "--out", "OUT", "--seed", "18446744073709551616"],
        ["train", "DATA", "--out", "OUT", "--workers", "1000000"],
        ["phantom", "OUT", "--train", "1", "--valid", "1", "--seed", "-1"],
        ["phantom", "OUT", "--train", "1", "--valid", "1", "--seed", "18446744073709551616"],
        ["demo", "--out", "OUT", "--seed", "18446744073709551616"],
    ],
)
def test_number_out_of_range_is_one_message(
    words: list[str], toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seeds and numbers of threads and processes are checked before files are read or written."""
    out, model = tmp_path / "out", make_model(tmp_path / "run")
    (tmp_path / "paths.csv").write_text("\n".join(map(str, sorted(toy.rglob("valid/*/0012.npy")))))
    names = {"RUN": model, "DATA": toy, "PATHS": tmp_path / "paths.csv", "OUT": out}
    arguments = [str(names.get(word, word)).replace("OUT/", f"{out}/") for word in words]
    assert main(arguments) == 1
    printed = capsys.readouterr().err
    assert "can't be used" in printed
    assert "expected: a whole number from" in printed
    assert not out.exists()


def test_unknown_setting_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting that doesn't exist is rejected before any file is read."""
    out = tmp_path / "run"
    assert run("train", tmp_path, "--out", out, "--network.encodr", "alexnet") == 2
    assert "encodr" in capsys.readouterr().err
    assert not out.exists()


def test_encoders_as_json() -> None:
    """`encoders --json` lists the encoders without importing torch."""
    code = "import sys, mrknee.cli\nmrknee.cli.main(['encoders', '--json'])\n"
    code += "assert not {'torch', 'timm'} & set(sys.modules)"
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    names = [entry["name"] for entry in json.loads(done.stdout)]
    assert {"alexnet", "vgg16", "resnet50"} <= set(names)


def test_killed_training_can_be_resumed(tmp_path: Path, recipe: Path) -> None:
    """After SIGKILL and --resume, the weights are those of an uninterrupted run."""
    data = write_toy_dataset(tmp_path / "toy", 12, 6)
    words = [str(data), "--recipe", str(recipe), "--epochs", "6"]
    assert main(["train", *words, "--out", str(tmp_path / "whole")]) == 0
    killed = tmp_path / "killed"
    process = start(mrknee, "train", *words, "--out", killed)
    deadline = time.monotonic() + 120
    while not (killed / "resume" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert not (killed / "scorecard.json").exists(), "killed too late to show anything"
    assert main(["train", *words, "--out", str(killed), "--resume"]) == 0
    for name in ("last/weights.safetensors", "best/weights.safetensors", "metrics.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (killed / name).read_bytes(), name


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are killed after the test if they still run."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("moment", ["importing", "training"])
def test_interrupted_training_prints_how_to_continue(
    moment: str, tmp_path: Path, recipe: Path, ended: list[subprocess.Popen[str]]
) -> None:
    """Ctrl-C, sent to all processes as by a terminal, gives exit status 130 and one line."""
    data, out = write_toy_dataset(tmp_path / "toy", 12, 6), tmp_path / "run"
    words = [str(data), "--recipe", str(recipe), "--out", str(out), "--epochs"]
    workers = ["--workers", "2", "--save_every", "1"]
    process = subprocess.Popen(  # noqa: S603  # our own command
        [sys.executable, "-X", "importtime", "-m", "mrknee", "train", *words, "500", *workers],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # processes started in the background may ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    ended.append(process)
    mark = "mrknee.training.recipe_yaml" if moment == "importing" else "mrknee.training.run"
    next(line for line in process.stderr if mark in line)
    while moment == "training" and not (out / "resume" / "last.ckpt").exists():
        process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    lines = [line for line in errors.splitlines() if line]
    lines = [line for line in lines if not line.startswith(("import time:", "training: "))]
    assert process.returncode == 130
    assert lines == [
        "mrknee train: interrupted; run the same command again with --resume to continue"
    ]
    if moment == "importing":
        assert not out.exists()
        return
    assert not (out / "scorecard.json").exists()
    assert not list(out.rglob(".*.[0-9]*")), "half-written files"


def test_terminated_training_is_not_finished(tmp_path: Path, recipe: Path) -> None:
    """SIGTERM, as sent by a scheduler, gives exit status 143 and advises --resume."""
    data = write_toy_dataset(tmp_path / "toy", 12, 6)
    words = [data, "--recipe", recipe, "--epochs", 500, "--out", tmp_path / "run"]
    process = start(mrknee, "train", *words, stderr=tmp_path / "errors")
    deadline = time.monotonic() + 240
    while not (tmp_path / "run/resume/last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    process.join()
    assert process.exitcode == 143
    assert "--resume" in (tmp_path / "errors").read_text()
    assert not (tmp_path / "run" / "scorecard.json").exists()


def test_predict_and_submit_write_remarks_next_to_the_table(
    model: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A black series gives a warning and a row in the table of remarks; predictions are written."""
    source, run_folder = model
    data = shutil.copytree(source, tmp_path / "toy")
    stack = np.load(data / "valid" / "coronal" / "0002.npy")
    np.save(data / "valid" / "coronal" / "0002.npy", np.zeros_like(stack))
    (data / "valid" / "axial" / "0009.npz").write_bytes(b"")
    out = tmp_path / "p.csv"
    assert main(["predict", str(run_folder), str(data), "--out", str(out)]) == 0
    printed = capsys.readouterr().err
    assert "0002: coronal: each of its" in printed
    assert "1 file is not read" in printed
    assert "0009.npz" in printed
    assert str(tmp_path / "p-remarks.csv") in printed
    assert len(out.read_text().splitlines()) == 7
    header, line = (tmp_path / "p-remarks.csv").read_text().splitlines()
    assert header == "exam,series,code,remark"
    assert line.startswith("0002,coronal,all-zero,")
    planes = ("sagittal", "coronal", "axial")
    paths = tmp_path / "paths.csv"
    paths.write_text("".join(f"{data}/valid/{p}/0002.npy\n" for p in planes))
    assert main(["submit", str(run_folder), str(paths), str(tmp_path / "s.csv")]) == 0
    assert "0002: coronal: each of its" in capsys.readouterr().err
    assert (tmp_path / "s-remarks.csv").exists()
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 1


def test_explain_and_evaluate_report_implausible_exams(
    model: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON, page, scorecard and report state what is implausible about an exam."""
    source, run_folder = model
    data = shutil.copytree(source, tmp_path / "toy")
    stack = np.load(data / "valid" / "coronal" / "0002.npy")
    np.save(data / "valid" / "coronal" / "0002.npy", np.full_like(stack, 7))
    words = ["explain", str(run_folder), str(data), "--exam", "0002", "--out", str(tmp_path / "e")]
    assert main(words) == 0
    assert "coronal: each of its" in capsys.readouterr().err
    explanation = json.loads((tmp_path / "e" / "explanation.json").read_text())
    assert [remark["code"] for remark in explanation["remarks"]] == ["constant"]
    assert "<li>coronal: each of its" in (tmp_path / "e" / "index.html").read_text()
    assert main(["predict", str(run_folder), str(data), "--out", str(tmp_path / "p.csv")]) == 0
    words = ["--model", str(run_folder), "--out", str(tmp_path / "s")]
    assert main(["evaluate", str(tmp_path / "p.csv"), str(data), *words]) == 0
    note = "1 of these 6 exams are implausible: 0002: constant"
    assert note in json.loads((tmp_path / "s" / "scorecard.json").read_text())["notes"]
    assert note in (tmp_path / "s" / "report.html").read_text()


def test_stacks_with_another_order_of_axes_need_the_option(
    model: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such stacks are refused by each command; with --axes they give the same predictions."""
    source, run_folder = model
    right, wrong = tmp_path / "right.csv", tmp_path / "wrong.csv"
    predict = ["predict", str(run_folder)]
    assert main([*predict, str(source), "--out", str(right)]) == 0
    data = shutil.copytree(source, tmp_path / "toy")
    for file in data.glob("*/*/*.npy"):
        np.save(file, np.moveaxis(np.load(file), 0, 2))
    planes = ("sagittal", "coronal", "axial")
    paths = tmp_path / "paths.csv"
    paths.write_text("".join(f"{data}/valid/{p}/0002.npy\n" for p in planes))
    out = str(tmp_path / "out")
    for words in (
        [*predict, str(data), "--out", str(wrong)],
        ["explain", str(run_folder), str(data), "--exam", "0002", "--out", out],
        ["submit", str(run_folder), str(paths), out],
        ["evaluate", str(right), str(data), "--model", str(run_folder), "--out", out],
    ):
        capsys.readouterr()
        assert main(words) == 1
        assert "--axes rows,cols,slices" in capsys.readouterr().err
        assert not wrong.exists()
    assert main(["check", str(data)]) == 1
    assert "other-axes" in capsys.readouterr().out
    assert main([*predict, str(data), "--out", str(wrong), "--axes", "rows,cols,slices"]) == 0
    assert wrong.read_text() == right.read_text()
    as_usual = [*predict, str(data), "--out", str(wrong), "--axes", "slices,rows,cols"]
    assert main(as_usual) == 0
    assert "[other-axes]" in capsys.readouterr().err
    assert main(["train", str(data), "--out", out, "--recipe", "small"]) == 1
    assert "--axes rows,cols,slices" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["x" * 3000, "a/" * 1500, "a/" * 3000, "a\0b"])
@pytest.mark.parametrize(
    "command",
    [
        "predict RUN DATA --out",
        "explain RUN DATA --exam 0001 --out",
        "export RUN --out",
        "submit RUN PATHS",
        "evaluate PREDICTIONS DATA --out",
        "compare PREDICTIONS PREDICTIONS DATA --out",
        "phantom --train 1 --valid 1",
        "import DATA",
        "train DATA --weights none --network.encoder test_resnet --out",
        "check",
        "serve",
    ],
)
def test_impossible_path_is_one_message(
    model: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    out: str,
) -> None:
    """Names and nested folders of 3,000 characters, and NUL, are errors; nothing is written."""
    monkeypatch.chdir(tmp_path)
    data, run_folder = model
    (tmp_path / "p.csv").write_text("exam,acl\n0001,0.5\n")
    known = {"RUN": str(run_folder), "DATA": str(data)}
    known |= {"PREDICTIONS": str(tmp_path / "p.csv"), "PATHS": str(tmp_path / "paths.csv")}
    lines = [str(data / "valid" / plane / "0001.npy") for plane in PLANES]
    (tmp_path / "paths.csv").write_text("\n".join(lines))
    assert main([*(known.get(word, word) for word in command.split()), out]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"mrknee {command.split()[0]}: ")
    assert len(printed) < 5000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.csv", "paths.csv"]
