"""The headers of all files of a source, and which of its files could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mrknee.errors import DataError, MrkneeError
from mrknee.progress import Progress
from mrknee.sources.clinical.dicomfile import is_dicom
from mrknee.sources.clinical.directory import Listed, missing, read_directory
from mrknee.sources.clinical.header import Image, read_header
from mrknee.sources.clinical.locate import Location, Opener, find_files
from mrknee.sources.clinical.nifti import is_nifti
from mrknee.sources.clinical.strange import HEAD, Strange, look_at, should_be_images
from mrknee.workers import map_tasks

CHUNK = 500
"""Files whose headers one process reads at a time."""
KINDS = ("dicom", "nifti", "other", "unreadable", "missing")


@dataclass
class Scan:
    """What the headers of a source's files say.

    Attributes:
        images: every DICOM image.
        volumes: every NIfTI file.
        counts: how many files are of which kind.
        left_out: files that hold images or should have, and aren't read: path and reason. Paths
            may identify a patient.
        strange: files that are neither, before it is decided which of them are left out.
        listed: what DICOMDIRs list.
        names: of all files, where a DICOMDIR lists some.
    """

    images: list[Image] = field(default_factory=list)
    volumes: list[Location] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    left_out: list[tuple[PurePosixPath, str]] = field(default_factory=list)
    strange: list[Strange] = field(default_factory=list)
    listed: list[Listed] = field(default_factory=list)

    def add(self, other: Scan) -> None:
        """Takes in what another scan has found."""
        self.images += other.images
        self.volumes += other.volumes
        self.left_out += other.left_out
        self.strange += other.strange
        self.listed += other.listed
        for kind, count in other.counts.items():
            self.counts[kind] += count

    def leave_out(self, name: PurePosixPath, reason: str, kind: str = "unreadable") -> None:
        """Notes one file that can't be read, or isn't there."""
        self.counts[kind] += 1
        self.left_out.append((name, reason))

    @property
    def reasons(self) -> dict[str, int]:
        """Why files are left out, and how many for each reason."""
        return dict(Counter(reason for _, reason in self.left_out))

    def left_beside(self, images: Sequence[Image]) -> int:
        """How many files are left out of the folders that these images lie in."""
        folders = {image.location.name.parent for image in images}
        return sum(name.parent in folders for name, _ in self.left_out)


def scan_source(source: Path, processes: int) -> Scan:
    """Reads the headers of all files of a source.

    Raises:
        MrkneeError: it isn't there, or holds no image.
    """
    found = find_files(source)
    scan = Scan()
    for location, reason in found.broken:
        scan.leave_out(location.name, reason)
    files = found.files
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    with Progress(len(files), "reading headers", "files") as progress:
        for part in map_tasks(_scan_files, chunks, processes):
            scan.add(part)
            progress.advance(sum(part.counts.values()) + len(part.strange))
    scan.images.sort(key=lambda image: (str(image.location.name), image.frame))
    _judge(scan, files)
    if not scan.images and not scan.volumes:
        counts = ", ".join(f"{count} {kind}" for kind, count in scan.counts.items())
        reasons = "; ".join(scan.reasons)
        raise DataError(
            "the source holds no image",
            code="no-source",
            expected="DICOM files with images, or NIfTI files named by their plane",
            found=f"files: {counts}" + (f" ({reasons})" if reasons else ""),
        )
    return scan


def _judge(scan: Scan, files: Sequence[Location]) -> None:
    """Decides what of the strange files is left out, and what a DICOMDIR lists in vain."""
    lost = should_be_images(scan.strange, (image.location.name for image in scan.images))
    scan.counts["other"] += len(scan.strange) - len(lost)
    for name, reason in lost:
        scan.leave_out(name, reason)
    if scan.listed:
        names = [location.name for location in files]
        instances = {image.instance for image in scan.images}
        for name in missing(scan.listed, names, instances):
            reason = "a file that the DICOMDIR lists is not there: copy the whole disc again"
            scan.leave_out(name, reason, "missing")


def _scan_files(files: Sequence[Location]) -> Scan:
    scan = Scan()
    with Opener() as opener:
        for location in files:
            if is_nifti(location):
                scan.volumes.append(location)
                scan.counts["nifti"] += 1
                continue
            try:
                _scan_file(opener, location, scan)
            except MrkneeError as error:
                said = f"{error.what}: {error.advice}" if error.advice else error.what
                scan.leave_out(location.name, said)
    return scan


def _scan_file(opener: Opener, location: Location, scan: Scan) -> None:
    with opener.open(location) as file:
        if not is_dicom(file):
            scan.strange.append(look_at(location.name, file.read(HEAD)))
            return
        images = read_header(file, location)
        scan.images += images
        scan.counts["dicom" if images else "other"] += 1
        if not images and location.name.name.upper() == "DICOMDIR":
            file.seek(0)
            scan.listed += read_directory(file, location.name.parent)
