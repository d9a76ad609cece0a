"""Digest of an exam's content, so that a resumed import keeps only exams of unchanged files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from mrknee.errors import MrkneeError
from mrknee.sources.clinical.completeness import failed
from mrknee.sources.clinical.locate import Location, Opener
from mrknee.sources.clinical.study import Study

NO_LOCATION = Location(Path())


def content_digest(study: Study, record: Mapping[str, Any], source_digest: str) -> str:
    """Returns a SHA-256 digest of a study's headers and of the files its exam was read from.

    Series that were not read contribute their headers only.

    Args:
        study: the study.
        record: entry of the exam in import.json, which states the series that were read.
        source_digest: digest of the complete source. It salts the result, so that the digest
            reveals nothing without the complete source.
    """
    digest = hashlib.sha256(source_digest.encode())
    for one in study.candidates:
        for image in one.series.images:  # independent of their paths
            digest.update(repr(replace(image, location=NO_LOCATION)).encode())
    with Opener() as opener:
        for location in _files_read(study, record):
            try:
                with opener.open(location) as file:
                    digest.update(hashlib.file_digest(cast(Any, file), "sha256").digest())
            except MrkneeError as error:
                digest.update(error.what.encode())
    return digest.hexdigest()


def _files_read(study: Study, record: Mapping[str, Any]) -> list[Location]:
    """Returns the files of all series that were read or could not be read."""
    rows = {row["name"]: row for row in record["candidates"]}
    found: set[Location] = set()
    for one in study.candidates:
        # the record of an exam that crashed its process doesn't state which series were read
        maybe = not rows and one.refusal is None
        if maybe or failed(one, rows) or rows.get(one.name, {}).get("status") == "chosen":
            found.update(image.location for image in one.series.images)
    return sorted(found, key=lambda location: str(location.name))
