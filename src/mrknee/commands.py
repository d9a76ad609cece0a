"""The commands of `mrknee`, one function per command.

The parameters of a function are the arguments of the command (`command_line`), its docstring is the
help. Everything else is imported inside the functions, so that `--help` is fast.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from mrknee.errors import DataError, SettingsError
from mrknee.notice import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from mrknee.exams import Remark

ModelPaths = Annotated[
    tuple[Path, ...],
    "a run folder or an exported ONNX file; several, separated by commas, are an ensemble (mean of "
    "their probabilities)",
]
ExamsFolder = Annotated[
    Path,
    "the folder of a data set (one split is read), or a folder that contains axial/, coronal/ and "
    "sagittal/",
]
DataFolder = Annotated[Path, "the folder of a data set"]
LabelledData = Annotated[Path, "the folder of a data set with label files {split}-<finding>.csv"]
SeriesFile = Annotated[
    Path | None, "CSV file of series other than MRNet's: name,plane,weighting,fat_suppressed"
]
AllowMissing = Annotated[bool, "accept exams with missing series; at least one must be present"]
AxesOrder = Annotated[
    str | None,
    "order of the axes in the files if not slices,rows,cols, such as rows,cols,slices; if not "
    "given, stacks that appear to have another order are refused",
]
Split = Annotated[str, "the split of the data set to read"]
Threads = Annotated[int | None, "number of processor threads; all cores if not given"]
Runtime = Annotated[
    Literal["onnxruntime", "openvino", "openvino-bf16"] | None,
    "runtime for ONNX files: onnxruntime (if not given), openvino (an extra), or openvino-bf16 "
    "(faster, less accurate)",
]
PrintJson = Annotated[bool, "print JSON instead of a table"]


def phantom(
    out: Annotated[Path, "the folder of the data set to write"],
    *,
    layout: Annotated[
        Literal["mrnet", "rsna2026"],
        "MRNet's folders, or DICOM studies in the form of RSNA's knee challenge of 2026",
    ] = "mrnet",
    train: Annotated[int, "number of training exams"],
    valid: Annotated[
        int | None,
        "number of validation exams, required with mrnet; their ids follow the training exams' ids",
    ] = None,
    test: Annotated[int | None, "number of test studies, required with rsna2026"] = None,
    seed: Annotated[int, "random seed; the same seed gives identical files"] = 0,
    size: Annotated[
        int | None,
        "rows and columns of a slice in pixels: 256 if not given; with rsna2026 their median, 512 "
        "if not given",
    ] = None,
    slice_factor: Annotated[
        float, "factor on the numbers of slices, 0.2 to 1, for smaller data sets"
    ] = 1.0,
    fov_factor: Annotated[
        float, "factor on MRNet's field of view, 0.65 (about the joint only) to 1; mrnet only"
    ] = 1.0,
    series: SeriesFile = None,
) -> None:
    """Writes a data set of synthetic knees with known lesions."""
    mine, others = ("valid", ("test",)) if layout == "mrnet" else ("test", ("valid", "series"))
    given = {"valid": valid, "test": test, "series": series}
    if given[mine] is None:
        raise SettingsError(
            f"--{mine} is missing",
            code="options-together",
            expected=f"--{mine} with --layout {layout}",
        )
    wrong = [name for name in others if given[name] is not None]
    if layout == "rsna2026" and fov_factor != 1:
        wrong.append("fov-factor")
    if wrong:
        raise SettingsError(
            "an option doesn't apply to this layout",
            code="options-together",
            expected=f"options of --layout {layout}",
            found=", ".join(f"--{name}" for name in wrong),
        )
    _check_output_folder(out)
    if layout == "rsna2026":
        from mrknee.sources.phantom.rsna.cohort import write_rsna_cohort

        write_rsna_cohort(
            out,
            train=train,
            test=test or 0,
            seed=seed,
            size=512 if size is None else size,
            slice_factor=slice_factor,
        )
        print(f"wrote {train} training and {test} test studies to {out}")
        return
    from mrknee.exams import MRNET_SERIES, read_series_file
    from mrknee.sources.phantom.cohort import write_cohort

    write_cohort(
        out,
        train=train,
        valid=valid or 0,
        seed=seed,
        size=256 if size is None else size,
        slice_factor=slice_factor,
        fov_factor=fov_factor,
        series=MRNET_SERIES if series is None else read_series_file(series),
    )
    print(f"wrote {train} training and {valid} validation exams to {out}")


def import_(
    source: Annotated[Path, "a folder (searched recursively), a zip file, a DICOMDIR, or a file"],
    out: Annotated[Path, "the output folder, for {series}/NNNN.npy and import.json"],
    *,
    series: Annotated[
        str,
        "series to choose: mrnet (one per plane); default (the six of most knee examinations: each "
        "plane with fat suppression, sagittal without, coronal and sagittal T1); or a CSV file: "
        "name,plane,weighting,fat_suppressed",
    ] = "mrnet",
    allow_missing_plane: AllowMissing = False,
    any_body_part: Annotated[
        bool, "accept series as of a knee even if BodyPartExamined names another part"
    ] = False,
    size: Annotated[int, "rows and columns of a slice, in pixels"] = 256,
    crop_mm: Annotated[
        float | None,
        "width of the square window around the joint, such as 140 mm, so that all exams have one "
        "scale; if not given, the width of the field, at most 180 mm",
    ] = None,
    sides: Annotated[
        Literal["as-imaged", "left"],
        "left: mirror right knees to look like left ones, and record it in sides.csv",
    ] = "as-imaged",
    scanner_groups: Annotated[
        bool, "write groups.csv, with a numbered group for the exams of each scanner"
    ] = False,
    choose: Annotated[
        list[str] | None, "series=SeriesInstanceUID ...: use these instead of the rules' choice"
    ] = None,
    keep_map: Annotated[
        Path | None, "file outside OUT for each id's original identifiers, readable only by you"
    ] = None,
) -> int:
    """Converts DICOM or NIfTI studies to exams without patient data; status 1 if any is refused."""
    _check_output_folder(out)
    from mrknee.exams import MRNET_SERIES, USUAL_SERIES, read_series_file
    from mrknee.outputs import check_output_file
    from mrknee.sources.clinical.importing import import_exams

    if keep_map is not None:
        check_output_file(keep_map, [source])

    named = {"mrnet": MRNET_SERIES, "default": USUAL_SERIES}
    imported = import_exams(
        source,
        out,
        series=named[series] if series in named else read_series_file(series),
        choose=choose or (),
        allow_missing_plane=allow_missing_plane,
        any_body_part=any_body_part,
        size=size,
        crop_mm=crop_mm,
        sides=sides,
        scanner_groups=scanner_groups,
        keep_map=keep_map,
    )
    print(imported.table())
    count = sum(exam["imported"] for exam in imported.exams.values())
    print(f"wrote {count} of {len(imported.exams)} exams, and import.json with the reasons")
    return 0 if imported.complete else 1


def rsna(
    source: Annotated[Path, "the data set's folder, with train.csv, train_series/, test.csv, ..."],
    out: Annotated[Path, "the output folder, for data/ and import.json"],
    *,
    labels: Annotated[
        list[Path] | None,
        "CSV files with labels of the training studies: the id and any of the findings, 0 to 1; "
        "their means are the soft labels",
    ] = None,
    only: Annotated[
        Literal["train", "test"] | None,
        "import the studies of train.csv or of test.csv only; both if not given",
    ] = None,
    size: Annotated[int, "rows and columns of a slice, in pixels"] = 288,
    crop_mm: Annotated[float, "width of the square window around the joint, mm"] = 140.0,
) -> int:
    """Converts RSNA's knee data set of 2026; status 1 if a study of test.csv is left out."""
    _check_output_folder(out)
    from mrknee.sources.rsna2026.importing import DATA, import_rsna

    imported = import_rsna(source, out, labels=labels or (), only=only, size=size, crop_mm=crop_mm)
    print(imported.summary())
    print(f"wrote {out / DATA}, and {out / 'import.json'} with the reasons per study")
    return 0 if imported.complete else 1


def predict(
    model: ModelPaths,
    exams: ExamsFolder,
    *,
    out: Annotated[Path, "the CSV file to write: exam,<finding>,..."],
    split: Split = "valid",
    allow_missing_plane: AllowMissing = False,
    axes: AxesOrder = None,
    threads: Threads = None,
    runtime: Runtime = None,
) -> None:
    """Predicts one probability per exam and finding with a trained model."""
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
    _print_unread("predict", folder.unread)
    predictions = predictor.predict(folder)
    predictions.write(out)
    _print_remarks("predict", predictions.remarks, predictions.write_remarks(out))
    print(f"wrote {', '.join(predictions.findings)} of {len(predictions.ids)} exams to {out}")
    for finding, reason in predictor.uncalibrated.items():
        print(f"{finding}: {reason}")
    print(RESEARCH_USE_ONLY)


def submit(
    model: ModelPaths,
    paths: Annotated[
        Path,
        "what to predict. mrnet: a list of files, three lines per exam: .../{plane}/{id}.npy; "
        "rsna2026: the folder of a data set",
    ],
    predictions: Annotated[
        Path,
        "the CSV file to write. mrnet: abnormal,acl,meniscus per exam of the list, without a "
        "header; rsna2026: StudyInstanceUID and the twelve findings",
    ],
    *,
    format: Annotated[  # noqa: A002  # the option's name
        Literal["mrnet", "rsna2026"], "the competition whose format is written"
    ] = "mrnet",
    sample: Annotated[
        Path | None, "rsna2026: the file sample_submission.csv, which lists the studies"
    ] = None,
    split: Annotated[str, "rsna2026: the split of the data set with the studies"] = "test",
    axes: AxesOrder = None,
    threads: Threads = None,
    runtime: Runtime = None,
) -> None:
    """Predicts as a competition requires: MRNet, or RSNA Knee Abnormality Detection 2026."""
    from mrknee.errors import SettingsError
    from mrknee.metrics.predictions import remarks_file
    from mrknee.outputs import check_output_file
    from mrknee.untrusted import read_text

    if (sample is None) == (format == "rsna2026"):
        raise SettingsError(
            "--sample and --format rsna2026 must be given together",
            code="options-together",
            expected="both, or neither",
            found="--format rsna2026 alone" if sample is None else "--sample alone",
        )
    inputs: list[Path | str] = [*model, paths]
    if sample is None:
        lines = read_text(paths, "list of paths", at_most=16_000_000).split("\n")
        inputs += filter(None, (line.strip() for line in lines))
    else:
        inputs.append(sample)
    for file in (predictions, remarks_file(predictions)):
        check_output_file(file, inputs)
    if sample is None:
        from mrknee.inference.submission import predict_listed, write_submission

        predicted = predict_listed(model, paths, threads=threads, runtime=runtime, axes=axes)
        remarks = write_submission(predicted, predictions)
    else:
        from mrknee.inference.rsna_submission import predict_studies, write_studies

        predicted = predict_studies(
            model, paths, sample, split=split, threads=threads, runtime=runtime, axes=axes
        )
        remarks = write_studies(predicted, predictions)
    _print_remarks("submit", predicted.remarks, remarks)
    print(f"wrote {len(predicted.ids)} exams to {predictions}")


def check(
    data: DataFolder,
    *,
    allow_missing_plane: AllowMissing = False,
    axes: AxesOrder = None,
    json: PrintJson = False,
) -> int:
    """Lists the problems of a data set; exit status 1 if there is an error."""
    from mrknee.library import check_dataset

    checkup = check_dataset(data, axes=axes, allow_missing_plane=allow_missing_plane)
    print(checkup.to_json() if json else f"{checkup}\n", end="")
    return 0 if checkup.ok else 1


def evaluate(
    predictions: Annotated[
        str,
        "a table written by predict; several, separated by commas, are one model (per finding, the "
        "mean of the tables that contain it)",
    ],
    data: LabelledData,
    *,
    out: Annotated[Path, "the output folder, for scorecard.json and report.html"],
    split: Annotated[str, "the predicted split"] = "valid",
    model: Annotated[
        tuple[Path, ...] | None,
        "the run folder or exported file of the model (several, separated by commas: an ensemble); "
        "adds operating points, the origin of the split, and heat maps of the largest errors",
    ] = None,
    against: Annotated[
        str | None,
        "predictions of a second model, such as single-finding networks, to compare in the report",
    ] = None,
    prevalence: Annotated[
        dict[str, float] | None,
        "finding=share,...: also compute PPV, NPV and calibration at these prevalences",
    ] = None,
    axes: AxesOrder = None,
) -> None:
    """Scores predictions against labels: a scorecard and a report, with 95 % intervals."""
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
        "two or more tables written by predict; tables separated by commas are one model (per "
        "finding, the mean of the tables that contain it)",
    ],
    data: LabelledData,
    *,
    out: Annotated[Path, "the output folder, for comparison.json"] = Path("comparison"),
    split: Annotated[str, "the predicted split"] = "valid",
) -> None:
    """Compares models on the same exams with paired tests, each model with the first."""
    from mrknee.library import compare as compare_models

    if len(predictions) < 2:
        raise DataError(
            "only one table of predictions was given",
            code="compare",
            expected="at least two tables of predictions, and the folder of the data set",
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
    exam: Annotated[str, "id of the exam"],
    out: Annotated[
        Path,
        "the output folder, for index.html, contact-<finding>.png, explanation.npz and "
        "explanation.json",
    ],
    split: Split = "valid",
    allow_missing_plane: AllowMissing = False,
    axes: AxesOrder = None,
    threads: Threads = None,
    runtime: Runtime = None,
) -> None:
    """Explains an exam: heat maps, slice scores and shares of series, which sum to each logit."""
    from mrknee.reports.exam_page import explain_exam
    from mrknee.reports.pictures import slice_in_words

    explanation = explain_exam(
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
    numbers = zip(explanation.findings, explanation.probabilities, explanation.logits, strict=True)
    for name, probability, logit in numbers:
        slice_text = slice_in_words(explanation, name, raising=bool(logit >= 0))
        reason = explanation.uncalibrated.get(name)
        note = "" if reason is None else f" ({reason})"
        print(f"{name}: probability {probability:.3f}{note}; {slice_text}")
    _print_remarks("explain", {exam: explanation.remarks} if explanation.remarks else {}, None)
    print(f"wrote {out / 'index.html'}")
    print(RESEARCH_USE_ONLY)


def validate_maps(
    model: ModelPaths,
    data: Annotated[
        Path, "the folder of a data set with labels and, if known, with masks of the lesions"
    ],
    *,
    out: Annotated[Path, "the output folder, for maps.json"],
    split: Annotated[str, "the split to explain"] = "valid",
) -> None:
    """Tests heat maps: compares them with known lesions, and removes the slices with most heat."""
    _check_output_folder(out)
    from mrknee.library import validate_maps as validate

    print(validate(model, data, split=split, out=out))
    print(f"wrote {out / 'maps.json'}")


def export(
    model: Annotated[tuple[Path, ...], "a run folder"],
    *,
    out: Annotated[
        Path,
        "the file to write, such as model.onnx; other commands accept it instead of the run folder",
    ],
    int8: Annotated[
        bool, "quantise the encoders to 8 bits: smaller, faster, and less accurate"
    ] = False,
    data: Annotated[
        Path | None, "with --int8: a data set whose training exams determine the scales"
    ] = None,
    split: Annotated[
        str, "with --int8: the labelled split on which AUCs before and after are compared"
    ] = "valid",
    auc_limit: Annotated[float, "with --int8: the maximum decrease of a finding's AUC"] = 0.005,
) -> None:
    """Exports a trained model as one ONNX file, which predicts without torch."""
    from mrknee.library import export_onnx

    print(export_onnx(model, out, int8=int8, data=data, split=split, auc_limit=auc_limit))
    print(f"wrote {out}, {out.stat().st_size / 1e6:.1f} MB")


def serve(
    model: ModelPaths,
    *,
    exams: Annotated[
        list[Path] | None,
        "data sets, or folders of exams, to show in the browser and to score in the background",
    ] = None,
    host: Annotated[
        str, "address to listen on; one that other machines can reach requires a token"
    ] = "127.0.0.1",
    port: Annotated[int, "port to listen on; 0: any free port"] = 8000,
    root_path: Annotated[str | None, "path of the service behind a proxy, such as /knee"] = None,
    allowed_host: Annotated[
        list[str] | None, "host names used by clients or a proxy, besides --host and localhost"
    ] = None,
    audit_log: Annotated[
        Path | None,
        "log file with one line of JSON per exam, without pixels; none if not given",
    ] = None,
    notes: Annotated[
        Path | None, "SQLite file for readers' notes; notes are not kept if not given"
    ] = None,
    token_file: Annotated[
        Path | None,
        "file with the token that requests must contain; if not given, a new token is printed "
        "where other machines can reach the address",
    ] = None,
    no_token: Annotated[bool, "no token, also where other machines can reach the address"] = False,
    allow_missing_plane: AllowMissing = False,
    axes: AxesOrder = None,
    threads: Threads = None,
    runtime: Runtime = None,
    max_body_mb: Annotated[int, "maximum size of a request's body, MB"] = 100,
    upload_seconds: Annotated[int, "maximum time to receive a request's body, s"] = 60,
    max_waiting: Annotated[
        int, "maximum number of uploads that wait or are processed; others get a 503"
    ] = 8,
    max_connections: Annotated[int, "maximum number of open connections"] = 256,
    import_seconds: Annotated[int, "maximum time to import an uploaded archive of DICOM, s"] = 60,
    import_memory_mb: Annotated[int, "maximum memory of such an import, MB"] = 4096,
) -> None:
    """Shows, predicts and explains exams in a browser and over HTTP, until terminated."""
    from mrknee.server.limits import ServiceLimits
    from mrknee.server.serving import serve as serve_model

    limits = ServiceLimits(
        max_body_mb=max_body_mb,
        upload_seconds=upload_seconds,
        max_waiting=max_waiting,
        max_connections=max_connections,
        import_seconds=import_seconds,
        import_memory_mb=import_memory_mb,
    )
    serve_model(
        model,
        exams=exams or [],
        host=host,
        port=port,
        root_path=root_path or "",
        allowed_host=allowed_host or [],
        audit_log=audit_log,
        notes=notes,
        token_file=token_file,
        no_token=no_token,
        allow_missing_plane=allow_missing_plane,
        axes=axes,
        threads=threads,
        runtime=runtime,
        limits=limits,
    )


def encoders(*, json: PrintJson = False) -> None:
    """Lists the encoders in the catalogue; any other model name of timm works too."""
    from json import dumps

    from mrknee.library import list_encoders

    table = list_encoders()
    print(dumps(table.to_list(), indent=2) if json else table)


def demo(
    *,
    out: Annotated[Path, "the output folder"] = Path("demo"),
    seed: Annotated[int, "random seed of the knees and of the training"] = 0,
) -> None:
    """Trains and evaluates one network on synthetic knees, in minutes."""
    _check_output_folder(out)
    from mrknee.demo import run_demo
    from mrknee.files import owned_folder

    with owned_folder(out):
        run_demo(out, seed)


def protocol(
    data: Annotated[Path, "MRNet's folder, or a data set with the same layout and findings"],
    out: Annotated[
        Path, "the output folder: new, or of an earlier start with the same data and options"
    ],
    *,
    systems: Annotated[
        str,
        "systems to compare, with commas between: reference, singles, default, bien2018, elnet, "
        "mrpyrnet, slice-transformer; all others are compared with the first",
    ] = "reference,singles,default",
    smoke: Annotated[
        bool, "run all steps in minutes, with tiny networks and one seed; results are meaningless"
    ] = False,
) -> None:
    """Trains, evaluates and compares networks on MRNet; continues if interrupted."""
    _check_output_folder(out)
    from mrknee.protocol import run_protocol

    run_protocol(data, out, systems=[one.strip() for one in systems.split(",")], smoke=smoke)


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
    epoch: Annotated[
        Literal["best", "last"],
        "the epoch whose weights predict: selected by each run, or the last",
    ] = "best",
) -> None:
    """Trains arms x seeds and compares the arms; can be stopped and continued, and extended."""
    _check_output_folder(out)
    from mrknee.experiment import run_experiment

    run_experiment(plan, data, out, split=split, test_data=test_data, epoch=epoch)


def train(
    data: Annotated[Path, "the folder of a data set, with train/ and valid/"],
    *,
    out: Annotated[Path, "the run folder to write"],
    recipe: Annotated[
        str,
        "default, demo, frozen, reference, rsna2026, rsna2026-small, small, or a YAML file of "
        "settings",
    ] = "default",
    seeds: Annotated[
        tuple[int, ...] | None,
        "train with each of these seeds, and write one run folder per seed into OUT; predict, "
        "evaluate, ... use OUT as an ensemble",
    ] = None,
    resume: Annotated[bool, "continue an interrupted run"] = False,
    **settings: object,
) -> None:
    """Trains one network for all findings on a data set and writes a run folder.

    Every setting of the recipe can be changed by an option, for example `--network.encoder
    resnet50` or `--findings acl`. With `--folds 5`, five networks are trained, each on four of
    five parts of train/, and form an ensemble.
    """
    _check_output_folder(out)
    from mrknee.training.recipe import load_recipe_for

    chosen = load_recipe_for(data, recipe, settings)
    if seeds is not None or (chosen.folds is not None and chosen.fold is None):
        from mrknee.cross_validation import train_folds

        train_folds(data, out, recipe, settings, seeds=seeds, resume=resume)
        return
    from mrknee.training.run import train as train_run

    train_run(data, out, chosen, resume=resume)


COMMANDS: dict[str, Callable[..., int | None]] = {
    "phantom": phantom,
    "check": check,
    "import": import_,
    "rsna": rsna,
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


def _print_remarks(
    command: str, remarks: Mapping[str, Sequence[Remark]], file: Path | None
) -> None:
    """Prints to standard error which exams are implausible, and the file with all remarks."""
    from mrknee.errors import legible
    from mrknee.exams.plausibility import summary

    if remarks:
        print(f"mrknee {command}: warning: {legible(summary(remarks))}", file=sys.stderr)
        if file is not None:
            print(f"  all remarks: {file}", file=sys.stderr)


def _print_unread(command: str, unread: Sequence[Path]) -> None:
    """Prints to standard error which files in the folders of series are not read."""
    from mrknee.errors import legible
    from mrknee.exams.listing import unread_text

    if unread:
        print(f"mrknee {command}: warning: {legible(unread_text(unread))}", file=sys.stderr)


def _check_output_folder(out: Path) -> None:
    """Refuses an output folder that can't be written to, before any work is done."""
    from mrknee.outputs import check_output_folder

    check_output_folder(out)
