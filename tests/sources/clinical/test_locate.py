"""Search for files in folders and untrusted archives."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from mrknee.errors import MrkneeError
from mrknee.sources.clinical import archives, locate
from mrknee.sources.clinical.locate import Location, Opener, find_files


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    """A zip with these members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_every_file_of_every_depth_is_found(tmp_path: Path) -> None:
    """Nested folders and zips in folders are searched; hidden files are ignored."""
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "one").write_bytes(b"1")
    (tmp_path / ".hidden").write_bytes(b"x")
    zipped(tmp_path / "a" / "more.zip", {"d/two": b"2", "__MACOSX/d/two": b"x"})
    found = find_files(tmp_path)
    assert [location.name.name for location in found.files] == ["two", "one"]
    with Opener() as opener:
        assert [opener.read(location) for location in found.files] == [b"2", b"1"]


def test_a_dicomdir_means_its_folder(tmp_path: Path) -> None:
    """Given a DICOMDIR, the files in and below its folder are found."""
    (tmp_path / "IMAGES").mkdir()
    (tmp_path / "DICOMDIR").write_bytes(b"")
    (tmp_path / "IMAGES" / "1").write_bytes(b"1")
    assert Location(tmp_path / "IMAGES" / "1") in find_files(tmp_path / "DICOMDIR").files


def test_a_broken_zip_among_others_is_counted(tmp_path: Path) -> None:
    """A broken zip in a folder is counted, and the other files are found."""
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 and no more")
    zipped(tmp_path / "good.zip", {"1": b"1"})
    found = find_files(tmp_path)
    assert len(found.files) == 1
    assert found.broken == (
        (Location(tmp_path / "bad.zip"), "a zip can't be read: its directory is missing or broken"),
    )


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/out", "..\\out", "C:\\out"])
def test_a_zip_that_names_files_outside_itself_is_refused(tmp_path: Path, name: str) -> None:
    """A zip with paths outside itself is refused completely."""
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


def test_a_zip_bomb_is_refused_without_unpacking(tmp_path: Path) -> None:
    """A zip that grows a thousandfold is refused by its directory."""
    bomb = zipped(tmp_path / "z.zip", {"bomb": bytes(archives.FREE_BYTES + 1)})
    with pytest.raises(MrkneeError, match="too large when unpacked"):
        find_files(bomb)


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zip of more files than any export has is refused."""
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    with pytest.raises(MrkneeError, match="too many files"):
        find_files(zipped(tmp_path / "z.zip", {str(i): b"1" for i in range(4)}))


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    """An encrypted zip is refused."""
    path = zipped(tmp_path / "z.zip", {"1": b"1"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(MrkneeError, match="encrypted"):
        find_files(path)


def test_a_damaged_member_is_a_data_error(tmp_path: Path) -> None:
    """A damaged member of a zip with an intact directory raises our own error."""
    path = zipped(tmp_path / "z.zip", {"1": bytes(range(256)) * 40})
    content = bytearray(path.read_bytes())
    content[40:60] = b"\xff" * 20
    path.write_bytes(content)
    (location,) = find_files(path).files
    with Opener() as opener, pytest.raises(MrkneeError, match="damaged"):
        opener.read(location)


def test_a_missing_source_is_reported_without_its_name(tmp_path: Path) -> None:
    """The error of a missing source doesn't contain its path, which may identify a patient."""
    with pytest.raises(MrkneeError) as error:
        find_files(tmp_path / "Plantagenet")
    assert "Plantagenet" not in str(error.value)


def tarred(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    """A tar with these members."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # a mode
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def contents(source: Path) -> dict[str, bytes]:
    """The files found in a source: name -> bytes."""
    with Opener() as opener:
        return {str(one.name): opener.read(one) for one in find_files(source).files}


FILES = {"a/one": b"1", "a/two": b"22" * 999}


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tgz", "zip", "ZIP", "TAR"])
@pytest.mark.parametrize("outer", ["", "folder", "zip", "tar", "tar.gz"])
def test_archives_and_archives_in_them_are_read(tmp_path: Path, kind: str, outer: str) -> None:
    """Zip, tar and compressed tar are read as source, in a folder, and inside another archive."""
    folder = tmp_path / "in"
    folder.mkdir()
    inner = folder / f"study.{kind}"
    if kind.lower() == "zip":
        zipped(inner, FILES)
    else:
        tarred(inner, FILES, "w:gz" if kind.endswith("gz") else "w")
    source = {"": inner, "folder": folder}.get(outer)
    if source is None:
        members = {f"x/study.{kind}": inner.read_bytes(), "x/three": b"3"}
        source = tmp_path / f"outer.{outer}"
        if outer == "zip":
            zipped(source, members)
        else:
            tarred(source, members, "w:gz" if outer == "tar.gz" else "w")
    found = {PurePosixPath(name).name: data for name, data in contents(source).items()}
    assert found.pop("three", b"3") == b"3"
    assert found == {"one": b"1", "two": b"22" * 999}


def test_gzipped_files_are_unpacked_and_nifti_is_left_packed(tmp_path: Path) -> None:
    """`a.dcm.gz` is unpacked in a folder and in a zip; `.nii.gz` is not."""
    packed = gzip.compress(b"image")
    (tmp_path / "a.dcm.gz").write_bytes(packed + gzip.compress(b" and more"))
    (tmp_path / "b.nii.gz").write_bytes(packed)
    zipped(tmp_path / "c.zip", {"c.gz": packed})
    assert [*contents(tmp_path).values()] == [b"image and more", packed, b"image"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_two_members_of_one_name_are_reported(tmp_path: Path, kind: str) -> None:
    """Of two files of one name the last one is read, and the other one is reported."""
    path = tmp_path / f"in.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", b"one")
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("a", b"two")
    else:
        with tarfile.open(path, "w") as archive:
            for content in (b"one", b"two"):
                member = tarfile.TarInfo("a")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    found = find_files(path)
    assert [reason for _, reason in found.broken] == [archives.DUPLICATE_NAME]
    (location,) = found.files
    with Opener() as opener:
        assert opener.read(location) == b"two"


def test_deeply_nested_archives_are_reported_and_not_opened(tmp_path: Path) -> None:
    """Archives in archives are read one level deep; deeper ones are reported."""
    inner = zipped(tmp_path / "1.zip", FILES).read_bytes()
    middle = zipped(tmp_path / "2.zip", {"1.zip": inner}).read_bytes()
    found = find_files(zipped(tmp_path / "3.zip", {"2.zip": middle, "x": b""}))
    assert [one.name.name for one in found.files] == ["x"]
    ((_, why),) = found.broken
    assert "nested too deeply in other archives: unpack it" in why


@pytest.mark.parametrize("kind", ["gz", "tar.gz", "in a zip"])
def test_gzip_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Content that must be unpacked completely is unpacked up to a limit."""
    monkeypatch.setattr(archives, "MAX_UNPACKED", 1 << 20)
    monkeypatch.setattr(locate, "MAX_UNPACKED", 1 << 20)
    monkeypatch.setattr(archives, "STEP", 1 << 18)
    bomb = bytes(3 << 20)
    if kind == "in a zip":
        inner = zipped(tmp_path / "bomb.zip", {"a": bomb}).read_bytes()
        (tmp_path / "bomb.zip").unlink()
        source = zipped(tmp_path / "a.zip", {"good": b"1", "b.zip": inner + bomb})
        found = find_files(source)
        assert len(found.files) == 1
        assert "too large" in found.broken[0][1]
        return
    source = tmp_path / f"a.{kind}"
    source.write_bytes(gzip.compress(bomb))
    with pytest.raises(MrkneeError, match="too large when unpacked"):
        contents(source)


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/etc/out", "C:\\out"])
def test_a_tar_that_names_files_outside_itself_is_refused(tmp_path: Path, name: str) -> None:
    """A tar with paths outside itself is refused completely."""
    with pytest.raises(MrkneeError, match="outside itself"):
        find_files(tarred(tmp_path / "a.tar", {"good": b"1", name: b"1"}))


def test_links_and_devices_in_a_tar_are_reported_and_not_followed(tmp_path: Path) -> None:
    """The files of a tar are read; links and devices are reported."""
    source = tmp_path / "a.tar"
    with tarfile.open(source, "w") as archive:
        for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        device = tarfile.TarInfo("device")
        device.type, device.devmajor = tarfile.CHRTYPE, 1
        archive.addfile(device)
        archive.addfile(tarfile.TarInfo("empty"))
    found = find_files(source)
    assert [one.name.name for one in found.files] == ["empty"]
    assert len(found.broken) == 3


@pytest.mark.parametrize("place", [512 + 100, 3 * 512, 3 * 512 + 9])
def test_a_truncated_tar_gives_its_complete_files(tmp_path: Path, place: int) -> None:
    """Files before the cut are read, the truncated file is not, and the cut is reported."""
    source = tarred(tmp_path / "a.tar", {"one": b"1" * 1024, "two": b"2" * 1024})
    source.write_bytes(source.read_bytes()[:place])
    found = find_files(source)
    assert [one.name.name for one in found.files] == (["one"] if place > 1535 else [])
    assert [why for _, why in found.broken] == ["a tar is truncated or damaged: copy it again"]


def test_a_tar_with_a_negative_size_is_refused(tmp_path: Path) -> None:
    """A member of negative size, which would be read endlessly, is refused."""
    source = tarred(tmp_path / "a.tar", {"one": b"1" * 1024, "two": b"2"})
    content = bytearray(source.read_bytes())
    content[1536 + 124 : 1536 + 136] = b"\xff" * 4 + (-1024).to_bytes(8, "big", signed=True)
    block = content[1536:2048]
    block[148:156] = b" " * 8
    content[1536 + 148 : 1536 + 156] = b"%06o\0 " % sum(block)
    source.write_bytes(content)
    with pytest.raises(MrkneeError, match="tar can't be read"):
        find_files(source)


def test_broken_links_and_linked_folders_are_reported(tmp_path: Path) -> None:
    """Broken links, links to folders and pipes are reported, as they may stand for images."""
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in" / "slice.dcm").symlink_to(tmp_path / "gone")
    (tmp_path / "in" / "series").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "in" / "pipe")
    assert sorted(why for _, why in find_files(tmp_path / "in").broken) == [
        "a broken link",
        "a link to a folder isn't followed",
        "a pipe or a device, not a file",
    ]


def test_few_archives_are_open_at_a_time(tmp_path: Path) -> None:
    """A folder of many archives takes a limited number of file handles."""
    for n in range(3 * locate.OPEN_ARCHIVES):
        zipped(tmp_path / f"{n}.zip", {"a": b"%d" % n, "b": b""})
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    with Opener() as opener:
        for location in find_files(tmp_path).files:
            opener.read(location)
        if before:
            assert len(list(Path("/proc/self/fd").iterdir())) <= before + locate.OPEN_ARCHIVES
