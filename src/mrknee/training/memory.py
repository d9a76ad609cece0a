"""Free memory of the machine for this process, including limits by cgroups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def resident_memory(proc: Path = _PROC) -> int | None:
    """Returns the resident memory of this process in bytes; None if unknown."""
    return _kilobytes(proc / "self" / "status", "VmRSS:")


def free_memory(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """Returns the bytes that can still be allocated before a process is killed; None if unknown.

    This is the minimum of the memory that the kernel reports as available and of the rest below the
    limit of each cgroup of this process (version 1 or 2, all levels; containers, SLURM and systemd
    set such limits). Cached files count as free, also in cgroups.
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
    """Yields the bytes left below each memory limit; 2**60 and more means no limit."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            root, limit, usage, cached = cgroups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, usage = (
                cgroups / "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
            cached = "total_inactive_file"
        else:
            continue
        # in a container, the path may exist on the host only; then the root is the container's
        own = root / path.lstrip("/")
        for folder in dict.fromkeys([own, *own.parents, root]):
            if folder.is_relative_to(root):
                left = _bytes_left(folder, limit, usage, cached)
                if left is not None:
                    yield left


def _bytes_left(folder: Path, limit: str, usage: str, cached: str) -> int | None:
    try:
        maximum = (folder / limit).read_text().strip()
        if maximum == "max" or int(maximum) >= 2**60:
            return None
        used = int((folder / usage).read_text())
        statistics = dict(
            line.split() for line in (folder / "memory.stat").read_text().splitlines()
        )
    except (OSError, ValueError):  # no such level, or no limit at this level
        return None
    return max(int(maximum) - used + int(statistics.get(cached, 0)), 0)
