"""Fields of the responses of /api/v1, as pydantic models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mrknee.exams.series import MOST_SERIES
from mrknee.server.schemas import ExamRemark, Explained, Fault, ModelFacts, Series


class OperatingPoint(BaseModel):
    """A threshold on the probability."""

    rule: str = Field(description='how it was chosen, such as "Youden"')
    threshold: float | None = Field(description="null if none could be chosen")
    reason: str | None = Field(description="why there is no threshold, or null")


class TitledSeries(Series):
    """One input series of the model."""

    title: str = Field(description="text for people")


class RoomModel(ModelFacts):
    """Response to GET /api/v1/model: as GET /model, and what a page needs."""

    series: list[TitledSeries] = Field(  # type: ignore[assignment]  # with titles
        description="in the model's order"
    )
    titles: dict[str, str] = Field(description="finding -> text for people")
    operating_points: dict[str, list[OperatingPoint]] = Field(
        description="finding -> operating points; the work list uses the first with a threshold"
    )
    uncalibrated: dict[str, str] = Field(description="uncalibrated finding -> reason")
    explainable: bool = Field(description="whether explanations and heat maps are available")
    notes: bool = Field(description="whether readers' notes are kept")
    data_sets: dict[str, list[str]] = Field(description="data set -> splits; uploads excluded")


class ExamNote(BaseModel):
    """What readers noted about an exam, in short."""

    agree: int = Field(description="findings with agreement")
    disagree: int = Field(description="findings with disagreement")
    comments: int = Field(description="findings with a comment")


class ExamRow(BaseModel):
    """One exam of the work list."""

    key: str = Field(description="identifies the exam in addresses")
    id: str
    data_set: str = Field(description='name of the data set, or "upload"')
    split: str | None
    series: list[str] = Field(description="names of the exam's series")
    labels: dict[str, float | None] | None = Field(
        description="finding -> label from 0 to 1, null if unknown; null without labels"
    )
    probabilities: dict[str, float] | None = Field(description="null until scored")
    state: Literal["waiting", "scored", "failed"]
    problem: Fault | None = Field(description="why the exam could not be scored")
    right: dict[str, bool | None] = Field(
        description="finding -> whether the call at the first operating point agrees with the label"
    )
    remarks: list[str] = Field(description="codes of remarks about the exam")
    note: ExamNote | None = Field(description="null if there is none")


class ExamList(BaseModel):
    """Response to GET /api/v1/exams."""

    total: int = Field(description="exams of the work list")
    matched: int = Field(description="exams that match the filters")
    scored: int
    failed: int
    offset: int
    exams: list[ExamRow]


class Position(BaseModel):
    """Position of a series, in mm in DICOM's patient coordinates (left, back, up)."""

    frame: int = Field(description="positions in the same frame of reference can be compared")
    first: tuple[float, float, float] = Field(
        description="centre of the first pixel of the first slice"
    )
    steps: tuple[
        tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]
    ] = Field(description="steps from slice to slice, row to row and column to column")


class ExamSeries(BaseModel):
    """One series of an exam."""

    name: str
    title: str
    plane: str
    slices: int
    rows: int
    cols: int
    sha256: str = Field(description="hash of the stack, for /api/v1/stacks/{sha256}")
    spacing: tuple[float, float, float] | None = Field(
        description="distance of slices, rows and columns in mm; null if unknown"
    )
    orientation: tuple[str, str, str, str] | None = Field(
        description="letters (R, L, A, P, S, I) at the left, right, top and bottom edge; null if "
        "unknown"
    )
    position: Position | None = Field(
        description="where the series lies in the patient; null if unknown"
    )
    masks: list[str] = Field(description="findings that have a mask of the lesion")


class ExamDetail(BaseModel):
    """Response to GET /api/v1/exams/{key}."""

    key: str
    id: str
    data_set: str
    split: str | None
    side: Literal["left", "right"] | None = Field(description="the patient's knee; null: unknown")
    mirrored: bool = Field(description="whether the images are mirrored")
    series: list[ExamSeries] = Field(description="in the data set's order")
    missing_series: list[str] = Field(description="series of the model that the exam lacks")
    labels: dict[str, float | None] | None
    remarks: list[ExamRemark] = Field(description="found while reading the files")


class SeriesMap(BaseModel):
    """A heat map, and where it lies in the slices of its stack.

    The map covers the rectangle from (top, left), in pixels of the stack, whose first pixel covers
    0 to 1. The rectangle is divided evenly into the cells, and may extend beyond the stack.
    """

    slices: int
    rows: int = Field(description="rows of cells")
    cols: int = Field(description="columns of cells")
    top: float
    left: float
    height: float
    width: float
    slices_read: list[int] = Field(description="indices of the slices that the network reads")


class ExamExplained(Explained):
    """Response to GET /api/v1/exams/{key}/explanation."""

    maps: dict[str, SeriesMap] = Field(description="series -> heat map")
    cell_scale: float = Field(description="largest absolute heat of any cell, in `unit`")


class UploadedExam(BaseModel):
    """An exam of an upload, which is in the work list now."""

    key: str = Field(description="`upload~` and 12 hexadecimal digits of the hash of its content")
    id: str
    series: list[str]


class FileProblem(Fault):
    """A part of an upload that can't be used."""

    file: str | None = Field(description="file or exam in the upload; null: the complete upload")


class Uploaded(BaseModel):
    """Response to POST /api/v1/uploads."""

    exams: list[UploadedExam]
    problems: list[FileProblem]
    problems_left_out: int = Field(description="number of further problems")


class WhatIf(BaseModel):
    """Body of POST /api/v1/exams/{key}/what-if: what to leave out."""

    model_config = ConfigDict(strict=True, extra="forbid")

    without_series: list[str] = Field(default_factory=list, max_length=MOST_SERIES)
    without_slices: dict[str, list[int]] = Field(
        default_factory=dict, description="series -> slices, counted from 0"
    )


class WhatIfResult(BaseModel):
    """Response to POST /api/v1/exams/{key}/what-if."""

    logits: dict[str, float] = Field(description="finding -> logit, before calibration")
    probabilities: dict[str, float] = Field(description="finding -> calibrated probability")
    origin: Literal["features", "stacks"] = Field(
        description="features: those of the remaining slices were pooled again (run folders); "
        "stacks: the remaining slices were read again as an exam (exported files)"
    )


class MarkedSlice(BaseModel):
    """A slice that a reader marked."""

    model_config = ConfigDict(strict=True, extra="forbid")

    series: str = Field(max_length=40)
    index: int = Field(ge=0, description="counted from 0")


class NoteContent(BaseModel):
    """Body of PUT /api/v1/exams/{key}/notes/{finding}; without content, the note is removed."""

    model_config = ConfigDict(strict=True, extra="forbid")

    agree: bool | None = Field(
        default=None, description="whether the reader agrees with the model; null: not stated"
    )
    comment: str = Field(
        default="",
        max_length=2000,
        pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$",
        description="any text without control characters",
    )
    slice: MarkedSlice | None = None


class ReaderNote(NoteContent):
    """What a reader noted about a finding of an exam."""

    changed: str | None = Field(description="time of the last change, UTC; null if there is none")


class Progress(BaseModel):
    """Response to GET /api/v1/progress."""

    total: int
    scored: int
    failed: int
    seconds_left: float | None = Field(description="estimate; null before the first exam")
