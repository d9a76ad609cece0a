"""Fields of the responses of /api/v1, as pydantic models."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

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
    frame: str | None = Field(
        description="series with equal, known frames share a coordinate system; null if unknown"
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


class Progress(BaseModel):
    """Response to GET /api/v1/progress."""

    total: int
    scored: int
    failed: int
    seconds_left: float | None = Field(description="estimate; null before the first exam")
