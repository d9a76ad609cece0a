"""Fields of the responses, as pydantic models; `/openapi.json` is generated from them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from mrknee.notice import RESEARCH_USE_ONLY


class Call(BaseModel):
    """The probability compared with one operating point."""

    rule: str = Field(description='how the threshold was chosen, such as "Youden"')
    threshold: float | None = Field(
        description="threshold on the calibrated probability; null if none could be chosen"
    )
    positive: bool | None = Field(description="whether the probability is at least the threshold")
    reason: str | None = Field(description="why there is no threshold, or null")


class FindingRead(BaseModel):
    """One finding."""

    probability: float = Field(ge=0, le=1, description="calibrated if `calibrated` is true")
    calibrated: bool = Field(description="whether the probability of this finding is calibrated")
    uncalibrated: str | None = Field(description="why it is not calibrated, or null")
    calls: list[Call] = Field(
        description="one entry per operating point; empty if the model has none"
    )


class ExamRemark(BaseModel):
    """An unusual property of the exam (docs/reference/plausibility.md)."""

    code: str
    series: str | None = Field(description="the series that the remark concerns, or null")
    text: str


class Prediction(BaseModel):
    """Response to POST /predict."""

    request_id: str = Field(description="as in the header X-Request-ID")
    model: str = Field(description="name of the run folder or file of the model")
    model_digest: str = Field(description="SHA-256 of the model's files")
    mrknee: str = Field(description="version of mrknee")
    order: list[str] = Field(description="the findings in the model's order")
    calibrated: bool = Field(description="whether the probabilities of all findings are calibrated")
    findings: dict[str, FindingRead]
    missing_series: list[str] = Field(
        description="series that were not used: not sent, or not used in training"
    )
    remarks: list[ExamRemark] = Field(description="unusual properties of the exam; may be empty")
    notice: str = RESEARCH_USE_ONLY


class Place(BaseModel):
    """One slice of the exam."""

    series: str
    slice: int = Field(description="counted from 0")
    score: float = Field(description="contribution to the logit")


class FindingExplained(BaseModel):
    """Decomposition of the logit of one finding."""

    probability: float = Field(ge=0, le=1, description="calibrated if `calibrated` is true")
    calibrated: bool = Field(description="whether the probability of this finding is calibrated")
    uncalibrated: str | None = Field(description="why it is not calibrated, or null")
    logit: float = Field(description="before calibration")
    bias: float = Field(description="part of the logit that does not depend on the images")
    residual: float = Field(description="difference between the logit and the sum of its parts")
    allowed_residual: float = Field(description="largest difference explained by rounding")
    series: dict[str, float] = Field(description="contribution of each series")
    slices: dict[str, list[float]] = Field(description="contribution of each slice")
    most_raising_slice: Place
    most_lowering_slice: Place


class Preparation(BaseModel):
    """Preprocessing of a stack; sizes in pixels, grey values from 0 to 255."""

    size: int
    crop: int
    mean: float
    sd: float
    min_size: int | None = Field(description="smaller stacks are scaled up to it; null: to crop")
    read_slices: int | None = Field(description="maximum slices read per series; null: all")
    neighbours: bool = Field(
        description="whether a slice is read with the previous and the next one as channels"
    )


class Explained(BaseModel):
    """Response to POST /explain: the fields of explanation.json of `mrknee explain`, and more."""

    request_id: str = Field(description="as in the header X-Request-ID")
    model: str = Field(description="name of the run folder or file of the model")
    model_digest: str = Field(description="SHA-256 of the model's files")
    mrknee: str = Field(description="version of mrknee")
    exam: str
    adds_up: bool = Field(
        description="whether the parts, as computed for this exam, add up to every logit"
    )
    note: str
    attention_held_fixed: bool
    unit: str
    scale: float = Field(description="largest absolute heat of a pixel, in `unit`")
    shapes: dict[str, tuple[int, int, int]] = Field(description="slices, rows, columns")
    preparation: Preparation
    findings: dict[str, FindingExplained]
    missing_series: list[str] = Field(
        description="series that were not used: not sent, or not used in training"
    )
    remarks: list[ExamRemark] = Field(description="unusual properties of the exam; may be empty")
    notice: str = RESEARCH_USE_ONLY


class Series(BaseModel):
    """One input series of the model: a field of the upload form."""

    name: str
    plane: str = Field(description="axial, coronal or sagittal")
    weighting: str | None = Field(description="T1, PD, T2 or GRE; null if not stated")
    fat_suppressed: bool | None = Field(description="null if not stated")


class Limits(BaseModel):
    """Limits of a request."""

    body_bytes: int
    slices: int = Field(description="per series")
    side: int = Field(description="rows or columns, in pixels")
    pixels: int = Field(description="all series together")
    upload_seconds: float
    exams_at_once: int = Field(description="exams waiting or being processed")
    missing_series: bool = Field(description="whether series may be missing")


class ModelFacts(BaseModel):
    """Response to GET /model."""

    model: str = Field(description="name of the run folder or file of the model")
    model_digest: str = Field(description="SHA-256 of the model's files")
    mrknee: str = Field(description="version of mrknee")
    findings: list[str] = Field(description="in the model's order")
    series: list[Series] = Field(description="fields of the upload form, in the model's order")
    preparation: Preparation
    decisions: dict[str, Any] = Field(description="fitted calibration and operating points")
    provenance: dict[str, Any] = Field(
        description="data, recipe, seed and software versions of the training"
    )
    limits: Limits
    notice: str = RESEARCH_USE_ONLY


class Health(BaseModel):
    """Response to GET /health, also while exams are processed and the queue is full."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """Response to GET /ready while the queue accepts an exam."""

    status: Literal["ready"] = "ready"


class Fault(BaseModel):
    """An error; parts that don't apply are null."""

    code: str = Field(description="kind of error: stable, whereas the texts may change")
    what: str
    field: str | None = Field(description="the form field that the error concerns")
    expected: str | None
    found: str | None
    advice: str | None


class Faulty(BaseModel):
    """Response to every request that can't be answered."""

    error: Fault


class Problem(BaseModel):
    """An error of /api/v1 (RFC 9457, application/problem+json); parts that don't apply are null."""

    type: str = Field(description="urn:mrknee:error: and the code")
    title: str = Field(description="the phrase of the HTTP status")
    status: int
    detail: str = Field(description="what is wrong")
    code: str = Field(description="kind of error: stable, whereas the texts may change")
    field: str | None = Field(description="the parameter, form field or series concerned")
    expected: str | None
    found: str | None
    advice: str | None
    request_id: str = Field(description="as in the header X-Request-ID")
