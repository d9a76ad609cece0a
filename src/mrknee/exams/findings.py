"""Findings that exams are labelled with: names, order and titles.

A data set may declare them in `findings.csv` in its folder:

    name,title
    medial_meniscus,Medial Meniscus
    acl,ACL tear

Otherwise the findings are those with label files: MRNet's first, then the others by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from mrknee.errors import DataError
from mrknee.exams.declaration import read_declaration
from mrknee.files import is_file, write_csv

RESERVED_NAMES = ("exam", "mean")
"""Names that a finding can't have: in tables of predictions, `exam` is the column of ids and `mean`
the mean over findings."""

MRNET_FINDINGS = ("abnormal", "acl", "meniscus")
"""MRNet's findings, in the order of the competition's output."""

RSNA_2026_FINDINGS: Mapping[str, str] = MappingProxyType(
    {
        "acl": "ACL",
        "mcl": "MCL",
        "medial_meniscus": "Medial Meniscus",
        "lateral_meniscus": "Lateral Meniscus",
        "medial_oa": "Medial OA",
        "lateral_oa": "Lateral OA",
        "pf_oa": "PF OA",
        "effusion": "Effusion",
        "synovitis": "Synovitis",
        "bakers": "Baker's",
        "contusion": "Contusion",
        "fracture": "Fracture",
    }
)
"""Findings of RSNA's data set of 2026 (Knee Abnormality Detection), in its order: name -> title,
which is the column of its tables."""

FINDINGS_FILE = "findings.csv"
COLUMNS = ("name", "title")

LONGEST_TITLE = 80
"""Maximum number of characters in a title, which is shown in tables and figures."""

_MAX_BYTES = 1_000_000


class Findings(tuple[str, ...]):
    """Names of findings, in the given order.

    Raises:
        DataError: there is no name, a name is repeated or reserved (`RESERVED_NAMES`), or a name
            has characters other than lower-case letters, digits, `_` and `-` (names become file
            names and CSV columns).
    """

    __slots__ = ()

    def __new__(cls, names: Iterable[str]) -> Findings:
        """Validates the names."""
        given = list(names)
        if not given:
            raise DataError(
                "no finding is given", code="no-findings", expected="at least one finding"
            )
        seen: set[str] = set()
        for name in given:
            if not (isinstance(name, str) and name) or not all(
                c.isascii() and (c.islower() or c.isdigit() or c in "_-") for c in name
            ):
                raise DataError(
                    "a finding's name can't be used",
                    code="label-name",
                    expected="lower-case letters, digits, _ and -",
                    found=repr(name),
                )
            if name in RESERVED_NAMES:
                raise DataError(
                    "a finding has a reserved name",
                    code="label-name",
                    expected="another name: exam is the column of ids, mean the mean over findings",
                    found=repr(name),
                )
            if name in seen:
                raise DataError("a finding is named twice", code="finding-twice", found=repr(name))
            seen.add(name)
        return super().__new__(cls, given)

    @classmethod
    def usual(cls, names: Iterable[str]) -> Findings:
        """Returns findings in the default order: abnormal, acl, meniscus, then others by name."""
        return cls(sorted(cls(names), key=_usual_place))

    def __repr__(self) -> str:
        return f"Findings({', '.join(self)})"


def _usual_place(name: str) -> tuple[int, str]:
    known = name in MRNET_FINDINGS
    return (MRNET_FINDINGS.index(name) if known else len(MRNET_FINDINGS), name)


def read_findings(root: str | Path) -> Mapping[str, str] | None:
    """Reads the findings that a data set declares in `findings.csv`.

    Args:
        root: the folder that may contain `findings.csv`.

    Returns:
        Finding -> title ("" if it has none), in the declared order. None if there is no such file.

    Raises:
        DataError: the file is not a valid table of findings.
    """
    file = Path(root) / FINDINGS_FILE
    if not is_file(file):
        return None
    rows = read_declaration(file, COLUMNS, COLUMNS[:1], at_most=_MAX_BYTES)
    names = [row["name"].lower() for _, row in rows]
    try:
        Findings(names)
    except DataError as error:
        raise DataError(
            f"{FINDINGS_FILE} can't be used: {error.what}",
            code="declaration",
            file=file,
            expected=error.expected or "each finding once; case is ignored",
            found=error.found,
            advice="use a short name, and write the full name into the column title",
        ) from None
    for where, row in rows:
        if len(row["title"]) > LONGEST_TITLE or not row["title"].isprintable():
            raise DataError(
                f"{FINDINGS_FILE} has a title that can't be used",
                code="declaration",
                file=file,
                expected=f"at most {LONGEST_TITLE} printable characters",
                found=where,
            )
    titles = [row["title"] for _, row in rows]
    return MappingProxyType(dict(zip(names, titles, strict=True)))


def in_order(names: Iterable[str], declared: Mapping[str, str] | None) -> Findings:
    """Returns findings in the order of a data set.

    Args:
        names: names of at least one finding.
        declared: the result of `read_findings`.

    Returns:
        The declared findings in their declared order, then the others in the default order.
    """
    usual = Findings.usual(names)
    place = {name: i for i, name in enumerate(declared or ())}
    return Findings(sorted(usual, key=lambda name: place.get(name, len(place))))


def write_findings(root: str | Path, titles: Mapping[str, str]) -> Path:
    """Writes `findings.csv` into a data set's folder atomically.

    Args:
        root: the data set's folder.
        titles: finding -> title, in order.

    Returns:
        The written file.
    """
    file = Path(root) / FINDINGS_FILE
    Findings(titles)
    write_csv(file, [COLUMNS, *titles.items()])
    return file
