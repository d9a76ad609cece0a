"""Result of an import of RSNA's data set of 2026, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mrknee.exams import RSNA_2026_FINDINGS, USUAL_SERIES
from mrknee.tables import table_lines

SPLITS = ("train", "valid", "test")
MOST_REASONS = 10
"""Maximum number of reasons that are printed; import.json has them all."""


@dataclass(frozen=True)
class RsnaImport:
    """Result of an import.

    Attributes:
        exams: study -> record, as in import.json.
        groups: study -> group, of imported studies of `train.csv`.
        labels: finding -> study -> mean of the label tables.
        remarks: what the label tables contain that isn't used, one sentence each.
        read: number of studies that were read by this call; the others were imported before.
        seconds: duration of the import of the studies.
    """

    exams: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, str]
    labels: Mapping[str, Mapping[str, float]]
    remarks: Sequence[str]
    read: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every study of `test.csv` became an exam, and any study did."""
        tests = [exam for exam in self.exams.values() if exam["split"] == "test"]
        return bool(self._imported()) and all(exam["imported"] for exam in tests)

    def _imported(self, split: str | None = None) -> dict[str, Mapping[str, Any]]:
        return {
            uid: exam
            for uid, exam in self.exams.items()
            if exam["imported"] and split in (None, exam["split"])
        }

    def summary(self) -> str:
        """Returns what was imported, what was left out and why, and the speed."""
        rows = [["split", "studies", "imported", *USUAL_SERIES.names]]
        for split in SPLITS:
            total = sum(exam["split"] == split for exam in self.exams.values())
            exams = self._imported(split)
            having = [
                sum(name in exam["planes"] for exam in exams.values())
                for name in USUAL_SERIES.names
            ]
            if total:
                rows.append([split, f"{total}", f"{len(exams)}", *(f"{n}" for n in having)])
        lines = table_lines(rows, left=1)
        lines += [*self._left_out(), *self._sides(), *self._noted(), *self._labels(), *self.remarks]
        rate = f": {self.read / self.seconds:.2f} studies per second" if self.seconds else ""
        before = len(self.exams) - self.read
        lines.append(
            f"read {self.read} studies in {self.seconds:.0f} s{rate * bool(self.read)}"
            + (f"; {before} were imported before" if before else "")
        )
        return "\n".join(lines)

    def _left_out(self) -> list[str]:
        reasons = Counter(
            (exam["split"], exam["reason"]) for exam in self.exams.values() if exam["reason"]
        ).most_common()
        lines = [
            f"left out: {_studies(count)} of {split}: {reason}"
            for (split, reason), count in reasons[:MOST_REASONS]
        ]
        more = sum(count for _, count in reasons[MOST_REASONS:])
        return lines + ([f"left out: {_studies(more)} for other reasons"] if more else [])

    def _sides(self) -> list[str]:
        exams = self._imported().values()
        if not exams:
            return []
        sides = Counter(exam["side"] or "unknown" for exam in exams)
        origins = Counter(exam["side_from"] for exam in exams if exam["side"])
        mirrored = sum(exam["mirrored"] for exam in exams)
        named = ", ".join(f"{side} {count}" for side, count in sides.most_common())
        stated = ", ".join(f"{origin} {count}" for origin, count in origins.most_common())
        return [
            f"sides: {named}; {mirrored} mirrored to left"
            + (f"; stated by: {stated}" if stated else "")
        ]

    def _noted(self) -> list[str]:
        exams = self._imported().values()
        series = {
            "BodyPartExamined or a description names another part than the knee; it is ignored": (
                "other_body_part"
            ),
            "header and table of series disagree; the header is used": "disagreements",
        }
        lines = []
        for text, key in series.items():
            count = sum(len(exam[key]) for exam in exams)
            if count:
                within = sum(bool(exam[key]) for exam in exams)
                lines.append(f"{count} series of {_studies(within)}: {text}")
        unreadable = [exam["unreadable_series"] for exam in exams if exam["unreadable_series"]]
        if unreadable:
            lines.append(
                f"{sum(unreadable)} series of {_studies(len(unreadable))}: can't be read; the next "
                "best is used if there is one"
            )
        several = sum(exam["knees"] > 1 for exam in exams)
        if several:
            lines.append(f"{_studies(several)}: several knees or examinations; one is used")
        incomplete = sum(bool(exam["incomplete"]) for exam in exams)
        if incomplete:
            lines.append(f"{_studies(incomplete)}: slices, images or series are missing")
        return lines

    def _labels(self) -> list[str]:
        train, valid = self._imported("train"), self._imported("valid")
        if not train and not valid:
            return []
        sizes = Counter(self.groups.values()).most_common()
        lines = []
        if sizes:
            lines.append(
                f"groups of a common report or scanner: {len(sizes)}; the largest has "
                f"{_studies(sizes[0][1])}"
            )
        lines.append(f"experts' labels: {_studies(len(valid))}, split valid")
        if not any(self.labels.values()):
            lines.append(
                "labels of train: none; the same command with --labels TABLE adds them in seconds"
            )
            return lines
        means = []
        for name, title in RSNA_2026_FINDINGS.items():
            known = [p for uid, p in self.labels.get(name, {}).items() if uid in train]
            mean = f"{sum(known) / len(known):.2f}" if known else "-"
            means.append([title, f"{len(known)}", mean])
        return lines + table_lines([["labels of train", "studies", "mean"], *means], left=1)


def _studies(count: int) -> str:
    return f"{count} {'study' if count == 1 else 'studies'}"
