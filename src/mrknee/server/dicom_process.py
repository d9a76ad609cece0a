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
from mrknee.server.import_limits import FILE_BYTES, MEMORY, OPEN_FILES, SECONDS
from mrknee.sources.clinical.importing import import_exams
from mrknee.untrusted import parse_json


def limit_this_process() -> None:
    """Sets the limits of this process, which its threads and children inherit."""
    for what, limit in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_CPU, 2 * SECONDS),
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
        options: `series`, as `SeriesList.to_dicts` returns them, and `left`: whether to mirror
            right knees.

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
    limit_this_process()
    show_progress(False)
    try:
        options = parse_json(sys.argv[3], None, "options of the import")
        run(Path(sys.argv[1]), Path(sys.argv[2]), options)
    except MrkneeError as error:
        names = ("what", "expected", "found", "advice")
        print(json.dumps({name: getattr(error, name) for name in names}))
