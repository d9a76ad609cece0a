"""The verbs of the command line: one short function each; the rest is imported inside it.

A function's parameters are the verb's arguments (`command_line`), its docstring is the help.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from mrknee.errors import DataError

if TYPE_CHECKING:
    from mrknee.exams import Remark

ModelPaths = Annotated[
    tuple[Path, ...],
    "a run folder, or an ONNX file that export wrote; several with commas between are an ensemble, "
    "the mean of their probabilities",
]
ExamsFolder = Annotated[
    Path,
    "a data set's folder (one split of it is read), or a folder with axial/, coronal/ and "
    "sagittal/ inside",
]
DataFolder = Annotated[Path, "the data set's folder"]
LabelledData = Annotated[Path, "the data set's folder, with {split}-<finding>.csv inside"]
SeriesFile = Annotated[
    Path | None, "a list of other series than MRNet's: name,plane,weighting,fat_suppressed"
]
AllowMissing = Annotated[bool, "take exams that lack series too; one has to be there"]
AxesOrder = Annotated[
    str | None,
    "the order of the files' axes where it is not slices,rows,cols, such as rows,cols,slices; if "
    "not given, stacks that seem to be in another order are refused",
]
Split = Annotated[str, "which split of a data set"]
Threads = Annotated[int | None, "processor threads to compute with; all cores, if not given"]
Runtime = Annotated[
    Literal["onnxruntime", "openvino", "openvino-bf16"] | None,
    "what computes an ONNX file: onnxruntime, openvino (an extra), or openvino-bf16 (faster, less "
    "exact); onnxruntime, if not given",
]
PrintJson = Annotated[bool, "print JSON instead of a table"]


def phantom(
    out: Annotated[Path, "the data set's folder"],
    *,
    train: Annotated[int, "how many training exams"],
    valid: Annotated[int, "how many validation exams; their ids continue after train's"],
    seed: Annotated[int, "the same seed writes the same bytes"] = 0,
    size: Annotated[int, "rows and columns of a slice, in pixels"] = 256,
    slice_factor: Annotated[
        float, "factor on MRNet's slice counts, 0.2 to 1, for smaller and faster sets"
    ] = 1.0,
    series: SeriesFile = None,
) -> None:
    """Writes a data set of synthetic knees with known lesions, in the MRNet layout."""
    _refuse_file(out)
    from mrknee.exams import MRNET_SERIES, read_series_file
    from mrknee.sources.phantom.cohort import write_cohort

    write_cohort(
        out,
        train=train,
        valid=valid,
        seed=seed,
        size=size,
        slice_factor=slice_factor,
        series=MRNET_SERIES if series is None else read_series_file(series),
    )
    print(f"wrote {train} training and {valid} validation exams to {out}")


def import_(
    source: Annotated[Path, "a folder of any depth, a zip, a DICOMDIR, or a file"],
    out: Annotated[Path, "a folder; OUT/{series}/NNNN.npy and OUT/import.json are written there"],
    *,
    series: SeriesFile = None,
    allow_missing_plane: AllowMissing = False,
    any_body_part: Annotated[
        bool, "take series as a knee's even if BodyPartExamined names another part"
    ] = False,
    choose: Annotated[
        list[str] | None, "series=SeriesInstanceUID ...: these, whatever the rule would choose"
    ] = None,
    keep_map: Annotated[
        Path | None, "a file outside OUT to write ids and identifiers to, readable by you only"
    ] = None,
) -> int:
    """Turns DICOM or NIfTI studies into exams, free of names; exit status 1 if one was refused."""
    _refuse_file(out)
    from mrknee.exams import MRNET_SERIES, read_series_file
    from mrknee.outputs import check_output_file
    from mrknee.sources.clinical.importing import import_exams

    if keep_map is not None:
        check_output_file(keep_map, [source])

    imported = import_exams(
        source,
        out,
        series=MRNET_SERIES if series is None else read_series_file(series),
        choose=choose or (),
        allow_missing_plane=allow_missing_plane,
        any_body_part=any_body_part,
        keep_map=keep_map,
    )
    print(imported.table())
    count = sum(exam["imported"] for exam in imported.exams.values())
    print(f"wrote {count} of {len(imported.exams)} exams, and import.json, which says why")
    return 0 if imported.complete else 1


def predict(
    model: ModelPaths,
    exams: ExamsFolder,
    *,
    out: Annotated[Path, "the CSV to write: exam,<finding>,..."],
    split: Split = "valid",
    allow_missing_plane: AllowMissing = False,
    axes: AxesOrder = None,
    threads: Threads = None,
    runtime: Runtime = None,
) -> None:
    """Reads exams with a trained model and writes one probability per exam and finding."""
    from mrknee.metrics.predictions import remarks_file
    from mrknee.outputs import check_output_file

    for file in (out, remarks_file(out)):
        check_output_file(file, [*model, exams])
    from mrknee.exams import open_dataset
    from mrknee.inference.model import load_model

    predictor = load_model(model, threads=threads, runtime=runtime)
    folder = open_dataset(
        exams, split, labels=False, allow_missing_plane=allow_missing_plane, axes=axes
    )
    _warn_of_unread("predict", folder.unread)
    predictions = predictor.predict(folder)
    predictions.write(out)
    _warn_of_remarks("predict", predictions.remarks, predictions.write_remarks(out))
    print(f"wrote {len(predictions.ids)} exams, {', '.join(predictions.findings)}, to {out}")
    for finding, reason in predictor.uncalibrated.items():
        print(f"{finding}: {reason}")
    print("research use only: these numbers are not a diagnosis")


def submit(
    model: ModelPaths,
    paths: Annotated[Path, "headerless CSV, three lines per exam: .../{plane}/{id}.npy"],
    predictions: Annotated[
        Path, "the headerless CSV to write, a line per exam, in the list's order"
    ],
    *,
    axes: AxesOrder = None,
    threads: Threads = None,
    runtime: Runtime = None,
) -> None:
    """The MRNet competition's interface: a list of .npy paths in, abnormal,acl,meniscus out."""
    from mrknee.metrics.predictions import remarks_file
    from mrknee.outputs import check_output_file
    from mrknee.untrusted import read_text

    listed = read_text(paths, "list of paths", at_most=16_000_000).split("\n")
    reads: list[Path | str] = [*model, paths, *filter(None, (line.strip() for line in listed))]
    for file in (predictions, remarks_file(predictions)):
        check_output_file(file, reads)
    from mrknee.inference.submission import predict_listed, write_submission

    read = predict_listed(model, paths, threads=threads, runtime=runtime, axes=axes)
    _warn_of_remarks("submit", read.remarks, write_submission(read, predictions))
    print(f"wrote {len(read.ids)} exams to {predictions}")


def check(data: DataFolder, *, axes: AxesOrder = None, json: PrintJson = False) -> int:
    """Lists what is wrong with a data set; exit status 1 when something is an error."""
    from mrknee.library import check_dataset

    checkup = check_dataset(data, axes=axes)
    print(checkup.to_json() if json else f"{checkup}\n", end="")
    return 0 if checkup.ok else 1


def evaluate(
    predictions: Annotated[
        str,
        "what predict wrote; several files with commas between are one model, the mean of those "
        "that have a finding",
    ],
    data: LabelledData,
    *,
    out: Annotated[Path, "a folder; scorecard.json and report.html are written there"],
    split: Annotated[str, "the split that was predicted"] = "valid",
    model: Annotated[
        tuple[Path, ...] | None,
        "the run folder, or exported model, that made the predictions (several with commas "
        "between: an ensemble); adds operating points, where the split came from, and heat maps of "
        "the worst failures",
    ] = None,
    against: Annotated[
        str | None,
        "a second model's predictions, for example of single-finding networks, compared in the "
        "page",
    ] = None,
    prevalence: Annotated[
        dict[str, float] | None,
        "finding=share,...: PPV, NPV and calibration also at these prevalences",
    ] = None,
    axes: AxesOrder = None,
) -> None:
    """Holds predictions against labels: a scorecard, and a page on how good and how sure."""
    from mrknee.reports.evaluation import evaluate as evaluate_predictions

    card = evaluate_predictions(
        predictions,
        data,
        out,
        split=split,
        model=model,
        against=against,
        prevalences=prevalence or {},
        axes=axes,
    )
    print(card.table())
    print(f"wrote {out / 'scorecard.json'} and {out / 'report.html'}")


def compare(
    predictions: Annotated[
        list[str],
        "two or more tables that predict wrote; files with commas between are one model, the mean "
        "of those that have a finding",
    ],
    data: LabelledData,
    *,
    out: Annotated[Path, "a folder; comparison.json is written there"] = Path("comparison"),
    split: Annotated[str, "the split that was predicted"] = "valid",
) -> None:
    """Do models differ? Paired tests on the same exams, every model against the first."""
    from mrknee.library import compare as compare_models

    if len(predictions) < 2:
        raise DataError(
            "one table can't be compared",
            code="compare",
            expected="two tables of predictions or more, and the data set's folder",
            found=", ".join(predictions),
        )
    first, second, *others = predictions
    comparison = compare_models(first, second, data, others=others, split=split, out=out)
    print(comparison.table())
    print(f"wrote {out / 'comparison.json'}")


def explain(
    model: ModelPaths,
    exams: ExamsFolder,
    *,
    exam: Annotated[str, "the exam's id"],
    out: Annotated[
        Path,
        "a folder; index.html, contact-<finding>.png, explanation.npz and explanation.json are "
        "written there",
    ],
    split: Split = "valid",
    allow_missing_plane: AllowMissing = False,
    axes: AxesOrder = None,
    threads: Threads = None,
    runtime: Runtime = None,
) -> None:
    """Why: heat maps, slice scores and series' shares that add up to each finding's logit."""
    from mrknee.reports.exam_page import explain_exam
    from mrknee.reports.pictures import slice_in_words

    explained = explain_exam(
        model,
        exams,
        exam,
        out,
        split=split,
        allow_missing_plane=allow_missing_plane,
        axes=axes,
        threads=threads,
        runtime=runtime,
    )
    numbers = zip(explained.findings, explained.probabilities, explained.logits, strict=True)
    for name, probability, logit in numbers:
        words = slice_in_words(explained, name, raising=bool(logit >= 0))
        reason = explained.uncalibrated.get(name)
        mark = "" if reason is None else f" ({reason})"
        print(f"{name}: probability {probability:.3f}{mark}; {words}")
    _warn_of_remarks("explain", {exam: explained.remarks} if explained.remarks else {}, None)
    print(f"wrote {out / 'index.html'}")
    print("research use only: these numbers are not a diagnosis")


def validate_maps(
    model: ModelPaths,
    data: Annotated[
        Path, "the data set's folder, with labels, and with masks of lesions if they are known"
    ],
    *,
    out: Annotated[Path, "a folder; maps.json is written there"],
    split: Annotated[str, "the split to explain"] = "valid",
) -> None:
    """Tests heat maps: against known lesions, and by leaving out the hottest slices."""
    _refuse_file(out)
    from mrknee.library import validate_maps as validate

    print(validate(model, data, split=split, out=out))
    print(f"wrote {out / 'maps.json'}")


def export(
    model: Annotated[tuple[Path, ...], "a run folder"],
    *,
    out: Annotated[
        Path,
        "the file to write, such as model.onnx; predict, submit, explain and evaluate take it in "
        "place of the run folder",
    ],
    int8: Annotated[
        bool, "compute the encoders in 8 bits: smaller, faster, and less exact"
    ] = False,
    data: Annotated[
        Path | None, "with --int8, a data set's folder: scales come from its training exams"
    ] = None,
    split: Annotated[
        str, "with --int8, its labelled split that AUCs before and after are compared on"
    ] = "valid",
    auc_limit: Annotated[
        float, "with --int8, refuse if a finding's AUC falls by more than this"
    ] = 0.005,
) -> None:
    """Writes a trained model as one ONNX file that reads exams anywhere, without torch."""
    from mrknee.library import export_onnx

    found = export_onnx(model, out, int8=int8, data=data, split=split, auc_limit=auc_limit)
    print(found)
    print(f"wrote {out}, {out.stat().st_size / 1e6:.1f} MB")


def serve(
    model: ModelPaths,
    *,
    host: Annotated[
        str, "the address to listen at; whoever reaches it can use it, without a password"
    ] = "127.0.0.1",
    port: Annotated[int, "the port to listen at; 0 takes any free one"] = 8000,
    root_path: Annotated[
        str | None, "the path of a proxy that the service is below, such as /knee"
    ] = None,
    allowed_host: Annotated[
        list[str] | None, "names that clients or a proxy ask under, beside --host and localhost"
    ] = None,
    audit_log: Annotated[
        Path | None,
        "a file that gets one line of JSON per exam, without pixels; none, if not given",
    ] = None,
    allow_missing_plane: AllowMissing = False,
    axes: AxesOrder = None,
    threads: Threads = None,
    runtime: Runtime = None,
) -> None:
    """Reads and explains one exam per request, over HTTP, until it is told to end."""
    from mrknee.server.serving import serve as serve_model

    serve_model(
        model,
        host=host,
        port=port,
        root_path=root_path or "",
        allowed_host=allowed_host or [],
        audit_log=audit_log,
        allow_missing_plane=allow_missing_plane,
        axes=axes,
        threads=threads,
        runtime=runtime,
    )


def encoders(*, json: PrintJson = False) -> None:
    """Lists the encoders known by name; any other name that timm knows works too."""
    from mrknee.library import list_encoders

    table = list_encoders()
    print(dumps(table.to_list(), indent=2) if json else table)


def demo(
    *,
    out: Annotated[Path, "the folder to write to"] = Path("demo"),
    seed: Annotated[int, "of the knees and of the training"] = 0,
) -> None:
    """Synthetic knees, one network for three findings, predictions and AUCs, in minutes."""
    _refuse_file(out)
    from mrknee.demo import run_demo
    from mrknee.files import owned_folder

    with owned_folder(out):
        run_demo(out, seed)


def protocol(
    data: Annotated[Path, "MRNet's folder, or a data set of its layout and findings"],
    out: Annotated[
        Path, "the folder to write: new, or of an earlier start with the same data and options"
    ],
    *,
    smoke: Annotated[
        bool, "the same steps in minutes, with tiny networks and one seed; the numbers mean nothing"
    ] = False,
) -> None:
    """Trains, evaluates and compares fifteen networks on MRNet; can be stopped and continued."""
    _refuse_file(out)
    from mrknee.protocol import run_protocol

    run_protocol(data, out, smoke=smoke)


def experiment(
    plan: Annotated[Path, "a YAML file with arms (changes to a recipe) and seeds"],
    data: Annotated[
        tuple[Path, ...],
        "the data set's folder, with train/ and valid/; several with commas between are the folds "
        "of a cross-validation",
    ],
    out: Annotated[Path, "the folder to write: new, or of an earlier start with the same data"],
    *,
    split: Annotated[str, "the split to predict and score"] = "valid",
    test_data: Annotated[
        tuple[Path, ...] | None, "another data set to predict and score, as many as DATA"
    ] = None,
) -> None:
    """Trains arms x seeds and compares the arms; can be stopped and continued, and extended."""
    _refuse_file(out)
    from mrknee.experiment import run_experiment

    run_experiment(plan, data, out, split=split, test_data=test_data)


def train(
    data: Annotated[Path, "the data set's folder, with train/ and valid/"],
    *,
    out: Annotated[Path, "the run folder to write"],
    recipe: Annotated[str, "default, demo, reference, or a YAML file of settings"] = "default",
    resume: Annotated[bool, "go on with an interrupted run"] = False,
    **settings: object,
) -> None:
    """Trains one network for all findings on a data set and writes a run folder.

    Every setting of the recipe can be changed by an option, for example `--network.encoder
    resnet50` or `--findings acl`.
    """
    _refuse_file(out)
    from mrknee.training.recipe import load_recipe
    from mrknee.training.run import train as train_run

    train_run(data, out, load_recipe(recipe, settings), resume=resume)


VERBS: dict[str, Callable[..., int | None]] = {
    "phantom": phantom,
    "check": check,
    "import": import_,
    "train": train,
    "predict": predict,
    "submit": submit,
    "evaluate": evaluate,
    "compare": compare,
    "explain": explain,
    "validate-maps": validate_maps,
    "export": export,
    "serve": serve,
    "encoders": encoders,
    "demo": demo,
    "experiment": experiment,
    "protocol": protocol,
}


def _warn_of_remarks(verb: str, remarks: Mapping[str, Sequence[Remark]], file: Path | None) -> None:
    """Says on standard error which exams are odd, and where all remarks are."""
    from mrknee.errors import legible
    from mrknee.exams.plausibility import summary

    if remarks:
        print(f"mrknee {verb}: warning: {legible(summary(remarks))}", file=sys.stderr)
        if file is not None:
            print(f"  all of them: {file}", file=sys.stderr)


def _warn_of_unread(verb: str, unread: Sequence[Path]) -> None:
    """Says on standard error which files of the planes' folders are not read."""
    from mrknee.errors import legible
    from mrknee.exams.listing import unread_text

    if unread:
        print(f"mrknee {verb}: warning: {legible(unread_text(unread))}", file=sys.stderr)


def _refuse_file(out: Path) -> None:
    """Refuses an output folder that can't be written into, before any work is done."""
    from mrknee.outputs import check_output_folder

    check_output_folder(out)
