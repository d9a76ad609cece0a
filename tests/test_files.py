from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mrknee.errors import MrkneeError
from mrknee.files import LOCK, clear_half_written, owned_folder, whole_file, whole_files


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    """Folders are made, and only the finished file is there."""
    path = tmp_path / "new" / "a.txt"
    with whole_file(path) as beside:
        beside.write_text("done")
        assert not path.exists()
    assert path.read_text() == "done"
    assert list(path.parent.iterdir()) == [path]


def test_after_a_failure_the_old_file_is_still_there(tmp_path: Path) -> None:
    """An error while writing leaves what was there before, and nothing beside it."""
    path = tmp_path / "a.txt"
    path.write_text("before")

    def fail_halfway() -> None:
        with whole_file(path) as beside:
            beside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_on_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced, then renamed, then its folder is synced; new folders are synced too."""
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        done.append("content" if name.startswith(".") else f"folder {name}")
        fsync(descriptor)

    def replaced(path: Path, target: Path) -> Path:
        done.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    with whole_file(tmp_path / "new" / "a.txt") as beside:
        beside.write_text("done")
    assert done == [f"folder {tmp_path.name}", "content", "rename", "folder new"]


def test_several_files_take_their_places_when_all_are_written(tmp_path: Path) -> None:
    """A failure while the second is written leaves the first as it was."""
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("before")

    def fail_at_the_second() -> None:
        with whole_files(a, b) as (first, _):
            first.write_text("new")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        fail_at_the_second()
    assert caught.value.filename == str(a)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert a.read_text() == "before"
    with whole_files(a, b) as (first, second):
        first.write_text("1")
        second.write_text("2")
    assert (a.read_text(), b.read_text()) == ("1", "2")


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    """Nothing half-written is ever beside the link, and the link still leads there."""
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "a.txt", tmp_path / "a.txt"
    target.write_text("before")
    link.symlink_to("far/a.txt")
    with whole_file(link) as beside:
        assert beside.parent == target.parent.resolve()
        beside.write_text("after")
    assert link.is_symlink()
    assert target.read_text() == "after"


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder", "dangling", "loop"])
def test_only_regular_files_are_replaced(kind: str, tmp_path: Path) -> None:
    """Pipes, sockets, devices, folders and links that lead nowhere are refused, and stay."""
    path = tmp_path / "out"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif kind == "device":
        path = Path("/dev/null")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere" if kind == "dangling" else "out")
    before = path.lstat()
    with pytest.raises(MrkneeError, match="the output can't be written") as caught:
        whole_file(path).__enter__()
    assert caught.value.file == str(path)
    assert path.lstat().st_ino == before.st_ino
    assert path.lstat().st_mode == before.st_mode


def test_an_error_never_names_the_hidden_file(tmp_path: Path) -> None:
    """What the system says of the file beside is said of the file that was asked for."""
    with pytest.raises(OSError, match="No such file") as caught, whole_file(tmp_path / "a") as one:
        one.read_bytes()
    assert caught.value.filename == str(tmp_path / "a")


def test_a_long_name_can_be_written(tmp_path: Path) -> None:
    """The name beside it is not longer than the system allows."""
    path = tmp_path / ("a" * 255)
    with whole_file(path) as beside:
        beside.write_text("done")
    assert path.read_text() == "done"
    with whole_file(path) as beside:
        beside.with_name(beside.name).write_text("half")
        clear_half_written(tmp_path)
        assert not beside.exists()
        beside.write_text("done")


OWNER = """
import sys, time
from pathlib import Path
from mrknee.files import owned_folder
with owned_folder(Path(sys.argv[1])):
    print("mine", flush=True)
    if "fork" in sys.argv:
        import os
        if os.fork() == 0:
            time.sleep(60)
    time.sleep(60)
"""


def own(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A process that owns the folder until it is killed."""
    command = [sys.executable, "-c", OWNER, str(folder), *words]
    process = subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == "mine\n"
    return process


def test_a_folder_has_one_owner_until_that_ends(tmp_path: Path) -> None:
    """The second is refused with the first's process; a kill leaves no lock, nor do its forks."""
    folder = tmp_path / "above" / "out"
    owner = own(folder, "fork")
    try:
        with pytest.raises(MrkneeError, match="another process") as caught:
            owned_folder(folder).__enter__()
        assert caught.value.file == str(folder)
        assert f"process {owner.pid} on {socket.gethostname()}" == caught.value.found
        os.kill(owner.pid, signal.SIGKILL)  # not its fork
        owner.wait()
        assert (folder / LOCK).exists(), "a kill can't tidy up"
        with owned_folder(folder):
            (folder / "a").write_text("written")
    finally:
        with contextlib.suppress(ProcessLookupError):  # its fork may have ended by itself
            os.killpg(owner.pid, signal.SIGKILL)
    assert [file.name for file in folder.iterdir()] == ["a"]


def test_owners_come_one_after_the_other(tmp_path: Path) -> None:
    """A folder that was made and got nothing is removed; in one process there is one owner too."""
    folder = tmp_path / "above" / "out"
    with owned_folder(folder), pytest.raises(MrkneeError, match="another process"):
        owned_folder(folder).__enter__()
    assert not (tmp_path / "above").exists()


@pytest.mark.parametrize("kind", ["hard link", "link", "pipe", "folder"])
def test_what_lies_in_the_locks_place_stays(kind: str, tmp_path: Path) -> None:
    """The lock is written and removed; another file that has its name is neither."""
    mine, lock = tmp_path / "mine", tmp_path / "out" / LOCK
    mine.write_text("a text that is longer than what an owner notes in a lock: " * 9)
    before = mine.read_text()
    lock.parent.mkdir()
    if kind == "hard link":
        lock.hardlink_to(mine)
    elif kind == "link":
        lock.symlink_to(mine)
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    with pytest.raises(MrkneeError, match="can't be written"):
        owned_folder(lock.parent).__enter__()
    assert os.path.lexists(lock)
    assert mine.read_text() == before


def test_many_that_want_a_folder_get_it_in_turn(tmp_path: Path) -> None:
    """No two of four processes own it at the same time, though each removes the lock's file."""
    code = """
import sys, time
from pathlib import Path
from mrknee.errors import MrkneeError
from mrknee.files import owned_folder
folder, done = Path(sys.argv[1]), 0
while done < 10:
    try:
        with owned_folder(folder):
            (folder / "inside").touch(exist_ok=False)
            (folder / "inside").unlink()
            done += 1
    except MrkneeError as error:
        assert "another process" in str(error), error
"""
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]  # noqa: S603
    for process in started:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told


if sys.platform == "win32":
    pytest.skip("links, pipes and locks as Linux has them", allow_module_level=True)
