"""Which files should have been images, and which are left alone."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from mrknee.sources.clinical.other_files import classify, should_be_images

IMAGES = [PurePosixPath(f"/a/IM{n:04d}") for n in range(3)]
NOISE = bytes(range(256)) * 4
DOCUMENT = b"PK\x03\x04" + NOISE


def reasons(name: str, head: bytes, images: list[PurePosixPath] = IMAGES) -> list[str]:
    """Why a file of this name and content is left out; nothing where it is left alone."""
    return [why for _, why in should_be_images([classify(PurePosixPath(name), head)], images)]


@pytest.mark.parametrize(
    ("name", "head", "why"),
    [
        ("/a/IM0007", b"", "empty"),
        ("/a/IM0007", bytes(1000), "zeros"),
        ("/a/IM0007", NOISE, "lost its head"),
        ("/a/IM0007", b"<html>404</html>", "lost its head"),
        ("/a/IM0007", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        ("/a/slice", NOISE, "lost its head"),
        ("/a/slice.raw", NOISE, "lost its head"),
        ("/b/IM0001", b"", "empty"),
        ("/b/1.2.840.113619.2.5", bytes(1000), "zeros"),
        ("/b/sag.dcm", b"", "empty"),
        ("/b/sag.DCM.gz", b"", "empty"),
        ("/b/sag.IMA", b"moved", "lost its head"),
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
    """By ending, by a name like those beside it, or because nothing shows another kind."""
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
def test_what_is_something_else_is_left_alone(name: str, head: bytes) -> None:
    """Documents, pictures, programs and notes beside images are no lost slices."""
    assert reasons(name, head) == []


def test_reasons_tell_nothing_of_the_name() -> None:
    """An ending that isn't in the list may be a name, and is not repeated."""
    for name in ("/a/plant.petronella", "/a/petronella", "/b/x.plant.dcm", "/petronella/x.7z"):
        for why in reasons(name, NOISE):
            assert "petronella" not in why
            assert "plant" not in why
