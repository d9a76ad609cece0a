"""Files that are neither DICOM nor NIfTI: which of them hold or should have been images.

docs/reference/import-rules.md states the rule; change both together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from mrknee.sources.clinical.archives import GZIP, UNPACK

HEAD = 1152
"""Number of bytes from a file's start by which it is classified."""


def _endings(words: str) -> frozenset[str]:
    return frozenset(f".{word}" for word in words.split())


IMAGE_ENDINGS = _endings("dcm dicom dic ima acr")
"""Endings of DICOM files."""
ARCHIVE_ENDINGS = _endings("7z rar bz2 tbz tbz2 xz txz zst tzst lz4 lzma z cab arj lzh iso dmg nrg")
VOLUME_ENDINGS = _endings("hdr img mgz mgh nrrd nhdr mha mhd mnc par rec gipl")
OTHER_ENDINGS = _endings(
    "txt md rst rtf pdf ps doc docx xls xlsx ppt pptx odt ods odp csv tsv json jsonl xml xsl xsd"
    " html htm css js log ini inf cfg conf yaml yml toml url lnk webloc exe dll so msi bat cmd sh"
    " ps1 py pyc ipynb m r jar class ico png jpg jpeg gif bmp tif tiff svg webp heic mp4 avi mov"
    " mpg mpeg wmv mkv wav mp3 db sqlite md5 sha1 sha256 sha512 sig asc npy npz mat h5 hdf5 parquet"
    " bval bvec tex bib"
)
OTHER_NAMES = frozenset(
    {"dicomdir", "readme", "license", "licence", "copying", "authors", "changes", "changelog"}
    | {"manifest", "version", "lockfile", "makefile", "thumbs.db", "desktop.ini", "autorun.inf"}
)
SIGNATURES: tuple[tuple[int, bytes], ...] = (
    *((0, start) for start in (b"%PDF", b"%!PS", b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0")),
    *((0, start) for start in (b"MM\0*", b"RIFF", b"MZ", b"\x7fELF", b"SQLite format 3")),
    *((0, start) for start in (b"\xd0\xcf\x11\xe0", b"\x93NUMPY", b"\x89HDF", b"ID3", b"OggS")),
    (4, b"ftyp"),
)
"""Signatures (offset, bytes) of documents, pictures, films and programs."""
ARCHIVE_SIGNATURES: tuple[tuple[int, bytes], ...] = (
    *((0, start) for start in (b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"BZh", b"\xfd7zXZ\0")),
    *((0, start) for start in (b"\x28\xb5\x2f\xfd", b"PK\x03\x04", GZIP, b"\x04\x22\x4d\x18")),
    (257, b"ustar"),
)
VOLUME_SIGNATURES: tuple[tuple[int, bytes], ...] = (
    *((0, b"NRRD000"), (0, b"ObjectType = Image"), (344, b"n+1\0"), (344, b"ni1\0")),
)
LFS = b"version https://git-lfs.github.com/"

NOT_DICOM = "a file among images is not DICOM, or its beginning is damaged: copy or export it again"


@dataclass(frozen=True)
class OtherFile:
    """A file that is neither DICOM nor NIfTI.

    Attributes:
        name: path, with archives as folders.
        unread: why it isn't read, if its format may hold images; otherwise "".
        other: whether it is recognised as something else: a document, a picture, a program.
        fault: what is wrong with the file if it should have been an image.
    """

    name: PurePosixPath
    unread: str
    other: bool
    fault: str


def classify(name: PurePosixPath, head: bytes) -> OtherFile:
    """Classifies a file by its name and its first `HEAD` bytes."""
    unzipped = _without_gz(name)
    other = unzipped.name.lower() in OTHER_NAMES or unzipped.suffix.lower() in OTHER_ENDINGS
    fault = NOT_DICOM
    if not head:
        fault = "a file is empty: copy or export it again"
    elif not head.strip(b"\0"):
        fault = "a file begins with zeros instead of a header: copy or export it again"
    elif head.startswith(LFS):
        fault = "a file is a Git LFS pointer, not its content: fetch it with git lfs pull"
    unread = "" if other else _unread(unzipped, head)
    return OtherFile(name, unread, other or _has(head, SIGNATURES) or _is_text(head), fault)


def _unread(name: PurePosixPath, head: bytes) -> str:
    """Returns why a file of a format that may hold images isn't read, or "".

    The reason names only endings of the lists above, which can't identify a patient.
    """
    ending = name.suffix.lower()
    if ending in VOLUME_ENDINGS and head.strip(b"\0"):
        return f"a volume of an unsupported format ({ending}): convert it to .nii.gz or DICOM"
    if ending in ARCHIVE_ENDINGS:
        return f"an archive of an unsupported format ({ending}): {UNPACK}"
    if _has(head, VOLUME_SIGNATURES):
        return "a volume of an unsupported format, or without its ending: convert it to .nii.gz"
    if _has(head, ARCHIVE_SIGNATURES):
        return f"an archive of an unsupported format, or without its ending: {UNPACK}"
    return ""


def _has(head: bytes, signatures: Iterable[tuple[int, bytes]]) -> bool:
    return any(head[place : place + len(sign)] == sign for place, sign in signatures)


def _is_text(head: bytes) -> bool:
    """Returns whether bytes are text in UTF-8, or mostly ASCII text in another encoding."""
    printable = sum(32 <= byte < 127 or byte in b"\t\n\r\f" for byte in head)
    control = any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head)
    if not head or control:
        return False
    if printable >= 0.8 * len(head):
        return True
    try:
        head[:-3].decode("utf-8")  # the last character may be cut off
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 6
    return True


def should_be_images(
    others: Iterable[OtherFile], images: Iterable[PurePosixPath]
) -> list[tuple[PurePosixPath, str]]:
    """Returns the paths of files that hold or should hold images, and why they aren't read.

    Args:
        others: files that are neither DICOM nor NIfTI.
        images: paths of the DICOM images of the source.
    """
    forms: dict[PurePosixPath, set[str]] = {}
    for path in images:
        forms.setdefault(path.parent, set()).add(_form(path))
    endings = {_ending(path) for path in images}
    found = []
    for one in others:
        in_folder = forms.get(one.name.parent, set())
        ending = _ending(one.name)
        expected = ending in IMAGE_ENDINGS or _form(one.name) in in_folder
        unknown = not one.other and (in_folder or not ending or ending in endings)
        if one.unread or expected or unknown:
            found.append((one.name, one.unread or one.fault))
    return found


def _without_gz(name: PurePosixPath) -> PurePosixPath:
    """Returns a name without the ending `.gz`."""
    return name.with_suffix("") if name.suffix.lower() == ".gz" else name


def _ending(name: PurePosixPath) -> str:
    """Returns a name's ending in lower case; "" if it is a number, as in UIDs."""
    ending = _without_gz(name).suffix.lower()
    return ending if re.fullmatch(r"\.[a-z0-9]*[a-z][a-z0-9]*", ending) else ""


def _form(name: PurePosixPath) -> str:
    """Returns a name with its numbers replaced, which is equal for the files of a series."""
    return re.sub(r"\d[\d.]*", "#", _without_gz(name).name.lower())
