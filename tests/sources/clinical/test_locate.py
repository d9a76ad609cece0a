"""Files are found wherever they lie, and zips are not trusted."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from mrknee.errors import MrkneeError
from mrknee.sources.clinical import archives
from mrknee.sources.clinical.locate import Location, Opener, find_files


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    """A zip with these members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_every_file_of_every_depth_is_found(tmp_path: Path) -> None:
    """Folders in folders and zips in folders are looked into; hidden files are not."""
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "one").write_bytes(b"1")
    (tmp_path / ".hidden").write_bytes(b"x")
    zipped(tmp_path / "a" / "more.zip", {"d/two": b"2", "__MACOSX/d/two": b"x"})
    found = find_files(tmp_path)
    assert [location.name.name for location in found.files] == ["two", "one"]
    with Opener() as opener:
        assert [opener.read(location) for location in found.files] == [b"2", b"1"]


def test_a_dicomdir_stands_for_its_folder(tmp_path: Path) -> None:
    """Given a DICOMDIR, the files beside and below it are found."""
    (tmp_path / "IMAGES").mkdir()
    (tmp_path / "DICOMDIR").write_bytes(b"")
    (tmp_path / "IMAGES" / "1").write_bytes(b"1")
    assert Location(tmp_path / "IMAGES" / "1") in find_files(tmp_path / "DICOMDIR").files


def test_a_broken_zip_among_others_is_counted(tmp_path: Path) -> None:
    """One bad zip in a folder doesn't keep the rest from being found."""
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 and no more")
    zipped(tmp_path / "good.zip", {"1": b"1"})
    found = find_files(tmp_path)
    assert len(found.files) == 1
    assert found.broken == (
        (Location(tmp_path / "bad.zip"), "a zip can't be read: its directory is missing or broken"),
    )


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/out", "..\\out", "C:\\out"])
def test_a_zip_that_names_files_outside_itself_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing is unpacked, but such a zip is an attack, and nothing in it is believed."""
    with pytest.raises(MrkneeError, match="outside itself"):
        find_files(zipped(tmp_path / "z.zip", {"good": b"1", name: b"1"}))


def test_a_zip_with_links_is_refused(tmp_path: Path) -> None:
    """A symbolic link in a zip is not followed."""
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(MrkneeError, match="symbolic links"):
        find_files(tmp_path / "z.zip")


def test_a_zip_bomb_is_refused_unopened(tmp_path: Path) -> None:
    """A zip that grows a thousandfold is refused by its directory alone."""
    bomb = zipped(tmp_path / "z.zip", {"bomb": bytes(archives.FREE_BYTES + 1)})
    with pytest.raises(MrkneeError, match="far more than images"):
        find_files(bomb)


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zip of more files than any export has is refused."""
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    with pytest.raises(MrkneeError, match="too many files"):
        find_files(zipped(tmp_path / "z.zip", {str(i): b"1" for i in range(4)}))


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    """A password is asked for nowhere; the user unpacks."""
    path = zipped(tmp_path / "z.zip", {"1": b"1"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(MrkneeError, match="encrypted"):
        find_files(path)


def test_a_damaged_member_is_an_error_of_ours(tmp_path: Path) -> None:
    """A zip whose directory is whole and whose contents are not."""
    path = zipped(tmp_path / "z.zip", {"1": bytes(range(256)) * 40})
    content = bytearray(path.read_bytes())
    content[40:60] = b"\xff" * 20
    path.write_bytes(content)
    (location,) = find_files(path).files
    with Opener() as opener, pytest.raises(MrkneeError, match="damaged"):
        opener.read(location)


def test_a_source_that_is_not_there_is_said_without_its_name(tmp_path: Path) -> None:
    """The path may hold a patient's name, so the error doesn't repeat it."""
    with pytest.raises(MrkneeError) as told:
        find_files(tmp_path / "Plantagenet")
    assert "Plantagenet" not in str(told.value)
