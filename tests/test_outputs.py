from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mrknee.cli import main
from mrknee.errors import MrkneeError
from mrknee.files import LOCK, owned_folder
from mrknee.outputs import check_output_file, check_output_folder
from tests.conftest import write_toy_dataset
from tests.hostile import exported
from tests.hostile.test_interrupted import files, start


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, a run folder's files, an exported model and predictions."""
    here = tmp_path_factory.mktemp("inputs")
    data = write_toy_dataset(here / "data", 2, 2)
    ids = sorted(file.stem for file in (data / "valid" / "axial").glob("*.npy"))
    for name in (
        "run/settings.yaml",
        "run/split.csv",
        "run/scorecard.json",
        "run/data.json",
        "run/resume/last.ckpt",
        "run/tensorboard/events.1",
    ):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("a run's")
    for part in ("best", "last"):
        (here / "run" / part).mkdir()
        for name in ("model.json", "weights.safetensors"):
            (here / "run" / part / name).write_text("a run's")
    table = "exam,acl\n" + "".join(f"{exam_id},0.5\n" for exam_id in ids)
    (here / "p.csv").write_text(table)
    (here / "run" / "predictions-valid.csv").write_text(table)
    (here / "model.onnx").write_bytes(exported.GOOD)
    capitals = Path(shutil.copytree(data / "valid", here / "capitals" / "valid"))
    (capitals / "axial").rename(capitals / "Axial")
    (capitals / "Axial" / f"{ids[0]}.npy").rename(here / CAPITALS)
    paths = [f"{here}/data/valid/{p}/{ids[0]}.npy\n" for p in ("axial", "coronal", "sagittal")]
    (here / "paths.csv").write_text("".join(paths))
    return here


STACK = "data/valid/axial/0002.npy"
CAPITALS = "capitals/valid/Axial/0002.NPY"
REPLACING = {
    "predict over its model": ["predict", "model.onnx", "data", "--out", "model.onnx"],
    "predict over a run's weights": [
        *("predict", "run", "data", "--out", "run/best/weights.safetensors")
    ],
    "predict over a run's state": ["predict", "run", "data", "--out", "run/resume/last.ckpt"],
    "predict over labels": ["predict", "model.onnx", "data", "--out", "data/valid-acl.csv"],
    "predict over a stack": ["predict", "model.onnx", "data", "--out", STACK],
    "predict over a stack in capitals": [*("predict", "model.onnx", "capitals", "--out", CAPITALS)],
    "predict over another's stack in capitals": ["predict", "run", "data", "--out", CAPITALS],
    "predict over a run's record of its data": [
        *("predict", "run", "data", "--out", "run/data.json")
    ],
    "export over a run's curves": ["export", "run", "--out", "run/tensorboard/events.1"],
    "export over a lock": ["export", "run", "--out", "capitals/.mrknee-lock"],
    "predict into a plane's folder": [
        *("predict", "model.onnx", "data", "--out", "data/valid/axial/new.npy")
    ],
    "predict becoming labels": ["predict", "model.onnx", "data", "--out", "data/valid-new.csv"],
    "predict over another run's table": [
        *("predict", "model.onnx", "data/valid", "--out", "run/predictions-valid.csv")
    ],
    "submit over its list": ["submit", "model.onnx", "paths.csv", "paths.csv"],
    "submit over a listed stack": ["submit", "model.onnx", "paths.csv", STACK],
    "export over the data": [
        *("export", "run", "--int8", "--data", "data", "--out", "data/train-acl.csv")
    ],
    "export over the run": ["export", "run", "--out", "run/best/model.json"],
    "evaluate into the run": ["evaluate", "p.csv", "data", "--model", "run", "--out", "run"],
    "evaluate into a run beside its table": [
        *("evaluate", "run/predictions-valid.csv", "data", "--out", "run")
    ],
    "import over its source": [
        *("import", "data/valid-acl.csv", "new", "--keep-map", "data/valid-acl.csv")
    ],
    "import over a file of its source": ["import", "run", "new", "--keep-map", "run/split.csv"],
}


@pytest.mark.parametrize("words", REPLACING.values(), ids=REPLACING)
@pytest.mark.parametrize("through", ["its name", "a link", "a hard link", "another path"])
def test_no_command_replaces_its_input(
    words: list[str],
    through: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """By whatever name an input is given as output, the command fails and nothing changes."""
    monkeypatch.chdir(inputs)
    before = files(inputs)
    place = (
        words.index("--out" if "--out" in words else "--keep-map") + 1
        if "--" in "".join(words)
        else len(words) - 1
    )
    out = Path(words[place])
    if through == "a link":
        target, out = out, tmp_path / "link"
        if not target.exists():
            pytest.skip("a new name has no link")
        out.symlink_to(target.absolute())
    elif through == "a hard link":
        if not out.is_file():
            pytest.skip("a new name, or a folder, has no hard link")
        if "another" in request.node.name:
            pytest.skip("a hard link to a file that isn't read may be replaced")
        target, out = out, tmp_path / "link"
        out.hardlink_to(target)
    elif through == "another path":
        out = Path("run", "..", out)
    words = [*words[:place], str(out), *words[place + 1 :]]
    assert main(words) == 1
    printed = capsys.readouterr().err
    assert str(out) in printed
    assert files(inputs) == before
    assert not (inputs / "new").exists()


NEXT_TO_OUTPUT = {
    "predict": ["predict", "model.onnx", "data", "--out", "OUT/p.csv"],
    "submit": ["submit", "model.onnx", "paths.csv", "OUT/p.csv"],
    "explain": ["explain", "model.onnx", "data", "--exam", "0002", "--out", "OUT"],
}


@pytest.mark.parametrize("command", NEXT_TO_OUTPUT)
@pytest.mark.parametrize("kind", ["link to what is read", "folder", "pipe"])
def test_files_next_to_the_output_are_checked(
    command: str,
    kind: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The table of remarks and the images of a page are refused before any work."""
    monkeypatch.chdir(inputs)
    before = files(inputs)
    file = tmp_path / ("contact-acl.png" if command == "explain" else "p-remarks.csv")
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to(inputs / "model.onnx")
    assert main([word.replace("OUT", str(tmp_path)) for word in NEXT_TO_OUTPUT[command]]) == 1
    assert f"file: {file}\n" in capsys.readouterr().err
    assert files(inputs) == before
    assert list(tmp_path.iterdir()) == [file]


def test_remarks_do_not_become_labels(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Next to `valid.csv` the file `valid-remarks.csv` would be a label file of `remarks`."""
    monkeypatch.chdir(inputs)
    assert main(["predict", "model.onnx", "data", "--out", "data/valid.csv"]) == 1
    assert "file: data/valid-remarks.csv\n" in capsys.readouterr().err


def test_list_with_impossible_names_is_rejected(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Names with a NUL, too long names, and paths of folders or missing files are refused."""
    monkeypatch.chdir(inputs)
    for line in ("a\0b/axial/0002.npy", f"{'a' * 5000}/axial/0002.npy", "/", "data"):
        (tmp_path / "list.csv").write_text(f"{line}\n\n")
        assert main(["submit", "model.onnx", str(tmp_path / "list.csv"), "new.csv"]) == 1
        assert capsys.readouterr().err.startswith("mrknee submit: ")


def test_folder_mounted_twice_is_one_folder(inputs: Path, tmp_path: Path) -> None:
    """A new file in the folder of a plane is refused through another mount of the folder too."""
    plane = inputs / "data" / "valid" / "axial"
    mount = ["mount", "--bind", str(plane), str(tmp_path)]
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a folder")
    done = subprocess.run(mount, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        pytest.skip(f"no folder can be mounted here: {done.stderr.strip()}")
    try:
        with pytest.raises(MrkneeError, match="would replace"):
            check_output_file(tmp_path / "new.npy", [inputs / "data"])
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)  # noqa: S603, S607


@pytest.mark.parametrize(
    "out", ["data/p.csv", "run/extra.csv", "run/model.onnx", "data-predictions.csv", "far/new/p"]
)
def test_other_files_in_the_folder_of_an_input_may_be_written(out: str, inputs: Path) -> None:
    """A run folder or data set may receive files with names that it doesn't use."""
    check_output_file(inputs / out, [inputs / "run", inputs / "data"])
    check_output_folder(inputs / "run" / "scores", ["scorecard.json"], [inputs / "run"])
    check_output_folder(inputs / "run", ["comparison.json", "index.html"], [inputs / "run"])


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system that is read-only, even for root."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a file system")
    folder = tmp_path / "read-only"
    folder.mkdir()
    for options in ("size=1m", "remount,ro"):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            pytest.skip(f"no memory file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)  # noqa: S603, S607


def command_lines(out: Path) -> dict[str, list[str]]:
    """Returns the command line of each command that writes, with missing inputs."""
    to = str(out)
    return {
        "phantom": ["phantom", to, "--train", "1", "--valid", "1"],
        "import": ["import", "none", to],
        "import --keep-map": ["import", "none", "fresh", "--keep-map", to],
        "train": ["train", "none", "--out", to],
        "predict": ["predict", "none", "none", "--out", to],
        "submit": ["submit", "none", os.devnull, to],
        "evaluate": ["evaluate", "none", "none", "--out", to],
        "compare": ["compare", "none", "none", "none", "--out", to],
        "explain": ["explain", "none", "none", "--exam", "1", "--out", to],
        "validate-maps": ["validate-maps", "none", "none", "--out", to],
        "export": ["export", "none", "--out", to],
        "demo": ["demo", "--out", to],
        "experiment": ["experiment", "none", "none", to],
        "protocol": ["protocol", "none", to],
    }


COMMANDS = list(command_lines(Path()))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("below", ["out", "new/out"])
def test_read_only_disk_is_reported_before_any_work(
    command: str,
    below: str,
    read_only: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """The error is about the given output, not about the missing inputs."""
    out = read_only / below
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").touch()
    if command == "submit":
        (tmp_path / "list").touch()
    words = [word.replace(os.devnull, "list") for word in command_lines(out)[command]]
    assert main(words) == 1
    printed = capsys.readouterr().err
    assert f"file: {out}\n" in printed
    assert "a read-only file system" in printed
    assert "/." not in printed, "a hidden file's name"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["below a file", "pipe", "device", "link to nothing", "long"])
def test_impossible_output_is_rejected_before_any_work(
    command: str,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Files in place of folders, pipes, devices, links and invalid names are unchanged."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").touch()
    (tmp_path / "list").touch()
    out = tmp_path / "out"
    if kind == "below a file":
        out.write_text("mine")
        out = out / "below"
    elif kind == "pipe":
        os.mkfifo(out)
    elif kind == "device":
        out = Path("/dev/null")
    elif kind == "link to nothing":
        out.symlink_to("nowhere/at/all")
    else:
        out = tmp_path / ("a" * 3000)
    before = sorted(tmp_path.iterdir())
    words = [word.replace(os.devnull, "list") for word in command_lines(Path("OUT"))[command]]
    words = [str(out) if word == "OUT" else word for word in words]
    assert main(words) == 1
    printed = capsys.readouterr().err
    assert f"file: {out}"[:300] in printed
    assert sorted(tmp_path.iterdir()) == before
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    "command", ["phantom", "import", "train", "evaluate", "compare", "demo", "protocol"]
)
def test_folder_with_an_owner_is_rejected(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For every command that writes a folder, the message names folder and owning process."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").touch()
    out = tmp_path / "out"
    with owned_folder(out):
        assert main(command_lines(out)[command]) == 1
        assert [file.name for file in out.iterdir()] == [LOCK]
    printed = capsys.readouterr().err
    assert printed.startswith(f"mrknee {command}: another process is writing to this folder\n")
    assert f"file: {out}\n" in printed
    assert f"process {os.getpid()} on " in printed


@pytest.mark.slow
def test_only_one_of_two_processes_writes_a_folder(tmp_path: Path) -> None:
    """Of two phantoms written to one folder at once, one is complete and the other is refused."""
    words = ["--train", "4", "--valid", "0", "--size", "64", "--slice-factor", "0.2", "--seed"]
    started = [start(tmp_path, ["phantom", "out", *words, str(seed)]) for seed in (1, 2)]
    assert sorted(process.wait(timeout=200) for process in started) == [0, 1]
    (seed,) = [n for n, process in enumerate(started, start=1) if process.returncode == 0]
    assert main(["phantom", str(tmp_path / "alone"), *words, str(seed)]) == 0
    assert files(tmp_path / "out") == files(tmp_path / "alone")


def test_write_protected_file_is_not_replaced(tmp_path: Path) -> None:
    """A write-protected file isn't replaced, though its folder would allow it (except for root)."""
    file = tmp_path / "p.csv"
    file.write_text("mine")
    file.chmod(0o444)
    if os.access(file, os.W_OK):
        pytest.skip("root may write everywhere")
    with pytest.raises(MrkneeError, match="can't be written"):
        check_output_file(file)


def test_links_in_an_output_folder_are_checked(inputs: Path, tmp_path: Path) -> None:
    """An output that is a link to an input is refused; a link to another file is followed."""
    out = tmp_path / "scores"
    out.mkdir()
    (out / "report.html").symlink_to(inputs / "p.csv")
    with pytest.raises(MrkneeError, match="would replace"):
        check_output_folder(out, ["scorecard.json", "report.html"], [inputs / "p.csv"])
    check_output_folder(out, ["scorecard.json", "report.html"], [inputs / "data"])


def test_glob_characters_in_names_are_literal(tmp_path: Path) -> None:
    """An input named `[ab].csv` protects itself, not a.csv."""
    for name in ("[ab].csv", "a.csv"):
        np.savetxt(tmp_path / name, [1.0])
    check_output_file(tmp_path / "a.csv", [tmp_path / "[ab].csv"])
    with pytest.raises(MrkneeError, match="would replace"):
        check_output_file(tmp_path / "[ab].csv", [tmp_path / "[ab].csv"])


@pytest.mark.parametrize("name", ["series.csv", "findings.csv", "groups.csv", "sides.csv"])
def test_tables_of_a_data_set_are_not_replaced(inputs: Path, name: str) -> None:
    """A table written there would change how all exams are read."""
    with pytest.raises(MrkneeError, match="output"):
        check_output_file(inputs / "data" / name)
