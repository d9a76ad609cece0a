"""Processor time of importing DICOM: mrknee, a plain pydicom loop, dcm2niix, and reading alone.

python benchmarks/import_speed.py [--studies 12] [--repeats 3] [--rsna FOLDER]

Writes studies of 3 x 30 uncompressed images of 512 x 512 (or reads the studies of FOLDER, in the
form of RSNA's data set), and converts them in turn, each time in a process of its own:

- reading: every file is read, and its pixels are copied into an array;
- pydicom loop: slices sorted by position, 0.5th to 99.5th percentile to 0..255, 256 x 256, .npy;
- dcm2niix (if it is installed): one NIfTI volume per series, uncompressed;
- mrknee, in one process.

Processor time is user and system time of the process and its children, with its start; it is
reliable on a machine that does other work, and the ratios more so.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SIDE, SLICES = 512, 30
SERIES = {
    # name, columns and rows in the patient, step between slices, TE, TR
    "sagittal": ([0, 1, 0, 0, 0, -1], [4.0, 0.0, 0.0], 60, 3500),
    "coronal": ([1, 0, 0, 0, 0, -1], [0.0, 4.0, 0.0], 15, 600),
    "axial": ([1, 0, 0, 0, 1, 0], [0.0, 0.0, -4.0], 30, 3000),
}


def write_studies(folder: Path, count: int) -> None:
    """Writes studies of a phantom with noise, with headers of about a hundred elements."""
    import numpy as np

    import mrknee

    exam = mrknee.make_phantom(seed=1, size=128)
    rng = np.random.default_rng(0)
    for name, (directions, step, echo, repetition) in SERIES.items():
        small = exam.stacks[name]
        places = np.linspace(0, len(small) - 1, SLICES).round().astype(int)
        stack = small[places].repeat(SIDE // 128, axis=1).repeat(SIDE // 128, axis=2) * 5.0
        noise = rng.normal(0, 20, stack.shape)
        for study in range(count):
            noisy = np.abs(stack + np.roll(noise, study, axis=2)).astype(np.uint16)
            target = folder / f"study {study:03d}" / name
            _write_series(target, study, name, noisy, directions, step, echo, repetition)


def _write_series(target, study, name, stack, directions, step, echo, repetition) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    pixel_mm = 160 / SIDE
    across, down = np.reshape(directions, (2, 3)) * pixel_mm
    first = -(SIDE - 1) / 2 * (across + down) - (SLICES - 1) / 2 * np.array(step)
    target.mkdir(parents=True)
    for index, pixels in enumerate(stack):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = MRImageStorage, generate_uid()
        image.StudyInstanceUID = generate_uid(entropy_srcs=[f"{study}"])
        image.SeriesInstanceUID = generate_uid(entropy_srcs=[f"{study} {name}"])
        image.FrameOfReferenceUID = image.StudyInstanceUID
        image.ImageType, image.Modality = ["ORIGINAL", "PRIMARY", "M", "ND"], "MR"
        image.Manufacturer, image.ManufacturerModelName = "SIEMENS", "Skyra"
        image.MagneticFieldStrength, image.ImagingFrequency = 3, 123.25
        image.PatientID, image.PatientName, image.PatientSex = f"{study}", "A^B", "F"
        image.BodyPartExamined, image.SeriesDescription = "KNEE", f"knee {name}"
        image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "SE", "SK", "FS"
        image.EchoTime, image.RepetitionTime, image.NumberOfAverages = echo, repetition, 1
        image.SliceThickness, image.SpacingBetweenSlices = 3.5, 4.0
        image.EchoTrainLength, image.PercentSampling, image.FlipAngle = 9, 80, 150
        image.PixelBandwidth, image.AcquisitionMatrix = 250, [0, 384, 300, 0]
        image.SeriesNumber, image.InstanceNumber = list(SERIES).index(name) + 1, index + 1
        image.AcquisitionNumber, image.EchoNumbers = 1, 1
        image.ImageOrientationPatient = directions
        position = first + index * np.array(step)
        image.ImagePositionPatient = [round(float(x), 4) for x in position]
        image.PixelSpacing, image.Rows, image.Columns = [pixel_mm, pixel_mm], SIDE, SIDE
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
        image.PixelRepresentation = 0
        image.WindowCenter, image.WindowWidth = 600, 1200
        block = image.private_block(0x0041, "BENCHMARK", create=True)
        for number in range(8, 40):
            block.add_new(number, "LO", f"value {number}")
        image.PixelData = pixels.tobytes()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.save_as(target / f"{image.SOPInstanceUID}.dcm", enforce_file_format=True)


def _series_folders(source: Path) -> Iterator[list[Path]]:
    """Yields the files of each series."""
    for folder, _, names in sorted(os.walk(source)):
        files = [Path(folder, name) for name in names if name.endswith(".dcm")]
        if files:
            yield files


def reading(source: Path, _: Path) -> None:
    """Reads every file and copies the pixels at its end into an array."""
    import numpy as np

    for files in _series_folders(source):
        stack = []
        for file in files:
            content = file.read_bytes()
            size = (len(content) // 2048) * 1024  # about the pixels; half of the last 2 kB
            stack.append(np.frombuffer(content, "<u2", size)[: size // 2 * 2].copy())


def loop(source: Path, out: Path) -> None:
    """Converts each series as most notebooks do."""
    import numpy as np
    import pydicom
    from PIL import Image

    for number, files in enumerate(_series_folders(source)):
        try:
            images = [pydicom.dcmread(file) for file in files]
            along, down = np.reshape(images[0].ImageOrientationPatient, (2, 3))
            normal = np.cross(along, down)
            images.sort(key=lambda image: float(normal @ np.array(image.ImagePositionPatient)))
            stack = np.stack([image.pixel_array for image in images]).astype(np.float32)
        except Exception as error:  # a corrupt series of the synthetic studies
            print(f"loop: {type(error).__name__} in series {number}")
            continue
        low, high = np.percentile(stack, (0.5, 99.5))
        grey = (np.clip((stack - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        small = [Image.fromarray(one).resize((256, 256), Image.Resampling.BILINEAR) for one in grey]
        np.save(out / f"{number:05d}.npy", np.stack([np.asarray(one) for one in small]))


def mrknee_import(source: Path, out: Path) -> None:
    """`mrknee import`, in one process."""
    from mrknee.sources.clinical.importing import import_exams

    import_exams(source, out / "exams", allow_missing_plane=True, workers=1)


def mrknee_rsna(source: Path, out: Path) -> None:
    """`mrknee rsna`, in one process."""
    from mrknee.sources.rsna2026.importing import import_rsna

    import_rsna(source, out / "exams", only="train", size=256, workers=1)


TOOLS = {"reading": reading, "loop": loop, "mrknee": mrknee_import, "rsna": mrknee_rsna}


def measure(command: Sequence[str]) -> tuple[float, float]:
    """Runs a command; returns processor and wall-clock seconds."""
    start = time.perf_counter()
    silent = os.open(os.devnull, os.O_WRONLY)
    # posix_spawn and wait4 give the times of this child and its children only
    pid = os.posix_spawnp(
        command[0],
        list(command),
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, silent, 1), (os.POSIX_SPAWN_DUP2, silent, 2)],
    )
    _, status, usage = os.wait4(pid, 0)
    os.close(silent)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - start


def main() -> int:
    """Prints processor and wall-clock time of each tool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rsna", type=Path, default=None)
    parser.add_argument("--tool", nargs=3, metavar=("NAME", "SRC", "OUT"))
    given = parser.parse_args()
    if given.tool:
        name, source, out = given.tool
        TOOLS[name](Path(source), Path(out))
        return 0
    with tempfile.TemporaryDirectory(prefix="import-speed-") as temporary:
        work = Path(temporary)
        images = given.rsna / "train_series" if given.rsna else work / "studies"
        if given.rsna is None:
            write_studies(images, given.studies)
        files = sum(len(found) for found in _series_folders(images))
        ours, ours_source = ("rsna", given.rsna) if given.rsna else ("mrknee", images)
        out = work / "out"
        tool = [sys.executable, __file__, "--tool"]
        commands = {
            "reading alone": [*tool, "reading", str(images), str(out)],
            "pydicom loop": [*tool, "loop", str(images), str(out)],
            f"mrknee {'rsna' if given.rsna else 'import'}": [
                *(*tool, ours, str(ours_source), str(out))
            ],
        }
        if shutil.which("dcm2niix"):
            commands["dcm2niix"] = ["dcm2niix", "-z", "n", "-d", "9", "-o", str(out), str(images)]
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(given.repeats):
            for name, command in commands.items():
                out.mkdir()
                times[name].append(measure(command))
                shutil.rmtree(out)
        base = statistics.median(cpu for cpu, _ in times["pydicom loop"])
        print(f"{files} images; medians of {given.repeats}")
        print(f"{'':30}{'CPU s':>8}{'ms/image':>10}{'to the loop':>13}{'wall s':>8}")
        for name, found in times.items():
            cpu, wall = (statistics.median(one) for one in zip(*found, strict=True))
            ms = cpu / files * 1000
            print(f"{name:30}{cpu:>8.2f}{ms:>10.2f}{cpu / base:>13.2f}{wall:>8.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
