"""Listing of a folder's stacks and unread files, and suggestions for wrong paths."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mrknee.errors import DataError, MrkneeError
from mrknee.exams.series import PLANES, SERIES_FILE, SeriesList, plane_named, read_series
from mrknee.files import exists, is_dir, is_file

_PACKED = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar")

_LOOKED_AT = 200  # maximum entries per folder that are searched for the intended folder


@dataclass(frozen=True)
class Listing:
    """The stacks of a folder, and what is not read.

    Attributes:
        files: id -> series -> file, sorted by id.
        unread: paths that are not read, sorted. In the folders of series: files with other suffixes
            (`.npz`, `.npy.gz`) and hidden stacks. Next to the folders of series: stacks, folders
            that contain stacks, and folders named with a synonym (`sag/`) or like a series that is
            already read from another folder. Other hidden files, and the companion files of macOS
            (`._0000.npy` next to `0000.npy`), hold no data and are not listed.
    """

    files: Mapping[str, Mapping[str, Path]]
    unread: tuple[Path, ...]


def declared_series(folder: Path) -> SeriesList:
    """Reads the series declared for a folder: by `series.csv` in the folder or in its parent.

    For a split's folder, `DATA/train`, the file is `DATA/series.csv`.

    Raises:
        DataError: the file can't be read.
    """
    inside = is_file(folder / SERIES_FILE)
    return read_series(folder if inside else folder.absolute().parent)


def list_stacks(folder: Path, series: SeriesList) -> Listing:
    """Lists the stacks of a folder that contains one folder per series.

    Folders may be named `Axial`, and files may end in `.NPY`. Ids are file names without suffix,
    normalised to Unicode NFC, because macOS writes NFD.

    Raises:
        DataError: two files of a series belong to one exam.
    """
    found: dict[str, dict[str, Path]] = {}
    unread: list[Path] = []
    folders = series_folders(folder, series)
    for name, inside in folders.items():
        files = sorted(inside.iterdir())
        names = {file.name for file in files}
        for file in files:
            stack = file.suffix.lower() == ".npy"
            if file.name.startswith("."):
                if stack and file.name.removeprefix("._") not in names - {file.name}:
                    unread.append(file)
            elif not stack:
                unread.append(file)
            else:
                those = found.setdefault(same_text(file.stem), {})
                if name in those:
                    raise DataError(
                        "two files of a series belong to one exam",
                        code="stack-twice",
                        file=file,
                        exam=same_text(file.stem),
                        expected=f"one file per exam in {inside.name}/",
                        found=f"{those[name].name!a} and {file.name!a}",
                        advice="remove or rename one of them",
                    )
                those[name] = file
    if is_dir(folder):
        others = [f for f in folder.iterdir() if f not in folders.values() and f.name[0] != "."]
        unread += [f for f in others if _holds_stacks(f)]
    return Listing({i: found[i] for i in sorted(found)}, tuple(sorted(unread)))


def _holds_stacks(path: Path) -> bool:
    """Returns whether a path next to the folders of series is a stack or may contain stacks."""
    if path.suffix.lower() == ".npy":
        return True
    if not is_dir(path):
        return False
    return plane_named(path.name) is not None or any(
        inside.suffix.lower() == ".npy" for inside in _entries(path)
    )


def series_folders(folder: Path, series: SeriesList | None = None) -> dict[str, Path]:
    """Returns the folders of series inside a folder: series -> path; case is ignored.

    If several folders match a series, the one in lower case is used, else the first by name.

    Args:
        folder: any folder.
        series: the permitted series; None uses those that the folder declares.
    """
    found: dict[str, Path] = {}
    if not is_dir(folder):
        return found
    names = (declared_series(folder) if series is None else series).names
    for inside in sorted(folder.iterdir()):
        lower = inside.name.lower()
        usual = inside.name == lower
        if lower in names and (usual or lower not in found) and is_dir(inside):
            found[lower] = inside
    return {name: found[name] for name in names if name in found}


def same_text(text: str) -> str:
    """Returns text in Unicode NFC, so that texts that look equal compare equal."""
    return unicodedata.normalize("NFC", text)


def unread_text(unread: Sequence[Path], shown: int = 5) -> str:
    """Formats a list of unread files as one sentence."""
    names = ", ".join(str(path) for path in unread[:shown])
    more = f", and {len(unread) - shown} more" if len(unread) > shown else ""
    what = "1 file is" if len(unread) == 1 else f"{len(unread)} files are"
    return (
        f"{what} not read, because only <id>.npy in the folder of a series (such as axial/) is a "
        f"stack: {names}{more}"
    )


def what_is_there(folder: Path) -> str:
    """Describes a path that contains no exams: "no such folder", or the first names in it."""
    if not exists(folder):
        return "no such folder"
    if not is_dir(folder):
        return "a file"
    names = sorted(p.name + "/" * is_dir(p) for p in folder.iterdir() if p.name[0] != ".")
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) + more) or "an empty folder"


def folder_meant(folder: Path, *, data_set: bool, split: str | None = None) -> str | None:
    """Suggests another path if exams are in a folder near the given one.

    Args:
        folder: the given path.
        data_set: whether a data set is needed (with train/ and valid/); otherwise a folder that
            contains the folders of series is suggested too.
        split: the split that is missing in `folder`.

    Returns:
        The advice; None if nothing was found.
    """
    if split is not None and _is_data_set(folder):
        return _split_meant(folder, split)
    above: list[Path] = []  # parents of a split's folder or a series' folder
    if folder.name.lower() in PLANES or folder.absolute() in _series_inside(
        folder.absolute().parent
    ):
        above = list(folder.absolute().parents)[:2]
    elif has_series(folder):
        above = [folder.absolute().parent]
    below = [folder, *_below(folder)]
    for near in [*above, *below[1:]]:
        if _is_data_set(near) or (not data_set and has_series(near)):
            return f"use the folder {near}"
    if data_set:
        for near in below:
            if has_series(near):
                return f"move {near} into a new folder as train/ or valid/, and use that folder"
    packed = [p for f in below for p in [f, *_entries(f)] if p.suffix.lower() in _PACKED]
    if packed:
        return f"unpack {packed[0]}, and use the unpacked folder"
    return None


def _split_meant(data: Path, split: str) -> str:
    """Returns advice on a data set that lacks a split; another split is never read instead."""
    for packed in _entries(data):
        if packed.suffix.lower() in _PACKED and packed.name.lower().startswith(f"{split}."):
            return f"unpack {packed}"
    others = [inside.name for inside in _folders(data) if has_series(inside)]
    near = [name for name in others if name.lower() == split or {name, split} == {"val", "valid"}]
    if near:
        return f"rename the folder {data / near[0]} to {split}"
    return f"add the folder {split}/; existing splits: {', '.join(others)}"


def _below(folder: Path) -> Iterator[Path]:
    """Yields the folders one and two levels below, the first level first."""
    first = list(_folders(folder))
    yield from first
    for one in first:
        yield from _folders(one)


def _is_data_set(folder: Path) -> bool:
    return any(has_series(inside) for inside in _folders(folder))


def has_series(folder: Path) -> bool:
    """Returns whether a folder contains the folder of a series."""
    return bool(_series_inside(folder))


def _series_inside(folder: Path) -> list[Path]:
    try:
        return list(series_folders(folder).values())
    except (OSError, MrkneeError):  # no permission, or an invalid series.csv
        return []


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if is_dir(path) and path.name[0] != "."]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())[:_LOOKED_AT] if is_dir(folder) else []
    except OSError:  # no permission
        return []
