"""Limits of the service that its operator sets (`mrknee serve --max-body-mb 200`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from mrknee.ranges import Range

RANGES: Mapping[str, Range] = {
    "max_body_mb": Range(1, 10_000),
    "upload_seconds": Range(1, 86_400),
    "max_waiting": Range(1, 1_000),
    "max_connections": Range(8, 10_000),
    "import_seconds": Range(1, 86_400),
    "import_memory_mb": Range(1_024, 1_048_576),
}
"""Limit -> its range. A process that imports DICOM needs about 700 MB of address space."""


@dataclass(frozen=True)
class ServiceLimits:
    """Limits per request and in total.

    Attributes:
        max_body_mb: maximum size of a request's body, MB. The largest exam of MRNet (3 planes of 61
            slices of 256 x 256) has 12 MB in uint8 and 96 MB in float64. The bodies being received
            may together have eight times this size, and the files of an archive ten times.
        upload_seconds: maximum time to receive a body, s.
        max_waiting: maximum number of received exams: those waiting and the one being processed;
            and, separately, of received uploads to the work list.
        max_connections: maximum number of open connections. A further connection closes the one
            that has waited longest without sending a complete head.
        import_seconds: maximum time to import an archive of DICOM files, s; a study of three series
            takes a few seconds.
        import_memory_mb: maximum address space of the process that imports it, MB, libraries
            included.

    Raises:
        SettingsError: a limit is out of its range.
    """

    max_body_mb: int = 100
    upload_seconds: int = 60
    max_waiting: int = 8
    max_connections: int = 256
    import_seconds: int = 60
    import_memory_mb: int = 4_096

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for one in fields(self):
            RANGES[one.name].check(f"--{one.name.replace('_', '-')}", getattr(self, one.name))

    @property
    def body_bytes(self) -> int:
        """Maximum size of a body in bytes."""
        return self.max_body_mb * 1_000_000

    @property
    def arriving_bytes(self) -> int:
        """Maximum total size of the bodies being received."""
        return 8 * self.body_bytes

    @property
    def unpacked_bytes(self) -> int:
        """Maximum total size of the files of an archive."""
        return 10 * self.body_bytes


DEFAULT_LIMITS = ServiceLimits()
