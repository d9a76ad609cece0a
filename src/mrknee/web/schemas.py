"""What the service answers, field by field; `/openapi.json` is made of these."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

NOTICE = "research use only: these numbers are no diagnosis"


class Call(BaseModel):
    """What an operating point says of the exam."""

    rule: str = Field(description='how the threshold was chosen, such as "Youden"')
    threshold: float | None = Field(
        description="on the calibrated probability; null: there is none"
    )
    positive: bool | None = Field(description="whether the probability is at least the threshold")
    reason: str | None = Field(description="why there is no threshold, or null")


class FindingRead(BaseModel):
    """One finding."""

    probability: float = Field(ge=0, le=1, description="calibrated, if `calibrated` says so")
    calibrated: bool = Field(description="whether this finding's probability is calibrated")
    uncalibrated: str | None = Field(description="why it is not calibrated, or null")
    calls: list[Call] = Field(description="one an operating point; empty if the model has none")


class ExamRemark(BaseModel):
    """Something odd about the exam (docs/reference/plausibility.md)."""

    code: str
    series: str | None = Field(description="the series it concerns, or null")
    text: str


class Prediction(BaseModel):
    """What POST /predict answers."""

    request_id: str = Field(description="as in the header X-Request-ID")
    model: str = Field(description="name of the run folder or file that is served")
    model_digest: str = Field(description="SHA-256 of the model's files")
    mrknee: str = Field(description="version of the program")
    order: list[str] = Field(description="the findings in the model's order")
    calibrated: bool = Field(
        description="whether all findings' probabilities are calibrated; each finding says its own"
    )
    findings: dict[str, FindingRead]
    missing_series: list[str] = Field(
        description="series that were not read: not sent, or none the model was trained on"
    )
    remarks: list[ExamRemark] = Field(description="what is odd about the exam; empty: nothing")
    notice: str = NOTICE


class Place(BaseModel):
    """One slice of the exam."""

    series: str
    slice: int = Field(description="counted from 0")
    score: float = Field(description="what it adds to the logit")


class FindingExplained(BaseModel):
    """One finding's logit, taken apart."""

    probability: float = Field(ge=0, le=1, description="calibrated, if `calibrated` says so")
    calibrated: bool = Field(description="whether this finding's probability is calibrated")
    uncalibrated: str | None = Field(description="why it is not calibrated, or null")
    logit: float = Field(description="before calibration")
    bias: float = Field(description="the logit without any picture")
    residual: float = Field(description="how far bias and parts are from the logit")
    allowed_residual: float = Field(
        description="how far they may be and still add up to it, by rounding"
    )
    series: dict[str, float] = Field(description="what each series adds")
    slices: dict[str, list[float]] = Field(description="what each slice adds")
    most_raising_slice: Place
    most_lowering_slice: Place


class Preparation(BaseModel):
    """How a stack becomes input, in pixels and grey values 0 to 255."""

    size: int
    crop: int
    mean: float
    sd: float


class Explained(BaseModel):
    """What POST /explain answers: what explanation.json of `mrknee explain` holds, and more."""

    request_id: str = Field(description="as in the header X-Request-ID")
    model: str = Field(description="name of the run folder or file that is served")
    model_digest: str = Field(description="SHA-256 of the model's files")
    mrknee: str = Field(description="version of the program")
    exam: str
    adds_up: bool = Field(
        description="whether bias and parts of this exam, as computed, add up to every logit"
    )
    note: str
    attention_held_fixed: bool
    unit: str
    scale: float = Field(description="the largest heat of any pixel, in the same unit")
    shapes: dict[str, tuple[int, int, int]] = Field(description="slices, rows, columns")
    preparation: Preparation
    findings: dict[str, FindingExplained]
    missing_series: list[str] = Field(
        description="series that were not read: not sent, or none the model was trained on"
    )
    remarks: list[ExamRemark] = Field(description="what is odd about the exam; empty: nothing")
    notice: str = NOTICE


class Series(BaseModel):
    """One series that the model reads: a field of the form."""

    name: str
    plane: str = Field(description="axial, coronal or sagittal")
    weighting: str | None = Field(description="T1, PD, T2 or GRE; null: not stated")
    fat_suppressed: bool | None = Field(description="null: not stated")


class Limits(BaseModel):
    """What a request may hold."""

    body_bytes: int
    slices: int = Field(description="per series")
    side: int = Field(description="rows or columns, pixels")
    pixels: int = Field(description="all series together")
    upload_seconds: float
    exams_at_once: int = Field(description="arriving, waiting and being read")
    missing_series: bool = Field(description="whether series may be missing")


class ModelFacts(BaseModel):
    """What GET /model answers."""

    model: str = Field(description="name of the run folder or file that is served")
    model_digest: str = Field(description="SHA-256 of the model's files")
    mrknee: str = Field(description="version of the program")
    findings: list[str] = Field(description="in the model's order")
    series: list[Series] = Field(description="the fields of a form, in the model's order")
    preparation: Preparation
    decisions: dict[str, Any] = Field(description="calibration and operating points, as fitted")
    provenance: dict[str, Any] = Field(description="data, recipe, seed, versions of the training")
    limits: Limits
    notice: str = NOTICE


class Health(BaseModel):
    """What GET /health answers, also while exams are read and the queue is full."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """What GET /ready answers while there is a place for an exam."""

    status: Literal["ready"] = "ready"


class Fault(BaseModel):
    """What is wrong with a request; parts that don't apply are null."""

    code: str = Field(description="the kind of fault; stable, where the words may change")
    what: str
    field: str | None = Field(description="the field of the form it concerns")
    expected: str | None
    found: str | None
    advice: str | None


class Faulty(BaseModel):
    """What every request that can't be answered gets."""

    error: Fault
