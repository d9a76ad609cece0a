"""What a DICOMDIR lists. Images are found without it; it tells which of them are missing."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from mrknee.sources.clinical.dicomfile import parse, text, texts, untrusted

MAX_BYTES = 64 * 1024**2
"""A DICOMDIR of 100,000 images has some 40 MB; a larger one isn't read."""


@dataclass(frozen=True)
class Listed:
    """An image that a DICOMDIR lists.

    Attributes:
        folder: where the DICOMDIR lies.
        name: where the image should be.
        instance: its SOPInstanceUID.
    """

    folder: PurePosixPath
    name: PurePosixPath
    instance: str


def read_directory(file: io.BufferedIOBase, folder: PurePosixPath) -> list[Listed]:
    """The images that a DICOMDIR lists.

    Args:
        file: seekable, at its start.
        folder: where the DICOMDIR lies. Names that would lead out of it stay names: no file is
            opened by them.

    Raises:
        MrkneeError: it can't be read; nothing of it is quoted.
    """
    if file.seek(0, io.SEEK_END) > MAX_BYTES:
        return []
    file.seek(0)
    with untrusted():
        records = parse(file, ["DirectoryRecordSequence"]).get("DirectoryRecordSequence") or []
        return [
            Listed(
                folder,
                folder.joinpath(*parts),
                text(record, "ReferencedSOPInstanceUIDInFile"),
            )
            for record in records
            if text(record, "DirectoryRecordType") == "IMAGE"
            and (parts := texts(record, "ReferencedFileID"))
        ]


def missing(
    listed: Iterable[Listed], names: Iterable[PurePosixPath], instances: Iterable[str]
) -> list[PurePosixPath]:
    """The listed images that aren't there, neither by their name nor by their UID.

    A DICOMDIR of which nothing is there belongs to other files, and misses nothing.

    Args:
        listed: what a source's DICOMDIRs list.
        names: every file of the source.
        instances: the SOPInstanceUIDs of all images that could be read.
    """
    there, uids = {_key(name) for name in names}, set(instances)
    absent: list[Listed] = []
    present: set[PurePosixPath] = set()
    for one in listed:
        if _key(one.name) in there or (one.instance and one.instance in uids):
            present.add(one.folder)
        else:
            absent.append(one)
    return [one.name for one in absent if one.folder in present]


def _key(name: PurePosixPath) -> str:
    """A name as discs compare them: without case, version (`;1`) and final dot."""
    return re.sub(r"\.?(;\d+)?$", "", str(name).lower())
