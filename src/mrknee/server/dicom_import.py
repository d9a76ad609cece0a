"""Import of an uploaded archive of DICOM files, in a process of its own (`dicom_process`)."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from mrknee.errors import RequestError
from mrknee.exams import SeriesList
from mrknee.server.limits import ServiceLimits
from mrknee.server.refusal import RefusalError
from mrknee.untrusted import parse_json


async def import_archive(
    archive: Path, out: Path, series: SeriesList, limits: ServiceLimits, *, left: bool
) -> None:
    """Imports an archive in a process of its own.

    Args:
        archive: the archive.
        out: new folder for the exams and `import.json`.
        series: the series to choose; exams may lack some.
        limits: time and memory of the process.
        left: whether to mirror right knees.

    Raises:
        RefusalError: the archive can't be imported, or takes more than the limits allow.
    """
    given = {"series": series.to_dicts(), "left": left}
    given |= {"seconds": limits.import_seconds, "memory_mb": limits.import_memory_mb}
    options = json.dumps(given)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mrknee.server.dicom_process", str(archive), str(out), options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # messages of libraries may quote the files
        start_new_session=True,  # Ctrl-C ends the service in order
    )
    try:
        async with asyncio.timeout(limits.import_seconds):
            printed, _ = await process.communicate()
    except TimeoutError:
        raise _beyond(limits, f"no result after {limits.import_seconds} seconds") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if printed:
        fault = parse_json(printed, None, "answer of the import")
        raise RefusalError(422, RequestError(fault.pop("what"), code="import", **fault))
    if process.returncode != 0:
        raise _beyond(limits, f"the import ended with the status {process.returncode}")


def _beyond(limits: ServiceLimits, found: str) -> RefusalError:
    fault = RequestError(
        "the archive can't be imported within the limits of the service",
        code="import",
        expected=f"at most {limits.import_seconds} seconds and {limits.import_memory_mb:,} MB of "
        "memory",
        found=found,
        advice="use mrknee import",
    )
    return RefusalError(422, fault)
