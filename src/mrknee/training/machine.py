"""How much memory this process may still take: the machine's, or less where a cgroup says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def resident_memory(proc: Path = _PROC) -> int | None:
    """Bytes of memory that this process holds now; None where the system doesn't say."""
    return _kilobytes(proc / "self" / "status", "VmRSS:")


def free_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """Bytes that can still be taken before something is ended; None where the system doesn't say.

    The least of what the kernel calls available and what is left in each cgroup this process is in
    (version 1 or 2, all levels: containers, SLURM and systemd set limits so). Files that the
    kernel keeps in memory count as free, in a cgroup too.
    """
    available = _kilobytes(proc / "meminfo", "MemAvailable:")
    if available is None:
        return None
    return min([available, *_left_in_cgroups(proc, cgroups)])


def _kilobytes(file: Path, name: str) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


def _left_in_cgroups(proc: Path, cgroups: Path) -> Iterator[int]:
    """What is left below each memory limit; 2**60 and more is no limit."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            root, limit, used, cached = cgroups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, used = cgroups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        else:
            continue
        # within a container the path can be one that only the host knows; the root is its own then
        own = root / path.lstrip("/")
        for folder in dict.fromkeys([own, *own.parents, root]):
            if folder.is_relative_to(root):
                left = _left(folder, limit, used, cached)
                if left is not None:
                    yield left


def _left(folder: Path, limit: str, used: str, cached: str) -> int | None:
    try:
        most = (folder / limit).read_text().strip()
        if most == "max" or int(most) >= 2**60:
            return None
        taken = int((folder / used).read_text())
        statistics = dict(
            line.split() for line in (folder / "memory.stat").read_text().splitlines()
        )
    except (OSError, ValueError):  # no such level, or no limit at it
        return None
    return max(int(most) - taken + int(statistics.get(cached, 0)), 0)
