"""Process that imports an uploaded archive of DICOM files, with limits.

`python -m mrknee.server.dicom_process ARCHIVE OUT OPTIONS` imports ARCHIVE into the folder OUT by
the rules of `mrknee import`. OPTIONS is JSON. The limits of the process bound what a damaged or
malicious file can use. An error is printed as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mrknee.errors import MrkneeError
from mrknee.exams import Series, SeriesList
from mrknee.progress import show_progress
from mrknee.sources.clinical.importing import import_exams
from mrknee.untrusted import parse_json

FILE_BYTES, OPEN_FILES = 512 * 2**20, 256
"""Maximum size of a written file, and number of open files."""


def limit_this_process(seconds: int, memory_mb: int) -> None:
    """Sets the limits of this process, which its threads and children inherit.

    Args:
        seconds: half of the processor time; the time by the clock is limited from outside.
        memory_mb: address space, MB.
    """
    for what, limit in (
        (resource.RLIMIT_AS, memory_mb * 2**20),
        (resource.RLIMIT_CPU, 2 * seconds),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))


def run(archive: Path, out: Path, options: Mapping[str, Any]) -> None:
    """Imports an archive.

    Args:
        archive: the archive.
        out: new folder for the exams and `import.json`.
        options: `series`, as `SeriesList.to_dicts` returns them; `left`: whether to mirror right
            knees; `seconds` and `memory_mb`: limits of the process.

    Raises:
        MrkneeError: nothing can be imported.
    """
    import_exams(
        archive,
        out,
        series=SeriesList(Series(**one) for one in options["series"]),
        allow_missing_plane=True,
        sides="left" if options["left"] else "as-imaged",
        workers=1,
    )


if __name__ == "__main__":
    show_progress(False)
    try:
        options = parse_json(sys.argv[3], None, "options of the import")
        limit_this_process(options["seconds"], options["memory_mb"])
        run(Path(sys.argv[1]), Path(sys.argv[2]), options)
    except MrkneeError as error:
        names = ("what", "expected", "found", "advice")
        print(json.dumps({name: getattr(error, name) for name in names}))
