"""Which files of a folder are stacks, which are not read, and which folder was meant instead."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mrknee.errors import DataError
from mrknee.exams.exam import PLANES, Plane, plane_named

_PACKED = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar")

_LOOKED_AT = 200  # entries of a folder, in search of the one that was meant


@dataclass(frozen=True)
class Listing:
    """The files of the planes' folders.

    Attributes:
        files: id -> plane -> its file, sorted by id.
        unread: files in the planes' folders that are not read, sorted: other endings (`.npz`,
            `.npy.gz`), hidden stacks; and what lies beside the planes' folders: stacks, folders
            with stacks inside, folders named by a synonym (`sag/`) or like a plane that another
            folder stands for. Other hidden files, and what macOS writes beside a file
            (`._0000.npy` beside `0000.npy`), are nobody's data and are not listed.
    """

    files: Mapping[str, Mapping[Plane, Path]]
    unread: tuple[Path, ...]


def list_stacks(folder: Path) -> Listing:
    """Lists the stacks of a folder that holds the planes' folders.

    Folders may be named `Axial`, and files may end in `.NPY`. Ids are file names without their
    ending, in Unicode's composed form (NFC), because macOS writes the decomposed one (NFD) for what
    is typed the same.

    Raises:
        MrkneeError: two files of a plane are one exam's.
    """
    found: dict[str, dict[Plane, Path]] = {}
    unread: list[Path] = []
    folders = plane_folders(folder)
    for plane, inside in folders.items():
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
                planes = found.setdefault(same_text(file.stem), {})
                if plane in planes:
                    raise DataError(
                        "two files of a plane are one exam's",
                        code="stack-twice",
                        file=file,
                        exam=same_text(file.stem),
                        expected=f"one file per exam in {inside.name}/",
                        found=f"{planes[plane].name!a} and {file.name!a}",
                        advice="remove or rename one of them",
                    )
                planes[plane] = file
    if folder.is_dir():
        others = [f for f in folder.iterdir() if f not in folders.values() and f.name[0] != "."]
        unread += [f for f in others if _holds_stacks(f)]
    return Listing({i: found[i] for i in sorted(found)}, tuple(sorted(unread)))


def _holds_stacks(path: Path) -> bool:
    """Whether something beside the planes' folders is a stack, or a folder that may hold some."""
    if path.suffix.lower() == ".npy":
        return True
    if not path.is_dir():
        return False
    return plane_named(path.name) is not None or any(
        inside.suffix.lower() == ".npy" for inside in _entries(path)
    )


def plane_folders(folder: Path) -> dict[Plane, Path]:
    """The planes' folders inside a folder, whatever the case of their names.

    Where several are one plane's, it is the one named as usual, else the first by name.
    """
    found: dict[Plane, Path] = {}
    if not folder.is_dir():
        return found
    for inside in sorted(folder.iterdir()):
        lower = inside.name.lower()
        usual = inside.name == lower
        if lower in PLANES and (usual or Plane(lower) not in found) and inside.is_dir():
            found[Plane(lower)] = inside
    return {plane: found[plane] for plane in PLANES if plane in found}


def same_text(text: str) -> str:
    """Text in Unicode's composed form, NFC: what looks the same is the same."""
    return unicodedata.normalize("NFC", text)


def unread_text(unread: Sequence[Path], shown: int = 5) -> str:
    """Which files are not read, as text for a person."""
    names = ", ".join(str(path) for path in unread[:shown])
    more = f", and {len(unread) - shown} more" if len(unread) > shown else ""
    what = "1 file is" if len(unread) == 1 else f"{len(unread)} files are"
    return (
        f"{what} not read, because only <id>.npy in axial/, coronal/ and sagittal/ is a stack: "
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
            planes' folders will do too.
        split: the split that was looked for in it and isn't there.

    Returns:
        What to do; None where nothing was found.
    """
    if split is not None and _is_data_set(folder):
        return _split_meant(folder, split)
    above: list[Path] = []  # of a split's folder, or a plane's
    if folder.name.lower() in PLANES:
        above = list(folder.absolute().parents)[:2]
    elif has_planes(folder):
        above = [folder.absolute().parent]
    below = [folder, *_below(folder)]
    for near in [*above, *below[1:]]:
        if _is_data_set(near) or (not data_set and has_planes(near)):
            return f"name the folder {near}"
    if data_set:
        for near in below:
            if has_planes(near):
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
    others = [inside.name for inside in _folders(data) if has_planes(inside)]
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
    return any(has_planes(inside) for inside in _folders(folder))


def has_planes(folder: Path) -> bool:
    """Whether a folder holds a plane's folder."""
    try:
        return bool(plane_folders(folder))
    except OSError:  # not ours to look into
        return False


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir() and path.name[0] != "."]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())[:_LOOKED_AT] if folder.is_dir() else []
    except OSError:  # not ours to look into
        return []
