from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest

from mrknee.errors import MrkneeError
from mrknee.files import (
    LOCK,
    atomic_write,
    atomic_writes,
    owned_folder,
    remove_incomplete,
    write_csv,
    write_text,
)


def test_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    """Folders are created, and only the finished file exists."""
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("done")
        assert not path.exists()
    assert path.read_text() == "done"
    assert list(path.parent.iterdir()) == [path]


def test_failure_keeps_the_old_file(tmp_path: Path) -> None:
    """An error while writing keeps the previous file and removes the temporary one."""
    path = tmp_path / "a.txt"
    path.write_text("before")

    def fail_halfway() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_text_and_tables_are_utf8_with_line_feeds(tmp_path: Path) -> None:
    """Text files and CSV files are written in UTF-8, with one line feed per line."""
    write_text(tmp_path / "a.txt", "Münster\n")
    write_csv(tmp_path / "a.csv", [("exam", "note"), ["0001", 'a "b", c'], (2, "")])
    assert (tmp_path / "a.txt").read_bytes() == "Münster\n".encode()
    assert (tmp_path / "a.csv").read_bytes() == b'exam,note\n0001,"a ""b"", c"\n2,\n'


def test_a_failing_table_keeps_the_old_file(tmp_path: Path) -> None:
    """An error while the rows are computed keeps the previous file."""
    file = tmp_path / "a.csv"
    write_csv(file, [("exam", "note")])
    with pytest.raises(ZeroDivisionError):
        write_csv(file, ((1 // number,) for number in (1, 0)))
    assert file.read_text() == "exam,note\n"
    assert list(tmp_path.iterdir()) == [file]


def test_contents_are_flushed_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is flushed, then renamed, then its folder is flushed; so are new folders."""
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
    with atomic_write(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("done")
    assert done == [f"folder {tmp_path.name}", "content", "rename", "folder new"]


def test_several_files_are_replaced_when_all_are_written(tmp_path: Path) -> None:
    """A failure while the second file is written leaves the first unchanged."""
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("before")

    def fail_at_the_second() -> None:
        with atomic_writes(a, b) as (first, _):
            first.write_text("new")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        fail_at_the_second()
    assert caught.value.filename == str(a)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert a.read_text() == "before"
    with atomic_writes(a, b) as (first, second):
        first.write_text("1")
        second.write_text("2")
    assert (a.read_text(), b.read_text()) == ("1", "2")


def test_target_of_a_link_is_replaced(tmp_path: Path) -> None:
    """The temporary file is next to the target, and the link is unchanged."""
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "a.txt", tmp_path / "a.txt"
    target.write_text("before")
    link.symlink_to("far/a.txt")
    with atomic_write(link) as temporary:
        assert temporary.parent == target.parent.resolve()
        temporary.write_text("after")
    assert link.is_symlink()
    assert target.read_text() == "after"


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "folder", "dangling", "loop"])
def test_only_regular_files_are_replaced(kind: str, tmp_path: Path) -> None:
    """Pipes, sockets, devices, folders and broken links are refused and unchanged."""
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
        atomic_write(path).__enter__()
    assert caught.value.file == str(path)
    assert path.lstat().st_ino == before.st_ino
    assert path.lstat().st_mode == before.st_mode


def test_errors_name_the_requested_file(tmp_path: Path) -> None:
    """An error of the system names the requested file."""
    with (
        pytest.raises(OSError, match="No such file") as caught,
        atomic_write(tmp_path / "a") as one,
    ):
        one.read_bytes()
    assert caught.value.filename == str(tmp_path / "a")


def test_long_names_can_be_written(tmp_path: Path) -> None:
    """The temporary name is not longer than the system allows."""
    path = tmp_path / ("a" * 255)
    with atomic_write(path) as temporary:
        temporary.write_text("done")
    assert path.read_text() == "done"
    with atomic_write(path) as temporary:
        temporary.with_name(temporary.name).write_text("half")
        remove_incomplete(tmp_path)
        assert not temporary.exists()
        temporary.write_text("done")


def test_old_temporary_files_of_subfolders_are_removed(tmp_path: Path) -> None:
    """With an age, files that another process may still be writing are kept."""
    old, new = tmp_path / "below" / ".a.npz.12", tmp_path / ".b.npz.34"
    kept = tmp_path / "below" / ".hidden"
    old.parent.mkdir()
    for file in (old, new, kept):
        file.write_text("half")
    os.utime(old, (0, 0))
    os.utime(kept, (0, 0))
    remove_incomplete(tmp_path)
    assert old.exists()
    assert not new.exists()
    new.write_text("half")
    remove_incomplete(tmp_path, below=True, older_than=3600)
    assert not old.exists()
    assert new.exists()
    assert kept.exists()
    remove_incomplete(tmp_path / "missing", below=True)


OWNER = """
import sys, time
from pathlib import Path
from mrknee.files import owned_folder
with owned_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    if "fork" in sys.argv:
        import os
        if os.fork() == 0:
            time.sleep(60)
    time.sleep(60)
"""


def start_owner(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Starts a process that owns the folder until it is killed."""
    command = [sys.executable, "-c", OWNER, str(folder), *words]
    process = subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    with process.stdout as printed:
        assert printed.readline() == "locked\n"
    return process


@pytest.mark.slow
def test_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    """The error names the owning process; a killed owner and its forks leave no lock."""
    folder = tmp_path / "above" / "out"
    owner = start_owner(folder, "fork")
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


def test_ownership_is_released(tmp_path: Path) -> None:
    """A created folder that stays empty is removed; one process can't own a folder twice."""
    folder = tmp_path / "above" / "out"
    with owned_folder(folder), pytest.raises(MrkneeError, match="another process"):
        owned_folder(folder).__enter__()
    assert not (tmp_path / "above").exists()


@pytest.mark.parametrize("kind", ["hard link", "link", "pipe", "folder"])
def test_other_file_with_the_name_of_the_lock_is_unchanged(kind: str, tmp_path: Path) -> None:
    """A file with the lock's name that isn't a lock file is neither written nor removed."""
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


@pytest.mark.slow
def test_owner_is_waited_for(tmp_path: Path) -> None:
    """With `wait`, a folder is owned as soon as its owner has ended."""
    owner = start_owner(tmp_path / "out", "alone")
    try:
        Timer(0.5, owner.kill).start()
        with owned_folder(tmp_path / "out", wait=True):
            assert owner.wait(10) == -signal.SIGKILL
    finally:
        owner.kill()


@pytest.mark.slow
def test_many_processes_own_a_folder_in_turn(tmp_path: Path) -> None:
    """No two of four processes own the folder at once, though each removes the lock file."""
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
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in started]
    assert ended == [("", 0)] * 4


if sys.platform == "win32":
    pytest.skip("links, pipes and locks as on Linux", allow_module_level=True)
