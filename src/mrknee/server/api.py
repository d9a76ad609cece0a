"""Routes of /api/v1: the work list, exams, their stacks, results and masks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import Response

from mrknee.errors import RequestError
from mrknee.exams import Series, SeriesList
from mrknee.reports.words import title_of
from mrknee.server import api_schemas, schemas
from mrknee.server.arrivals import Arrivals
from mrknee.server.conditional import BINARY, IMMUTABLE, REVALIDATE, binary
from mrknee.server.exam_reader import ExamReader, not_found
from mrknee.server.exam_uploads import ARCHIVE, ExamUploads
from mrknee.server.geometry import SeriesGeometry
from mrknee.server.json_body import json_body, read_json_body
from mrknee.server.notes import Counts, Note, Notes
from mrknee.server.read_exam import ReadExam
from mrknee.server.refusal import API, RefusalError
from mrknee.server.request_queue import RequestQueue
from mrknee.server.results import Results, Scoring
from mrknee.server.service import Service
from mrknee.server.worklist import Entry, Selection, WorkList

CSV = "text/csv"

MAX_ROWS = 200
"""Maximum number of exams per answer of the work list."""

Texts = Annotated[str, Query(max_length=200)]


class ReadingRoom:
    """Work list, files and results of the exams that are served.

    Args:
        service: the model.
        work_list: the exams.
        queue: the queue of exams.
        arrivals: receives the bodies of uploads.
        notes: readers' notes; None: not kept.
    """

    def __init__(
        self,
        service: Service,
        work_list: WorkList,
        queue: RequestQueue,
        arrivals: Arrivals,
        notes: Notes | None,
    ) -> None:
        self.notes = notes
        self.service, self.work_list = service, work_list
        self.reader = ExamReader(work_list, service.axes)
        self.results = Results(service, queue)
        self.scoring = Scoring(work_list, self.reader, self.results)
        self.uploads = ExamUploads(service, work_list, self.reader, arrivals)

    def entry(self, key: str) -> Entry:
        """Returns the exam with a key.

        Raises:
            RefusalError: there is none.
        """
        entry = self.work_list.entries.get(key)
        if entry is None:
            raise not_found("there is no exam with this key", "a key of GET /api/v1/exams")
        return entry

    @property
    def kept_notes(self) -> Notes:
        """The notes.

        Raises:
            RefusalError: notes are not kept.
        """
        if self.notes is None:
            fault = RequestError(
                "the service keeps no notes", code="not-found", advice="start it with --notes FILE"
            )
            raise RefusalError(404, fault)
        return self.notes

    def facts(self) -> api_schemas.RoomModel:
        """Returns the properties of the model that a page needs."""
        model = self.service.model
        facts = self.service.facts().model_dump(exclude={"series"})
        data_sets: dict[str, list[str]] = {}
        for entry in self.work_list.entries.values():
            if entry.source is not None:
                splits = data_sets.setdefault(entry.data_set, [])
                if entry.split is not None and entry.split not in splits:
                    splits.append(entry.split)
        return api_schemas.RoomModel(
            **facts,
            series=[
                api_schemas.TitledSeries(**values, title=series_title(one))
                for one, values in zip(model.series, model.series.to_dicts(), strict=True)
            ],
            titles={name: title_of(name, model.titles) for name in model.findings},
            operating_points={
                name: [
                    api_schemas.OperatingPoint.model_validate(point.to_dict())
                    for point in self.service.operating_points.get(name, ())
                ]
                for name in model.findings
            },
            uncalibrated=dict(self.service.uncalibrated),
            explainable=model.explainable,
            notes=self.notes is not None,
            data_sets=data_sets,
        )

    async def rows(self, entries: Sequence[Entry]) -> list[api_schemas.ExamRow]:
        """Returns rows of the work list."""
        counts: Mapping[str, Counts] = {}
        if self.notes is not None and entries:
            counts = await self.notes.counts([entry.key for entry in entries])
        return [self._row(entry, counts.get(entry.key)) for entry in entries]

    def _row(self, entry: Entry, counts: Counts | None) -> api_schemas.ExamRow:
        problem = None
        if entry.problem is not None:
            problem = RefusalError(422, entry.problem).response().error
        return api_schemas.ExamRow(
            key=entry.key,
            id=entry.id,
            data_set=entry.data_set,
            split=entry.split,
            series=list(entry.series),
            labels=None if entry.labels is None else dict(entry.labels),
            probabilities=None if entry.probabilities is None else dict(entry.probabilities),
            state=entry.state,
            problem=problem,
            right={f: self.work_list.right(entry, f) for f in self.service.model.findings},
            remarks=list(entry.remarks),
            note=None if counts is None else api_schemas.ExamNote(**asdict(counts)),
        )

    async def detail(self, entry: Entry) -> api_schemas.ExamDetail:
        """Returns the series of an exam, and what is known about it.

        Raises:
            RefusalError: its files can't be used.
        """
        read = await self.reader.read(entry)
        masks = await self.reader.masks(entry)
        geometry = await self.reader.geometry(entry, read)
        series = []
        for one in read.exam.series:
            stack = read.exam.stacks.get(one.name)
            if stack is None:
                continue
            known = geometry.get(one.name, SeriesGeometry())
            slices, rows, cols = stack.shape
            series.append(
                api_schemas.ExamSeries(
                    name=one.name,
                    title=series_title(one),
                    plane=str(one.plane),
                    slices=slices,
                    rows=rows,
                    cols=cols,
                    sha256=read.digests[one.name],
                    spacing=known.spacing,
                    orientation=known.edges,
                    position=None
                    if known.position is None
                    else api_schemas.Position(**asdict(known.position)),
                    masks=list(masks.get(one.name, ())),
                )
            )
        side = entry.side
        return api_schemas.ExamDetail(
            key=entry.key,
            id=entry.id,
            data_set=entry.data_set,
            split=entry.split,
            side=None if side is None else side.side,
            mirrored=False if side is None else side.mirrored,
            series=series,
            missing_series=self.service.missing(read.exam),
            labels=None if entry.labels is None else dict(entry.labels),
            remarks=[schemas.ExamRemark.model_validate(r.to_dict()) for r in read.exam.remarks],
        )

    def progress(self) -> api_schemas.Progress:
        """Returns how many exams have been scored."""
        return api_schemas.Progress(
            total=len(self.work_list.entries),
            scored=self.work_list.count("scored"),
            failed=self.work_list.count("failed"),
            seconds_left=self.scoring.seconds_left,
        )


def series_title(one: Series) -> str:
    """Returns the text for a series, such as "sagittal" or "sagittal PD FS" (fat-suppressed)."""
    if one.weighting is None and one.fat_suppressed is None:
        return one.name.replace("_", " ")
    words = [str(one.plane)]
    if one.weighting is not None:
        words.append(str(one.weighting))
    if one.fat_suppressed:
        words.append("FS")
    elif one.weighting is None:
        words.append("non-FS")
    return " ".join(words)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the description of errors for OpenAPI; all have the form `Problem`."""
    return {
        status: {"model": schemas.Problem} for status in sorted({*statuses, 401, 403, 421, 422})
    }


def _binary_answer(*statuses: int) -> dict[str, Any]:
    content = {BINARY: {"schema": {"type": "string", "format": "binary"}}}
    responses = {**problems(*statuses), 200: {"content": content}, 304: {"description": "current"}}
    return {"response_class": Response, "responses": responses}


def add_api(app: FastAPI, room: ReadingRoom) -> None:
    """Adds the routes of /api/v1.

    Args:
        app: receives the routes.
        room: the work list, and the results of its exams.
    """
    router = APIRouter(prefix=API)
    _add_work_list(router, room)
    _add_exams(router, room)
    _add_results(router, room)
    _add_uploads(router, room)
    _add_notes(router, room)
    app.include_router(router)


def _add_work_list(router: APIRouter, room: ReadingRoom) -> None:
    findings = room.service.model.findings

    @router.get("/model", responses=problems())
    async def model() -> api_schemas.RoomModel:
        """Properties of the model, titles, operating points, and the limits of a request."""
        return room.facts()

    @router.get("/progress", responses=problems())
    async def progress() -> api_schemas.Progress:
        """How many exams of the work list have been scored."""
        return room.progress()

    @router.get("/exams", responses=problems())
    async def exams(
        sort: Texts = "id",
        order: Literal["asc", "desc"] | None = None,
        q: Texts = "",
        data_set: Texts | None = None,
        split: Texts | None = None,
        finding: Texts | None = None,
        truth: Literal["positive", "negative", "unknown"] | None = None,
        call: Annotated[
            Literal["positive", "negative", "right", "wrong"] | None, Query(alias="is")
        ] = None,
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_ROWS)] = 100,
        around: Texts | None = None,
    ) -> api_schemas.ExamList:
        """The work list, sorted by `id`, `state` or a finding's probability, and filtered.

        With the key of an exam as `around`, the answer contains the exams before and after it.
        """
        if sort not in ("id", "state", *findings):
            raise _parameter("sort", "id, state, " + ", ".join(findings), sort)
        if (finding is None and (truth or call)) or (finding and finding not in findings):
            raise _parameter("finding", ", ".join(findings), finding or "none")
        chosen = Selection(
            sort=sort,
            descending=order == "desc" if order else sort in findings,
            text=q,
            data_set=data_set,
            split=split,
            finding=finding,
            truth=truth,
            call=call,
            offset=offset,
            limit=limit,
            around=around,
        )
        part = room.work_list.select(chosen)
        return api_schemas.ExamList(
            total=len(room.work_list.entries),
            matched=part.matched,
            scored=room.work_list.count("scored"),
            failed=room.work_list.count("failed"),
            offset=part.offset,
            exams=await room.rows(part.entries),
        )


def _add_exams(router: APIRouter, room: ReadingRoom) -> None:
    @router.get("/exams/{key}", responses=problems(404, 503))
    async def exam(key: str) -> api_schemas.ExamDetail:
        """The series of an exam, and what is known about it."""
        return await room.detail(room.entry(key))

    @router.get("/stacks/{sha256}", **_binary_answer(404, 503))
    async def stack(sha256: str, request: Request) -> Response:
        """All slices of a series: uint8 (slices, rows, cols), in C order."""
        found = await room.reader.stack(sha256)
        return await binary(request, room.reader, sha256, found.tobytes, IMMUTABLE)

    @router.get("/stacks/{sha256}/{index}", **_binary_answer(404, 503))
    async def one_slice(sha256: str, index: int, request: Request) -> Response:
        """One slice of a series, counted from 0: uint8 (rows, cols), in C order."""
        found = await room.reader.stack(sha256)
        if not 0 <= index < len(found):
            raise not_found("the series has no such slice", f"a number from 0 to {len(found) - 1}")
        content = found[index].tobytes
        return await binary(request, room.reader, f"{sha256}-{index}", content, IMMUTABLE)

    @router.get("/exams/{key}/masks/{series}/{finding}", **_binary_answer(404, 503))
    async def mask(key: str, series: str, finding: str, request: Request) -> Response:
        """Mask of a lesion: uint8 (slices, rows, cols), 1 in the lesion, else 0."""
        found = await room.reader.mask(room.entry(key), series, finding)
        name = hashlib.sha256(found.tobytes()).hexdigest()
        return await binary(request, room.reader, f"mask-{name}", found.tobytes, REVALIDATE)


def _add_results(router: APIRouter, room: ReadingRoom) -> None:
    findings = room.service.model.findings

    @router.get("/exams/{key}/prediction", responses=problems(404, 500, 503))
    async def prediction(key: str, request: Request) -> schemas.Prediction:
        """One probability per finding of an exam, as POST /predict returns it."""
        entry = room.entry(key)
        read = await room.reader.read(entry)
        found = await room.results.prediction(entry, read, partial(disconnected, request))
        return found.model_copy(update={"request_id": request.state.request_id})

    @router.get("/exams/{key}/explanation", responses=problems(404, 409, 500, 503))
    async def explanation(key: str, request: Request) -> api_schemas.ExamExplained:
        """Contribution of each series and slice, and where the heat maps lie."""
        entry = room.entry(key)
        read = await room.reader.read(entry)
        found = await room.results.explanation(read, partial(disconnected, request))
        return found.content.model_copy(
            update={"request_id": request.state.request_id, "exam": entry.id}
        )

    @router.post(
        "/exams/{key}/what-if",
        responses=problems(404, 408, 413, 415, 500, 503),
        openapi_extra=json_body(api_schemas.WhatIf),
    )
    async def what_if(key: str, request: Request) -> api_schemas.WhatIfResult:
        """Logits and probabilities of an exam without some of its series or slices."""
        entry = room.entry(key)
        asked = await read_json_body(request, api_schemas.WhatIf)
        read = await room.reader.read(entry)
        return await room.results.what_if(read, asked, partial(disconnected, request))

    @router.get("/exams/{key}/heat/{series}/{finding}", **_binary_answer(404, 409, 500, 503))
    async def heat(key: str, series: str, finding: str, request: Request) -> Response:
        """Contribution of each cell to a logit: float32, little-endian (slices, rows, cols)."""
        entry = room.entry(key)
        read = await room.reader.read(entry)
        found = await room.results.explanation(read, partial(disconnected, request))
        if series not in found.maps or finding not in findings:
            expected = f"{', '.join(found.maps)}; {', '.join(findings)}"
            raise not_found("the exam has no such heat map", expected)
        values = found.maps[series][findings.index(finding)].astype("<f4")
        name = _name_of_heat(room.service.digest, read, series, finding)
        return await binary(request, room.reader, name, values.tobytes, REVALIDATE)


def _add_uploads(router: APIRouter, room: ReadingRoom) -> None:
    @router.post(
        "/uploads",
        status_code=201,
        responses=problems(400, 408, 413, 415, 503, 507),
        openapi_extra=_upload_form(room.service.model.series),
    )
    async def upload(request: Request) -> api_schemas.Uploaded:
        """Adds exams to the work list: one file per series, or a zip of .npy or DICOM files.

        They are kept in memory; the oldest are dropped.
        """
        entries, uploaded = await room.uploads.receive(request)
        room.scoring.notify()
        return api_schemas.Uploaded(
            exams=[
                api_schemas.UploadedExam(key=one.key, id=one.id, series=list(one.series))
                for one in entries
            ],
            problems=[
                api_schemas.FileProblem(
                    file=one.file,
                    **RefusalError(422, one.fault, field=one.field).response().error.model_dump(),
                )
                for one in uploaded.problems
            ],
            problems_left_out=uploaded.left_out,
        )


def _upload_form(series: SeriesList) -> dict[str, Any]:
    file = {"type": "string", "format": "binary"}
    names = (*series.names, ARCHIVE)
    schema = {"type": "object", "properties": dict.fromkeys(names, file)}
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def _add_notes(router: APIRouter, room: ReadingRoom) -> None:
    findings = room.service.model.findings

    def checked(key: str, finding: str) -> Entry:
        if finding not in findings:
            raise not_found("the model has no such finding", ", ".join(findings))
        return room.entry(key)

    @router.get("/exams/{key}/notes/{finding}", responses=problems(404, 503))
    async def note(key: str, finding: str) -> api_schemas.ReaderNote:
        """What a reader noted about a finding of an exam."""
        return _reader_note(await room.kept_notes.get(checked(key, finding), finding))

    @router.put(
        "/exams/{key}/notes/{finding}",
        responses=problems(404, 408, 413, 415, 500, 503, 507),
        openapi_extra=json_body(api_schemas.NoteContent),
    )
    async def put_note(key: str, finding: str, request: Request) -> api_schemas.ReaderNote:
        """Stores a note; it is on the disk before the response is sent."""
        notes, entry = room.kept_notes, checked(key, finding)
        given = await read_json_body(request, api_schemas.NoteContent)
        if given.slice is not None and given.slice.series not in entry.series:
            raise _parameter("slice", ", ".join(entry.series), given.slice.series)
        if given.slice is not None:
            read = await room.reader.read(entry)
            slices = len(read.exam.stacks.get(given.slice.series, ()))
            if given.slice.index >= slices:
                expected = f"a number from 0 to {slices - 1}"
                raise _parameter("slice", expected, str(given.slice.index))
        marked = (None, None) if given.slice is None else (given.slice.series, given.slice.index)
        return _reader_note(
            await notes.put(entry, finding, Note(given.agree, given.comment, *marked))
        )

    @router.get(
        "/notes.csv",
        response_class=Response,
        responses={**problems(404, 503), 200: {"content": {CSV: {"schema": {"type": "string"}}}}},
    )
    async def notes_csv() -> Response:
        """All notes as a table."""
        text = await room.kept_notes.csv()
        headers = {"Content-Disposition": 'attachment; filename="notes.csv"'}
        return Response(text, headers=headers, media_type=CSV)


def _reader_note(note: Note) -> api_schemas.ReaderNote:
    marked = None
    if note.series is not None and note.slice is not None:
        marked = api_schemas.MarkedSlice(series=note.series, index=note.slice)
    return api_schemas.ReaderNote(
        agree=note.agree, comment=note.comment, slice=marked, changed=note.changed
    )


async def disconnected(request: Request) -> None:
    """Returns when the client of a request disconnects."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _name_of_heat(model: str, read: ReadExam, series: str, finding: str) -> str:
    text = "\n".join([model, read.digest, series, finding])
    return f"heat-{hashlib.sha256(text.encode()).hexdigest()}"


def _parameter(name: str, expected: str, found: str) -> RefusalError:
    fault = RequestError(
        f"the parameter {name} is invalid", code="parameter", expected=expected, found=found[:200]
    )
    return RefusalError(422, fault, field=name)


def describe_problems(schema: Mapping[str, Any]) -> None:
    """Moves the errors of /api/v1 in an OpenAPI schema to the media type that they have.

    FastAPI describes them in the media type of the route's own answer.
    """
    for path, methods in schema["paths"].items():
        if path.startswith(API):
            for operation in methods.values():
                for status, response in operation["responses"].items():
                    if int(status) >= 400:
                        (content,) = response["content"].values()
                        response["content"] = {"application/problem+json": content}
