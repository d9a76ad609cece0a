"""Files that should have been images, and files that are ignored."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from mrknee.sources.clinical.other_files import classify, should_be_images

IMAGES = [PurePosixPath(f"/a/IM{n:04d}") for n in range(3)]
NOISE = bytes(range(256)) * 4
DOCUMENT = b"PK\x03\x04" + NOISE


def reasons(name: str, head: bytes, images: list[PurePosixPath] = IMAGES) -> list[str]:
    """Reasons why a file of this name and content is left out; empty if it is ignored."""
    return [why for _, why in should_be_images([classify(PurePosixPath(name), head)], images)]


@pytest.mark.parametrize(
    ("name", "head", "why"),
    [
        ("/a/IM0007", b"", "empty"),
        ("/a/IM0007", bytes(1000), "zeros"),
        ("/a/IM0007", NOISE, "its beginning is damaged"),
        ("/a/IM0007", b"<html>404</html>", "its beginning is damaged"),
        ("/a/IM0007", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        ("/a/slice", NOISE, "its beginning is damaged"),
        ("/a/slice.raw", NOISE, "its beginning is damaged"),
        ("/b/IM0001", b"", "empty"),
        ("/b/1.2.840.113619.2.5", bytes(1000), "zeros"),
        ("/b/sag.dcm", b"", "empty"),
        ("/b/sag.DCM.gz", b"", "empty"),
        ("/b/sag.IMA", b"moved", "its beginning is damaged"),
        ("/b/x.7z", NOISE, r"archive .* (.7z)"),
        ("/b/x.rar", NOISE, r"(.rar)"),
        ("/b/x.tar.bz2", NOISE, r"(.bz2)"),
        ("/b/x.dcm.xz", NOISE, r"(.xz)"),
        ("/b/study", DOCUMENT, "without its ending"),
        ("/b/study", bytes(257) + b"ustar" + NOISE, "without its ending"),
        ("/b/x.mgz", NOISE, "(.mgz): convert it"),
        ("/b/x.nrrd", NOISE, "(.nrrd)"),
        ("/b/x.mha", b"ObjectType = Image\n", "(.mha)"),
        ("/b/x.hdr", NOISE, "(.hdr)"),
        ("/b/x.img", NOISE, "(.img)"),
        ("/b/x.PAR", b"# === DATA", "(.par)"),
        ("/b/volume", b"NRRD0004\n", "volume"),
    ],
)
def test_what_should_have_been_an_image_is_left_out_with_its_reason(
    name: str, head: bytes, why: str
) -> None:
    """Such a file is recognised by ending, by similar names, or because its kind is unknown."""
    (found,) = reasons(name, head)
    for part in why.split(" .* "):
        assert part in found


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("/a/README", b"exported by a scanner"),
        ("/a/LISEZMOI", "exporté le 3".encode("latin-1")),
        ("/a/liesmich", "für Ärzte".encode()),
        ("/a/report.pdf", b"%PDF-1.4"),
        ("/a/preview", b"\xff\xd8\xff\xe0" + NOISE),
        ("/a/notes.txt", b""),
        ("/a/DICOMDIR", b""),
        ("/a/Thumbs.db", NOISE),
        ("/a/viewer.exe", NOISE),
        ("/a/letter.docx", DOCUMENT),
        ("/b/settings.dat", NOISE),
        ("/b/lock.pid", b""),
    ],
)
def test_other_kinds_of_files_are_ignored(name: str, head: bytes) -> None:
    """Documents, pictures, programs and notes next to images are ignored."""
    assert reasons(name, head) == []


def test_reasons_do_not_contain_names() -> None:
    """An ending that isn't in the list may identify a patient and is not quoted."""
    for name in ("/a/plant.petronella", "/a/petronella", "/b/x.plant.dcm", "/petronella/x.7z"):
        for why in reasons(name, NOISE):
            assert "petronella" not in why
            assert "plant" not in why
