"""A digest of what an exam was made from, so that an import goes on with the same content only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from mrknee.errors import MrkneeError
from mrknee.sources.clinical.lacking import failed
from mrknee.sources.clinical.locate import Location, Opener
from mrknee.sources.clinical.study import Study

NOWHERE = Location(Path())


def content_digest(study: Study, record: Mapping[str, Any], seal: str) -> str:
    """One number for a study's headers and for the files that its exam was read from.

    Files of series that nobody tried to read count by their headers only, which decide that.

    Args:
        study: the study.
        record: what import.json says of the exam; says which series were read.
        seal: of the whole source. With it, the number tells nothing to anyone who doesn't hold
            all of the source.
    """
    whole = hashlib.sha256(seal.encode())
    for one in study.candidates:
        for image in one.series.images:  # wherever it lies
            whole.update(repr(replace(image, location=NOWHERE)).encode())
    with Opener() as opener:
        for location in _read_from(study, record):
            try:
                with opener.open(location) as file:
                    whole.update(hashlib.file_digest(cast(Any, file), "sha256").digest())
            except MrkneeError as error:
                whole.update(error.what.encode())
    return whole.hexdigest()


def _read_from(study: Study, record: Mapping[str, Any]) -> list[Location]:
    """The files of all series that were read, or that could not be."""
    rows = {row["name"]: row for row in record["candidates"]}
    found: set[Location] = set()
    for one in study.candidates:
        # of an exam that brought its process down, nothing says which series it was
        open_one = not rows and one.refusal is None
        if open_one or failed(one, rows) or rows.get(one.name, {}).get("status") == "chosen":
            found.update(image.location for image in one.series.images)
    return sorted(found, key=lambda location: str(location.name))
