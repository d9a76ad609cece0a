"""Reading of a DICOMDIR, to find out which images are missing; it isn't needed to find images."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydicom.tag import Tag

from mrknee.sources.clinical.dicomfile import parse, text, texts, untrusted

MAX_BYTES = 64 * 1024**2
"""Maximum size of a DICOMDIR that is read; one of 100,000 images has some 40 MB."""


@dataclass(frozen=True)
class ListedImage:
    """An image that a DICOMDIR lists.

    Attributes:
        folder: folder of the DICOMDIR.
        name: listed path of the image.
        instance: SOPInstanceUID of the image.
    """

    folder: PurePosixPath
    name: PurePosixPath
    instance: str


def read_directory(file: io.BufferedIOBase, folder: PurePosixPath) -> list[ListedImage]:
    """Reads the images that a DICOMDIR lists.

    Args:
        file: seekable file at its start.
        folder: folder of the DICOMDIR. Listed paths may point outside; no file is opened by them.

    Raises:
        MrkneeError: the file can't be read. The message quotes nothing from it.
    """
    if file.seek(0, io.SEEK_END) > MAX_BYTES:
        return []
    file.seek(0)
    with untrusted():
        records = parse(file, [Tag("DirectoryRecordSequence")]).get("DirectoryRecordSequence") or []
        return [
            ListedImage(
                folder,
                folder.joinpath(*parts),
                text(record, "ReferencedSOPInstanceUIDInFile"),
            )
            for record in records
            if text(record, "DirectoryRecordType") == "IMAGE"
            and (parts := texts(record, "ReferencedFileID"))
        ]


def missing(
    listed: Iterable[ListedImage], names: Iterable[PurePosixPath], instances: Iterable[str]
) -> list[PurePosixPath]:
    """Returns the paths of listed images that are present neither by path nor by UID.

    A DICOMDIR without any present image belongs to other files and is ignored.

    Args:
        listed: images listed by the DICOMDIRs of a source.
        names: paths of all files of the source.
        instances: SOPInstanceUIDs of all images that could be read.
    """
    paths, uids = {_key(name) for name in names}, set(instances)
    absent: list[ListedImage] = []
    present: set[PurePosixPath] = set()
    for one in listed:
        if _key(one.name) in paths or (one.instance and one.instance in uids):
            present.add(one.folder)
        else:
            absent.append(one)
    return [one.name for one in absent if one.folder in present]


def _key(name: PurePosixPath) -> str:
    """Returns a path for comparison: lower case, without version (`;1`) and final dot."""
    return re.sub(r"\.?(;\d+)?$", "", str(name).lower())
