"""Scanning of a source: headers of all files, and the files that can't be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mrknee.errors import DataError, MrkneeError
from mrknee.progress import Progress
from mrknee.sources.clinical.dicomfile import is_dicom
from mrknee.sources.clinical.directory import ListedImage, missing, read_directory
from mrknee.sources.clinical.header import Image, read_header
from mrknee.sources.clinical.locate import Found, Location, Opener, find_files
from mrknee.sources.clinical.nifti import is_nifti
from mrknee.sources.clinical.other_files import HEAD, OtherFile, classify, should_be_images
from mrknee.workers import map_tasks

CHUNK = 500
"""Number of files per task of a worker process."""
MANY_FILES = 2000
"""Fewer files are read in this process: a worker process starts in about the time in which a
thousand headers are read."""
KINDS = ("dicom", "nifti", "other", "unreadable", "missing")


@dataclass
class Scan:
    """Result of scanning a source.

    Attributes:
        source: the source as it was given.
        images: headers of all DICOM images.
        volumes: locations of all NIfTI files.
        counts: kind of file -> number of files.
        left_out: path and reason of files that hold or should hold images and aren't read. Paths
            may identify a patient.
        others: files that are neither DICOM nor NIfTI and not yet counted or left out.
        listed: images that DICOMDIRs list.
    """

    source: Path = field(default_factory=Path)
    images: list[Image] = field(default_factory=list)
    volumes: list[Location] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    left_out: list[tuple[PurePosixPath, str]] = field(default_factory=list)
    others: list[OtherFile] = field(default_factory=list)
    listed: list[ListedImage] = field(default_factory=list)

    def add(self, other: Scan) -> None:
        """Adds the results of another scan."""
        self.images += other.images
        self.volumes += other.volumes
        self.left_out += other.left_out
        self.others += other.others
        self.listed += other.listed
        for kind, count in other.counts.items():
            self.counts[kind] += count

    def leave_out(self, name: PurePosixPath, reason: str, kind: str = "unreadable") -> None:
        """Records one file that can't be read or is missing."""
        self.counts[kind] += 1
        self.left_out.append((name, reason))

    @property
    def reasons(self) -> dict[str, int]:
        """Reason -> number of files left out for it."""
        return dict(Counter(reason for _, reason in self.left_out))

    def left_out_near(self, images: Sequence[Image]) -> int:
        """Counts the files left out in the folders of the given images."""
        folders = {image.location.name.parent for image in images}
        return sum(name.parent in folders for name, _ in self.left_out)


def scan_source(source: Path, processes: int) -> Scan:
    """Reads the headers of all files of a source.

    Args:
        source: a folder, an archive, a DICOMDIR or an image.
        processes: number of worker processes.

    Raises:
        MrkneeError: the source doesn't exist, or holds no image.
    """
    found = find_files(source)
    files = found.files
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    parts = []
    with Progress(len(files), "reading headers", "files") as progress:
        for part in map_tasks(_scan_files, chunks, processes if len(files) > MANY_FILES else 1):
            parts.append(part)
            progress.advance(sum(part.counts.values()) + len(part.others))
    return _joined(source, found, parts)


def scan_folder(folder: Path) -> Scan:
    """Reads the headers of all files of a folder in this process, without a report of progress.

    Raises:
        MrkneeError: the folder doesn't exist, or holds no image.
    """
    found = find_files(folder)
    return _joined(folder, found, [_scan_files(found.files)])


def _joined(source: Path, found: Found, parts: Sequence[Scan]) -> Scan:
    """Joins the scans of a source's files.

    Raises:
        MrkneeError: the source holds no image.
    """
    scan = Scan(source)
    for location, reason in found.broken:
        scan.leave_out(location.name, reason)
    for part in parts:
        scan.add(part)
    scan.images.sort(key=lambda image: (str(image.location.name), image.frame))
    _resolve_other_files(scan, found.files)
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


def _resolve_other_files(scan: Scan, files: Sequence[Location]) -> None:
    """Records other files that should have been images, and images missing from a DICOMDIR."""
    lost = should_be_images(scan.others, (image.location.name for image in scan.images))
    scan.counts["other"] += len(scan.others) - len(lost)
    for name, reason in lost:
        scan.leave_out(name, reason)
    if scan.listed:
        names = [location.name for location in files]
        instances = {image.instance for image in scan.images}
        for name in missing(scan.listed, names, instances):
            reason = "a file listed in the DICOMDIR is missing: copy the complete disc again"
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
                reason = f"{error.what}: {error.advice}" if error.advice else error.what
                scan.leave_out(location.name, reason)
    return scan


def _scan_file(opener: Opener, location: Location, scan: Scan) -> None:
    with opener.open(location) as file:
        if not is_dicom(file):
            scan.others.append(classify(location.name, file.read(HEAD)))
            return
        images = read_header(file, location)
        scan.images += images
        scan.counts["dicom" if images else "other"] += 1
        if not images and location.name.name.upper() == "DICOMDIR":
            file.seek(0)
            scan.listed += read_directory(file, location.name.parent)
