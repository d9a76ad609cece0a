from __future__ import annotations

from pathlib import Path

from mrknee.training.memory import free_memory, resident_memory

GB = 2**30


def write(folder: Path, files: dict[str, str]) -> None:
    """Writes small text files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")


def test_without_limit_free_memory_is_mem_available(tmp_path: Path) -> None:
    """This holds without cgroups, and with cgroups whose limit is "max"."""
    write(
        tmp_path,
        {
            "proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 4194304 kB",
            "proc/self/cgroup": "0::/user.slice",
            "cgroup/user.slice/memory.max": "max",
        },
    )
    assert free_memory(tmp_path / "proc", tmp_path / "cgroup") == 4 * GB


def test_limit_of_parent_cgroup_counts(tmp_path: Path) -> None:
    """Version 2: of the parent's 3 GB, 2 are used, of which 1 is cached files: 2 GB are free."""
    write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable: 64000000 kB",
            "proc/self/cgroup": "0::/job/task",
            "cgroup/job/task/memory.max": "max",
            "cgroup/job/memory.max": str(3 * GB),
            "cgroup/job/memory.current": str(2 * GB),
            "cgroup/job/memory.stat": f"anon {GB}\ninactive_file {GB}",
        },
    )
    assert free_memory(tmp_path / "proc", tmp_path / "cgroup") == 2 * GB


def test_limit_of_container_cgroup_version_1_counts(tmp_path: Path) -> None:
    """The path is that of the host; the limit is at the root visible in the container."""
    write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable: 64000000 kB",
            "proc/self/cgroup": "4:cpu:/docker/ab\n3:memory:/docker/ab\n0::/",
            "cgroup/memory/memory.limit_in_bytes": str(6 * GB),
            "cgroup/memory/memory.usage_in_bytes": str(GB),
            "cgroup/memory/memory.stat": "cache 5\ntotal_inactive_file 0",
        },
    )
    assert free_memory(tmp_path / "proc", tmp_path / "cgroup") == 5 * GB


def test_free_memory_is_none_if_unknown(tmp_path: Path) -> None:
    """On other systems than Linux, the result is None."""
    assert free_memory(tmp_path, tmp_path) is None
    assert resident_memory(tmp_path) is None
