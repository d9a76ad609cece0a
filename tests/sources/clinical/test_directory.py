"""Images that a DICOMDIR lists and that are missing."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from mrknee.sources.clinical.directory import ListedImage, missing

DISC = PurePosixPath("/disc")
LISTED = [ListedImage(DISC, DISC / "DICOM" / f"IM{n:04d}", f"1.2.{n}") for n in range(4)]


@pytest.mark.parametrize(
    ("names", "instances", "absent"),
    [
        ([one.name for one in LISTED], [], 0),
        ([one.name for one in LISTED[:3]], [], 1),
        ([PurePosixPath(f"/disc/dicom/im000{n}.;1") for n in range(3)], [], 1),
        ([PurePosixPath("/disc/renamed")], ["1.2.0", "1.2.1", "1.2.2", "1.2.3"], 0),
        ([PurePosixPath("/disc/renamed")], ["1.2.0", "1.2.1"], 2),
        ([PurePosixPath("/other/IM0000")], ["9.9"], 0),
    ],
    ids=["all", "one lost", "as discs write names", "renamed", "renamed, lost", "of other files"],
)
def test_listed_images_are_found_by_name_or_uid(
    names: list[PurePosixPath], instances: list[str], absent: int
) -> None:
    """Listed images are found by path or UID; a DICOMDIR without any present image is ignored."""
    assert len(missing(LISTED, names, instances)) == absent
