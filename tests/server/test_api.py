"""Responses of /api/v1: work list, exams, stacks, masks, results."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from mrknee.exams import PLANES, Dataset, Series, open_dataset, write_stack
from mrknee.inference.model import load_model
from mrknee.server.api import series_title
from mrknee.server.read_exam import stack_digest
from mrknee.server.schemas import Prediction
from tests.export.test_onnx import FINDINGS
from tests.server.client import Answer, Served, random_exam
from tests.server.room import API, array, get, problem, wait_until_scored, write_room

pytestmark = pytest.mark.slow


def test_the_work_list_has_all_splits_with_labels_and_scores(room: Served, onnx_file: Path) -> None:
    """Rows contain id, labels, probabilities of predict, and right or wrong at the threshold."""
    found = get(room, "/exams")
    assert (found["total"], found["matched"], found["offset"]) == (5, 5, 0)
    assert (found["scored"], found["failed"]) == (4, 1)
    rows = {row["key"]: row for row in found["exams"]}
    assert list(rows) == [
        *("knees~valid~0001", "knees~valid~0002", "knees~valid~0003", "knees~train~0004"),
        "knees~train~Knie=20=3C5=3E=20100=25",
    ]
    first = rows["knees~valid~0001"]
    assert first["labels"] == {"abnormal": 1.0, "acl": 1.0, "meniscus": None}
    expected = load_model(onnx_file).predict([random_exam(50)]).probabilities[0]
    np.testing.assert_allclose(list(first["probabilities"].values()), expected, rtol=0, atol=1e-6)
    for name in FINDINGS[:2]:
        assert first["right"][name] == (first["probabilities"][name] >= 0.5)
    assert first["right"]["meniscus"] is None
    third = rows["knees~valid~0003"]
    assert (third["state"], third["probabilities"]) == ("failed", None)
    assert third["problem"]["code"] == "missing-plane"
    assert third["series"] == ["axial", "sagittal"]


def test_a_missing_series_is_accepted_if_allowed(run_room: Served) -> None:
    """With --allow-missing-plane, an exam without a series is scored."""
    assert get(run_room, "/progress") == {"total": 5, "scored": 5, "failed": 0, "seconds_left": 0.0}
    assert get(run_room, "/exams/knees~valid~0003/prediction")["missing_series"] == ["coronal"]


def test_the_work_list_is_sorted_and_filtered_by_the_service(room: Served) -> None:
    """Sorting by probability, search, filters and pages agree with the complete list."""
    rows = get(room, "/exams")["exams"]
    scored = [row for row in rows if row["state"] == "scored"]

    def keys(query: str) -> list[str]:
        return [row["key"] for row in get(room, "/exams?" + query)["exams"]]

    for order, sign in (("", -1), ("&order=desc", -1), ("&order=asc", 1)):
        by = sorted(scored, key=lambda row: sign * row["probabilities"]["acl"])
        assert keys("sort=acl" + order) == [r["key"] for r in by] + ["knees~valid~0003"]
    assert keys("order=desc") == [row["key"] for row in rows][::-1]
    assert keys("q=knie") == ["knees~train~Knie=20=3C5=3E=20100=25"]
    assert keys("split=train&limit=1") == ["knees~train~0004"]
    assert keys("split=train&offset=1") == ["knees~train~Knie=20=3C5=3E=20100=25"]
    assert keys("data_set=other") == []
    every = [row["key"] for row in rows]
    for place, key in enumerate(every):
        answer = get(room, f"/exams?limit=2&around={key}")
        start = max(0, place - 1)
        assert (answer["offset"], answer["matched"]) == (start, len(every))
        assert [row["key"] for row in answer["exams"]] == every[start : start + 2]
    assert keys(f"split=train&limit=1&around={every[0]}") == ["knees~train~0004"]
    assert keys("limit=1&around=unknown") == every[:1]
    assert keys("finding=meniscus&truth=unknown") == ["knees~valid~0001", "knees~train~0004"]
    for truth, low in (("positive", 1.0), ("negative", 0.0)):
        expected = [r["key"] for r in rows if r["labels"]["acl"] == low]
        assert keys(f"finding=acl&truth={truth}") == expected
    for which, value in (("right", True), ("wrong", False)):
        expected = [r["key"] for r in rows if r["right"]["abnormal"] is value]
        assert keys(f"finding=abnormal&is={which}") == expected
    for which, value in (("positive", True), ("negative", False)):
        expected = [r["key"] for r in scored if (r["probabilities"]["acl"] >= 0.5) is value]
        assert keys(f"finding=acl&is={which}") == expected
    assert keys("sort=state")[0] == "knees~valid~0003"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *(
            ("sort=age", "sort"),
            ("order=up", "order"),
            ("limit=201", "limit"),
            ("limit=x", "limit"),
        ),
        *(("offset=-1", "offset"), ("is=right", "finding"), ("finding=age&is=right", "finding")),
        *(("finding=acl&truth=maybe", "truth"), ("q=" + "x" * 201, "q")),
    ],
)
def test_invalid_parameters_are_refused(room: Served, query: str, field: str) -> None:
    """The error names the parameter."""
    found = problem(room.ask("GET", f"{API}/exams?{query}"), 422)
    assert (found["code"], found["field"]) == ("parameter", field)


def test_an_exam_states_its_series(room: Served, data: Path) -> None:
    """Sizes, hashes, masks, side and labels are those of the files."""
    exam = open_dataset(data, allow_missing_plane=True)["0001"]
    found = get(room, "/exams/knees~valid~0001")
    assert (found["id"], found["data_set"], found["split"]) == ("0001", "knees", "valid")
    assert (found["side"], found["mirrored"]) == ("right", True)
    assert found["labels"] == {"abnormal": 1.0, "acl": 1.0, "meniscus": None}
    assert found["missing_series"] == []
    assert [one["name"] for one in found["series"]] == list(PLANES)
    for one in found["series"]:
        stack = exam.stacks[one["name"]]
        assert (one["slices"], one["rows"], one["cols"]) == stack.shape
        assert one["sha256"] == stack_digest(stack)
        assert one["masks"] == ["acl"]
        assert (one["spacing"], one["orientation"], one["position"]) == (None, None, None)
    assert get(room, "/exams/knees~valid~0003")["missing_series"] == ["coronal"]
    odd = get(room, "/exams/" + quote("knees~train~Knie=20=3C5=3E=20100=25", safe=""))
    assert odd["id"] == "Knie <5> 100%"


def test_stacks_are_immutable_and_compressed(room: Served, data: Path) -> None:
    """A series and a slice are served by hash, compressed if accepted, with an ETag."""
    exam = open_dataset(data, allow_missing_plane=True)["0002"]
    for one in get(room, "/exams/knees~valid~0002")["series"]:
        stack, path = exam.stacks[one["name"]], f"{API}/stacks/{one['sha256']}"
        for accepted in ("gzip, deflate", "identity", "gzip;q=0", "*"):
            answer = room.ask("GET", path, headers={"Accept-Encoding": accepted})
            packed = answer.headers["Content-Encoding"] == "gzip"
            assert packed == (accepted in ("gzip, deflate", "*"))
            np.testing.assert_array_equal(array(answer, stack.shape), stack)
            assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
            assert answer.headers["Vary"] == "Accept-Encoding"
            known = {"Accept-Encoding": accepted, "If-None-Match": answer.headers["ETag"]}
            again = room.ask("GET", path, headers=known)
            assert (again.status, again.body) == (304, b"")
        last = len(stack) - 1
        answer = room.ask("GET", f"{path}/{last}", headers={"Accept-Encoding": "gzip"})
        np.testing.assert_array_equal(array(answer, stack.shape[1:]), stack[last])
        problem(room.ask("GET", f"{path}/{last + 1}"), 404)
        problem(room.ask("GET", f"{path}/-1"), 404)
    problem(room.ask("GET", f"{API}/stacks/{'0' * 64}"), 404)


def test_a_changed_file_is_read_again(onnx_file: Path, tmp_path: Path) -> None:
    """After a file was replaced, its old hash is unknown and the exam states the new one."""
    data = write_room(tmp_path / "knees")
    with Served(onnx_file, tmp_path / "served", "--exams", str(data)) as service:
        wait_until_scored(service)
        path = "/exams/knees~valid~0001"
        before = get(service, path)["series"][0]["sha256"]
        stack = random_exam(99, (6, 4, 5)).stacks["axial"]
        write_stack(data / "valid", "axial", "0001", stack)
        problem(service.ask("GET", f"{API}/stacks/{before}"), 404)
        after = get(service, path)["series"][0]["sha256"]
        assert after == stack_digest(stack)
        assert service.ask("GET", f"{API}/stacks/{after}").status == 200
        (data / "valid" / "axial" / "0001.npy").write_bytes(b"no stack")
        assert problem(service.ask("GET", API + path), 422)["code"] == "not-npy"


def test_masks_of_lesions(room: Served, data: Path) -> None:
    """A mask is 1 in the lesion; exams, series and findings without one are refused."""
    shape = open_dataset(data, allow_missing_plane=True)["0001"].stacks["axial"].shape
    path = f"{API}/exams/knees~valid~0001/masks/axial/acl"
    answer = room.ask("GET", path, headers={"Accept-Encoding": "gzip"})
    mask = array(answer, shape)
    assert mask.sum() == 40
    assert mask[1, 10:20, 5:9].all()
    again = room.ask("GET", path, headers={"Accept-Encoding": "gzip", "If-None-Match": answer.headers["ETag"]})  # fmt: skip # noqa: E501
    assert again.status == 304
    for other in ("0001/masks/axial/meniscus", "0002/masks/axial/acl", "0001/masks/knee/acl", "0001/masks/axial/.."):  # fmt: skip # noqa: E501
        problem(room.ask("GET", f"{API}/exams/knees~valid~{other}"), 404)


@pytest.mark.parametrize("kind", ["onnx", "run"])
def test_results_equal_those_of_the_forms(
    room: Served, run_room: Served, data: Path, kind: str
) -> None:
    """Prediction and explanation equal those of /predict and /explain, and are computed once."""
    service = room if kind == "onnx" else run_room
    exam = open_dataset(data, allow_missing_plane=True)["0002"]
    expected = service.predict(exam).json
    path = f"{API}/exams/knees~valid~0002"
    answer = service.ask("GET", path + "/prediction")
    found = answer.json
    assert Prediction.model_validate(found)
    assert found.pop("request_id") == answer.headers["X-Request-ID"]
    assert expected.pop("request_id")
    for name, one in expected.pop("findings").items():
        values = found["findings"][name]
        np.testing.assert_allclose(values["probability"], one["probability"], atol=1e-6, rtol=0)
    found.pop("findings")
    assert found == expected
    explained = get(service, "/exams/knees~valid~0002/explanation")
    assert explained["exam"] == "0002"
    assert explained["adds_up"]
    assert set(explained["maps"]) == set(PLANES)


@pytest.mark.parametrize("kind", ["onnx", "run"])
def test_heat_maps_equal_those_of_the_library(
    room: Served, run_room: Served, onnx_file: Path, run_folder: Path, data: Path, kind: str
) -> None:
    """Heat is the native map of the explanation; its place contains exactly the seen pixels."""
    service, model = (room, onnx_file) if kind == "onnx" else (run_room, run_folder)
    why = load_model(model).explain(open_dataset(data, allow_missing_plane=True)["0001"])
    explained = get(service, "/exams/knees~valid~0001/explanation")
    for series, place in explained["maps"].items():
        shape = (place["slices"], place["rows"], place["cols"])
        assert shape == why.native[series].shape[1:]
        for row, finding in enumerate(FINDINGS):
            path = f"{API}/exams/knees~valid~0001/heat/{series}/{finding}"
            answer = service.ask("GET", path, headers={"Accept-Encoding": "gzip"})
            heat = array(answer, shape, "<f4")
            np.testing.assert_allclose(heat, why.native[series][row], rtol=0, atol=1e-5)
            total = explained["findings"][finding]["series"][series]
            np.testing.assert_allclose(heat.sum(dtype=float), total, rtol=0, atol=1e-4)
            known = {"Accept-Encoding": "gzip", "If-None-Match": answer.headers["ETag"]}
            assert service.ask("GET", path, headers=known).status == 304
        rows, cols = np.nonzero(why.seen(series))
        assert place["top"] <= rows.min() + 0.5 < place["top"] + 1
        assert place["left"] <= cols.min() + 0.5 < place["left"] + 1
        assert place["top"] + place["height"] - 1 < rows.max() + 0.5 <= place["top"] + place["height"]  # fmt: skip # noqa: E501
        assert place["left"] + place["width"] - 1 < cols.max() + 0.5 <= place["left"] + place["width"]  # fmt: skip # noqa: E501
    largest = max(float(np.abs(native).max()) for native in why.native.values())
    np.testing.assert_allclose(explained["cell_scale"], largest, rtol=1e-5)
    problem(service.ask("GET", f"{API}/exams/knees~valid~0001/heat/axial/age"), 404)
    problem(service.ask("GET", f"{API}/exams/knees~valid~0001/heat/knee/acl"), 404)


@pytest.mark.parametrize("kind", ["onnx", "run"])
def test_what_if(
    room: Served, run_room: Served, onnx_file: Path, run_folder: Path, data: Path, kind: str
) -> None:
    """Results without a part of the exam are those of the library, and nothing left is refused."""
    service, model = (room, onnx_file) if kind == "onnx" else (run_room, run_folder)
    exam = open_dataset(data, allow_missing_plane=True)["0001"]
    ablation = load_model(model).ablation(exam)
    for without in ([], ["axial"]):
        body = {"without_series": without, "without_slices": {"sagittal": [0, 2]}}
        found = what_if(service, body).json
        expected = ablation.without(without, {"sagittal": [0, 2]})
        assert found["origin"] == ("stacks" if kind == "onnx" else "features")
        assert list(found["logits"]) == list(found["probabilities"]) == list(FINDINGS)
        for name in ("logits", "probabilities"):
            values = list(found[name].values())
            np.testing.assert_allclose(values, getattr(expected, name), rtol=0, atol=1e-5)
    for refused, code in (
        ({"without_series": list(PLANES)}, "nothing-left"),
        ({"without_series": ["knee"]}, "series-name"),
        ({"without_slices": {"axial": [9]}}, "slices"),
    ):
        assert problem(what_if(service, refused), 422)["code"] == code


def what_if(service: Served, body: object) -> Answer:
    """Asks for the results of an exam without a part of it."""
    path = f"{API}/exams/knees~valid~0001/what-if"
    return service.ask("POST", path, json.dumps(body).encode(), "application/json")


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        *((b"{", "application/json", 422), (b"{}", "text/plain", 415)),
        *((b'{"without": []}', "application/json", 422), (b"[]", "application/json", 422)),
        (b'{"without_slices": {"axial": ["1"]}}', "application/json", 422),
        (b'{"without_slices": {"axial": [%s1]}}' % (b"1," * 40_000), "application/json", 413),
    ],
)
def test_invalid_json_is_refused(room: Served, body: bytes, kind: str, status: int) -> None:
    """Other types, other fields and large bodies have an error of their own."""
    path = f"{API}/exams/knees~valid~0001/what-if"
    assert problem(room.ask("POST", path, body, kind), status)["code"] == "body"


def test_the_model_is_described_for_a_page(room: Served) -> None:
    """Titles, operating points, calibration and data sets are stated."""
    found = get(room, "/model")
    assert found["titles"]["acl"] == "ACL tear"
    assert [one["title"] for one in found["series"]] == list(PLANES)
    assert [p["threshold"] for p in found["operating_points"]["acl"]] == [0.5, None]
    assert set(found["decisions"]["calibration"]) >= {"slopes", "intercepts"}
    assert (found["explainable"], found["notes"]) == (True, False)
    assert found["data_sets"] == {"knees": ["valid", "train"]}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", "/nothing", 404), ("GET", "/exams/knees~valid~9999", 404), ("GET", "", 404)),
        *(("POST", "/exams", 405), ("GET", "/exams/knees~valid~9999/prediction", 404)),
        *(("GET", "/exams/..%2f..%2fetc%2fpasswd", 404), ("GET", "/stacks/..%2f..%2fetc", 404)),
        *(("GET", "/stacks/abc/one", 422), ("GET", "/exams/x/heat/axial/acl", 404)),
    ],
)
def test_errors_are_problems(room: Served, method: str, path: str, status: int) -> None:
    """All errors below /api/v1 have the form of RFC 9457."""
    problem(room.ask(method, API + path, b"" if method == "POST" else None), status)


def test_errors_of_the_middleware_are_problems(room: Served) -> None:
    """Foreign Host and Origin are refused in the same form."""
    problem(room.ask("GET", f"{API}/exams", headers={"Host": "evil.example"}), 421)
    problem(room.ask("GET", f"{API}/exams", headers={"Origin": "http://evil.example"}), 403)


def test_metrics_count_routes_and_not_exams(room: Served) -> None:
    """The label of a path is that of its route."""
    room.ask("GET", f"{API}/exams/knees~valid~0001")
    text = room.ask("GET", "/metrics").body.decode()
    assert 'path="/api/v1/exams/{key}"' in text
    assert "knees" not in text


def test_the_page_has_a_policy_and_no_other_files(room: Served) -> None:
    """/ is index.html with the policy that forbids everything inline; no path leads elsewhere."""
    answer = room.ask("GET", "/")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert room.ask("GET", "/", headers={"If-None-Match": answer.headers["ETag"]}).status == 304
    assert room.ask("GET", "/page/index.html").body == answer.body
    for path in (
        "/page/",
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page//etc/passwd",
        "/page/x",
    ):
        assert room.ask("GET", path).status == 404, path


def test_a_folder_of_series_has_no_labels(onnx_file: Path, data: Path, tmp_path: Path) -> None:
    """A folder that contains the folders of series is served without splits and labels."""
    with Served(onnx_file, tmp_path, "--exams", str(data / "train"), str(data)) as service:
        rows = get(service, "/exams?q=0004")["exams"]
        assert [row["key"] for row in rows] == ["train~0004", "knees~train~0004"]
        assert rows[0]["labels"] is None
        assert set(rows[0]["right"].values()) == {None}


def test_an_unknown_label_is_null(data: Path) -> None:
    """The data set of these tests has an unknown label."""
    exams = Dataset.of_split(data, "valid", allow_missing_plane=True)
    assert np.isnan(exams.labels[0]).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("series", "title"),
    [
        (Series("sagittal", "sagittal"), "sagittal"),
        (Series("sag_2", "sagittal"), "sag 2"),
        (Series("a", "axial", fat_suppressed=True), "axial FS"),
        (Series("a", "axial", fat_suppressed=False), "axial non-FS"),
        (Series("a", "coronal", weighting="T1", fat_suppressed=False), "coronal T1"),
        (Series("a", "coronal", weighting="PD", fat_suppressed=True), "coronal PD FS"),
    ],
)
def test_titles_of_series(series: Series, title: str) -> None:
    """Plane, weighting and fat suppression, as far as they are declared."""
    assert series_title(series) == title
