"""Which files of a folder are stacks, which are not read, and which folder was meant instead."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mrknee.errors import DataError, MrkneeError
from mrknee.exams.series import PLANES, SERIES_FILE, SeriesList, plane_named, read_series

_PACKED = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar")

_LOOKED_AT = 200  # entries of a folder, in search of the one that was meant


@dataclass(frozen=True)
class Listing:
    """The files of the series' folders.

    Attributes:
        files: id -> series -> its file, sorted by id.
        unread: files in the series' folders that are not read, sorted: other endings (`.npz`,
            `.npy.gz`), hidden stacks; and what lies beside the series' folders: stacks, folders
            with stacks inside, folders named by a synonym (`sag/`) or like a series that another
            folder stands for. Other hidden files, and what macOS writes beside a file
            (`._0000.npy` beside `0000.npy`), are nobody's data and are not listed.
    """

    files: Mapping[str, Mapping[str, Path]]
    unread: tuple[Path, ...]


def declared_series(folder: Path) -> SeriesList:
    """The series that a folder of stacks declares: by `series.csv` in it, or beside it.

    A split's folder, `DATA/train`, has the file beside it: `DATA/series.csv`.

    Raises:
        DataError: the file can't be read.
    """
    inside = (folder / SERIES_FILE).is_file()
    return read_series(folder if inside else folder.absolute().parent)


def list_stacks(folder: Path, series: SeriesList) -> Listing:
    """Lists the stacks of a folder that holds the series' folders.

    Folders may be named `Axial`, and files may end in `.NPY`. Ids are file names without their
    ending, in Unicode's composed form (NFC), because macOS writes the decomposed one (NFD) for what
    is typed the same.

    Raises:
        MrkneeError: two files of a series are one exam's.
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
                        "two files of a series are one exam's",
                        code="stack-twice",
                        file=file,
                        exam=same_text(file.stem),
                        expected=f"one file per exam in {inside.name}/",
                        found=f"{those[name].name!a} and {file.name!a}",
                        advice="remove or rename one of them",
                    )
                those[name] = file
    if folder.is_dir():
        others = [f for f in folder.iterdir() if f not in folders.values() and f.name[0] != "."]
        unread += [f for f in others if _holds_stacks(f)]
    return Listing({i: found[i] for i in sorted(found)}, tuple(sorted(unread)))


def _holds_stacks(path: Path) -> bool:
    """Whether something beside the series' folders is a stack, or a folder that may hold some."""
    if path.suffix.lower() == ".npy":
        return True
    if not path.is_dir():
        return False
    return plane_named(path.name) is not None or any(
        inside.suffix.lower() == ".npy" for inside in _entries(path)
    )


def series_folders(folder: Path, series: SeriesList | None = None) -> dict[str, Path]:
    """The series' folders inside a folder, whatever the case of their names.

    Where several are one series', it is the one named as usual, else the first by name.

    Args:
        folder: any folder.
        series: the series there may be; None takes those that the folder declares.
    """
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    names = (declared_series(folder) if series is None else series).names
    for inside in sorted(folder.iterdir()):
        lower = inside.name.lower()
        usual = inside.name == lower
        if lower in names and (usual or lower not in found) and inside.is_dir():
            found[lower] = inside
    return {name: found[name] for name in names if name in found}


def same_text(text: str) -> str:
    """Text in Unicode's composed form, NFC: what looks the same is the same."""
    return unicodedata.normalize("NFC", text)


def unread_text(unread: Sequence[Path], shown: int = 5) -> str:
    """Which files are not read, as text for a person."""
    names = ", ".join(str(path) for path in unread[:shown])
    more = f", and {len(unread) - shown} more" if len(unread) > shown else ""
    what = "1 file is" if len(unread) == 1 else f"{len(unread)} files are"
    return (
        f"{what} not read, because only <id>.npy in a series' folder (such as axial/) is a stack: "
        f"{names}{more}"
    )


def what_is_there(folder: Path) -> str:
    """What stands in place of exams, for a message: "no such folder", or the first names."""
    if not folder.exists():
        return "no such folder"
    if not folder.is_dir():
        return "a file"
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir() if p.name[0] != ".")
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) + more) or "an empty folder"


def folder_meant(folder: Path, *, data_set: bool, split: str | None = None) -> str | None:
    """Advice on which folder to name, where exams are near the one that was named.

    Args:
        folder: what was named.
        data_set: whether a data set is wanted (train/ and valid/ inside); else a folder with the
            series' folders will do too.
        split: the split that was looked for in it and isn't there.

    Returns:
        What to do; None where nothing was found.
    """
    if split is not None and _is_data_set(folder):
        return _split_meant(folder, split)
    above: list[Path] = []  # of a split's folder, or a series'
    if folder.name.lower() in PLANES or folder.absolute() in _series_inside(
        folder.absolute().parent
    ):
        above = list(folder.absolute().parents)[:2]
    elif has_series(folder):
        above = [folder.absolute().parent]
    below = [folder, *_below(folder)]
    for near in [*above, *below[1:]]:
        if _is_data_set(near) or (not data_set and has_series(near)):
            return f"name the folder {near}"
    if data_set:
        for near in below:
            if has_series(near):
                return f"put {near} into a folder of its own as train/ or valid/, and name that"
    packed = [p for f in below for p in [f, *_entries(f)] if p.suffix.lower() in _PACKED]
    if packed:
        return f"unpack {packed[0]}, and name the folder that comes out"
    return None


def _split_meant(data: Path, split: str) -> str:
    """What to do about a data set that lacks a split: never to read another one unasked."""
    for packed in _entries(data):
        if packed.suffix.lower() in _PACKED and packed.name.lower().startswith(f"{split}."):
            return f"unpack {packed}"
    others = [inside.name for inside in _folders(data) if has_series(inside)]
    near = [name for name in others if name.lower() == split or {name, split} == {"val", "valid"}]
    if near:
        return f"rename the folder {data / near[0]} to {split}"
    return f"add the folder {split}/; the splits that are there: {', '.join(others)}"


def _below(folder: Path) -> Iterator[Path]:
    """The folders one and two levels below, nearer ones first."""
    first = list(_folders(folder))
    yield from first
    for one in first:
        yield from _folders(one)


def _is_data_set(folder: Path) -> bool:
    return any(has_series(inside) for inside in _folders(folder))


def has_series(folder: Path) -> bool:
    """Whether a folder holds a series' folder."""
    return bool(_series_inside(folder))


def _series_inside(folder: Path) -> list[Path]:
    try:
        return list(series_folders(folder).values())
    except (OSError, MrkneeError):  # not ours to look into; or a list of series that is broken
        return []


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir() and path.name[0] != "."]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())[:_LOOKED_AT] if folder.is_dir() else []
    except OSError:  # not ours to look into
        return []
