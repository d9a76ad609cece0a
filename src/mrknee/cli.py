"""The command line: one short function a verb; rooms are imported inside it.

Exit status: 0 done, 1 failed on something a person has to put right (told in one message),
2 a command line that can't be understood, 130 ended by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import argparse
import inspect
import io
import itertools
import math
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args, get_origin

from mrknee import __version__, suggestions
from mrknee.errors import DataError, MrkneeError, MrkneeWarning, OutputError, SettingsError
from mrknee.files import FULL_DISK

if TYPE_CHECKING:
    from mrknee.exams import Remark


def phantom(
    out: Path,
    *,
    train: int,
    valid: int,
    seed: int = 0,
    size: int = 256,
    slice_factor: float = 1.0,
    series: Path | None = None,
) -> None:
    """Writes a data set of synthetic knees with known lesions, in the MRNet layout.

    Args:
        out: the data set's folder.
        train: how many training exams.
        valid: how many validation exams; their ids continue after train's.
        seed: the same seed writes the same bytes.
        size: rows and columns of a slice, in pixels.
        slice_factor: factor on MRNet's slice counts, 0.2 to 1, for smaller and faster sets.
        series: a list of other series than MRNet's: name,plane,weighting,fat_suppressed.
    """
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
    source: Path,
    out: Path,
    *,
    series: Path | None = None,
    allow_missing_plane: bool = False,
    any_body_part: bool = False,
    choose: list[str] | None = None,
    keep_map: Path | None = None,
) -> int:
    """Turns DICOM or NIfTI studies into exams, free of names; exit status 1 if one was refused.

    Args:
        source: a folder of any depth, a zip, a DICOMDIR, or a file.
        out: a folder; OUT/{series}/NNNN.npy and OUT/import.json are written there.
        series: a list of other series than MRNet's: name,plane,weighting,fat_suppressed.
        allow_missing_plane: take studies that lack series too; one has to be there.
        any_body_part: take series as a knee's even if BodyPartExamined names another part.
        choose: series=SeriesInstanceUID ...: these, whatever the rule would choose.
        keep_map: a file outside OUT to write ids and identifiers to, readable by you only.
    """
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
    model: tuple[Path, ...],
    exams: Path,
    *,
    out: Path,
    split: str = "valid",
    allow_missing_plane: bool = False,
    axes: str | None = None,
    threads: int | None = None,
    runtime: Literal["onnxruntime", "openvino", "openvino-bf16"] | None = None,
) -> None:
    """Reads exams with a trained model and writes one probability an exam and finding.

    Args:
        model: a run folder, or an ONNX file that export wrote; several with commas between are an
            ensemble, the mean of their probabilities.
        exams: a data set's folder (one split of it is read), or a folder with axial/, coronal/
            and sagittal/ inside.
        out: the CSV to write: exam,<finding>,...
        split: which split of a data set.
        allow_missing_plane: read exams that lack one or two planes too.
        axes: the order of the files' axes where it is not slices,rows,cols, such as
            rows,cols,slices; if not given, stacks that seem to be in another order are refused.
        threads: processor threads to compute with; all cores, if not given.
        runtime: what computes an ONNX file: onnxruntime, openvino (an extra), or openvino-bf16
            (faster, less exact); onnxruntime, if not given.
    """
    from mrknee.outputs import check_output_file
    from mrknee.scoring.predictions import remarks_file

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
    print("research use only: these numbers are no diagnosis")


def submit(
    model: tuple[Path, ...],
    paths: Path,
    predictions: Path,
    *,
    axes: str | None = None,
    threads: int | None = None,
    runtime: Literal["onnxruntime", "openvino", "openvino-bf16"] | None = None,
) -> None:
    """The MRNet competition's interface: a list of .npy paths in, abnormal,acl,meniscus out.

    Args:
        model: a run folder or exported model whose findings are abnormal, acl and meniscus;
            several with commas between are an ensemble.
        paths: headerless CSV, three lines an exam: .../{plane}/{id}.npy.
        predictions: the headerless CSV to write, a line an exam, in the list's order.
        axes: the order of the files' axes where it is not slices,rows,cols, such as
            rows,cols,slices; if not given, stacks that seem to be in another order are refused.
        threads: processor threads to compute with; all cores, if not given.
        runtime: what computes an ONNX file: onnxruntime, openvino (an extra), or openvino-bf16
            (faster, less exact); onnxruntime, if not given.
    """
    from mrknee.outputs import check_output_file
    from mrknee.scoring.predictions import remarks_file
    from mrknee.untrusted import read_text

    listed = read_text(paths, "list of paths", at_most=16_000_000).split("\n")
    reads: list[Path | str] = [*model, paths, *filter(None, (line.strip() for line in listed))]
    for file in (predictions, remarks_file(predictions)):
        check_output_file(file, reads)
    from mrknee.inference.submission import predict_listed, write_submission

    read = predict_listed(model, paths, threads=threads, runtime=runtime, axes=axes)
    _warn_of_remarks("submit", read.remarks, write_submission(read, predictions))
    print(f"wrote {len(read.ids)} exams to {predictions}")


def check(data: Path, *, axes: str | None = None, json: bool = False) -> int:
    """Lists what is wrong with a data set; exit status 1 when something is an error.

    Args:
        data: the data set's folder.
        axes: the order of the files' axes where it is not slices,rows,cols; see predict.
        json: print JSON instead of a table.
    """
    from mrknee.library import check_dataset

    checkup = check_dataset(data, axes=axes)
    print(checkup.to_json() if json else f"{checkup}\n", end="")
    return 0 if checkup.ok else 1


def evaluate(
    predictions: str,
    data: Path,
    *,
    out: Path,
    split: str = "valid",
    model: tuple[Path, ...] | None = None,
    against: str | None = None,
    prevalence: dict[str, float] | None = None,
    axes: str | None = None,
) -> None:
    """Holds predictions against labels: a scorecard, and a page that shows how good and how sure.

    Args:
        predictions: what predict wrote; several files with commas between are one model, the mean
            of those that have a finding.
        data: the data set's folder, with {split}-<finding>.csv inside.
        out: a folder; scorecard.json and report.html are written there.
        split: the split that was predicted.
        model: the run folder, or exported model, that made the predictions (several with commas
            between: an ensemble); adds operating points, where the split came from, and heat maps
            of the worst failures.
        against: a second model's predictions, for example of single-finding networks, compared
            in the page.
        prevalence: finding=share,...: PPV, NPV and calibration also at these prevalences.
        axes: the order of the files' axes where it is not slices,rows,cols; see predict.
    """
    from mrknee.report.evaluation import evaluate as evaluate_predictions

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
    predictions: list[str], data: Path, *, out: Path = Path("comparison"), split: str = "valid"
) -> None:
    """Do models differ? Paired tests on the same exams, every model against the first.

    Args:
        predictions: two or more tables that predict wrote; files with commas between are one
            model, the mean of those that have a finding.
        data: the data set's folder, with {split}-<finding>.csv inside.
        out: a folder; comparison.json is written there.
        split: the split that was predicted.
    """
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
    model: tuple[Path, ...],
    exams: Path,
    *,
    exam: str,
    out: Path,
    split: str = "valid",
    allow_missing_plane: bool = False,
    axes: str | None = None,
    threads: int | None = None,
    runtime: Literal["onnxruntime", "openvino", "openvino-bf16"] | None = None,
) -> None:
    """Why: heat maps, slice scores and series' shares that add up to each finding's logit.

    Args:
        model: a run folder, or an ONNX file that export wrote; several with commas between are an
            ensemble, the mean of their probabilities.
        exams: a data set's folder (one split of it is read), or a folder with axial/, coronal/
            and sagittal/ inside.
        exam: the exam's id.
        out: a folder; index.html, contact-<finding>.png, explanation.npz and explanation.json are
            written there.
        split: which split of a data set.
        allow_missing_plane: read an exam that lacks one or two planes too.
        axes: the order of the files' axes where it is not slices,rows,cols, such as
            rows,cols,slices; if not given, stacks that seem to be in another order are refused.
        threads: processor threads to compute with; all cores, if not given.
        runtime: what computes an ONNX file: onnxruntime, openvino (an extra), or openvino-bf16
            (faster, less exact); onnxruntime, if not given.
    """
    from mrknee.report.exam_page import explain_exam
    from mrknee.report.pictures import slice_in_words

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
    print("research use only: these numbers are no diagnosis")


def validate_maps(model: tuple[Path, ...], data: Path, *, out: Path, split: str = "valid") -> None:
    """Are heat maps worth anything? Against known lesions, and by leaving out the hottest slices.

    Args:
        model: a run folder, or an ONNX file that export wrote; several with commas between are an
            ensemble, the mean of their probabilities.
        data: the data set's folder, with labels, and masks of lesions where they are known.
        out: a folder; maps.json is written there.
        split: which split to explain.
    """
    _refuse_file(out)
    from mrknee.library import validate_maps as validate

    print(validate(model, data, split=split, out=out))
    print(f"wrote {out / 'maps.json'}")


def export(
    model: tuple[Path, ...],
    *,
    out: Path,
    int8: bool = False,
    data: Path | None = None,
    split: str = "valid",
    auc_limit: float = 0.005,
) -> None:
    """Writes a trained model as one ONNX file that reads exams anywhere, without torch.

    Args:
        model: a run folder.
        out: the file to write, such as model.onnx; predict, submit, explain and evaluate take it
            in place of the run folder.
        int8: compute the encoders in 8 bits: smaller, faster, and less exact.
        data: with --int8, a data set's folder: scales come from its training exams.
        split: with --int8, its labelled split that AUCs before and after are compared on.
        auc_limit: with --int8, refuse if a finding's AUC falls by more than this.
    """
    from mrknee.library import export_onnx

    found = export_onnx(model, out, int8=int8, data=data, split=split, auc_limit=auc_limit)
    print(found)
    print(f"wrote {out}, {out.stat().st_size / 1e6:.1f} MB")


def serve(
    model: tuple[Path, ...],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    root_path: str | None = None,
    allowed_host: list[str] | None = None,
    audit_log: Path | None = None,
    allow_missing_plane: bool = False,
    axes: str | None = None,
    threads: int | None = None,
    runtime: Literal["onnxruntime", "openvino", "openvino-bf16"] | None = None,
) -> None:
    """Reads and explains one exam a request, over HTTP, until it is told to end.

    Args:
        model: a run folder, or an ONNX file that export wrote; several with commas between are an
            ensemble, the mean of their probabilities.
        host: the address to listen at; whoever reaches it can use it, without a password.
        port: the port to listen at; 0 takes any free one.
        root_path: the path of a proxy that the service is below, such as /knee.
        allowed_host: names that clients or a proxy ask under, beside --host and localhost.
        audit_log: a file that gets one line of JSON per exam, without pixels; none, if not given.
        allow_missing_plane: read exams that lack one or two planes too.
        axes: the order of the files' axes where it is not slices,rows,cols; see predict.
        threads: processor threads to compute with; all cores, if not given.
        runtime: what computes an ONNX file: onnxruntime, openvino (an extra), or openvino-bf16
            (faster, less exact); onnxruntime, if not given.
    """
    from mrknee.web.serving import serve as serve_model

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


def encoders(*, json: bool = False) -> None:
    """Lists the encoders known by name; any other name that timm knows works too.

    Args:
        json: print JSON instead of a table.
    """
    from mrknee.library import list_encoders

    table = list_encoders()
    print(dumps(table.to_list(), indent=2) if json else table)


def demo(*, out: Path = Path("demo"), seed: int = 0) -> None:
    """Synthetic knees, one network for three findings, predictions and AUCs, in minutes.

    Args:
        out: the folder to write to.
        seed: of the knees and of the training.
    """
    _refuse_file(out)
    from mrknee.demo import run_demo
    from mrknee.files import owned_folder

    with owned_folder(out):
        run_demo(out, seed)


def protocol(data: Path, out: Path, *, smoke: bool = False) -> None:
    """Trains, evaluates and compares fifteen networks on MRNet; can be stopped and started again.

    Args:
        data: MRNet's folder, or a data set laid out like it, with its three findings.
        out: the folder to write: new, or of an earlier start with the same data and options.
        smoke: the same steps in minutes, with tiny networks and one seed; the numbers mean nothing.
    """
    _refuse_file(out)
    from mrknee.protocol import run_protocol

    run_protocol(data, out, smoke=smoke)


def train(argv: Sequence[str]) -> None:
    """Trains one network for all findings on a data set and writes a run folder.

    Every setting of the recipe can be changed on the command line, for example
    `--network.encoder resnet50` or `--findings acl`.
    """
    with _interruptible("train", "run the same command again with --resume to go on"):
        from mrknee.training.arguments import train_arguments

        data, out, resume, recipe = train_arguments(argv, (train.__doc__ or "").strip())
        data, out = _path(str(data)), _path(str(out))
        _refuse_file(out)
        from mrknee.training.run import train as train_run

        train_run(data, out, recipe, resume=resume)


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
    "protocol": protocol,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit status."""
    width = max(map(len, VERBS)) + 2
    lines = [f"  {n:{width}}{(f.__doc__ or '').splitlines()[0]}" for n, f in VERBS.items()]
    top = _Parser(
        "mrknee",
        description="Reads knee MRI exams with one multi-task network. Research use only.",
        epilog="\n".join(["verbs (mrknee VERB --help tells more):", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"mrknee {__version__}")
    top.add_argument("verb", metavar="VERB", help="what to do; see below")
    top.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # names that the terminal has no characters for are shown as escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if argv is None else argv
    top.refuse_unknown(list(itertools.takewhile(lambda word: word.startswith("-"), words)))
    if not words:
        top.error("name a verb, such as check, train or predict")
    given = top.parse_args(words)
    if given.verb not in VERBS:
        near = suggestions.meant(given.verb, VERBS, suggestions.VERBS)
        top.error(f"no such verb: {given.verb}" + (f"; did you mean {near}?" if near else ""))
    shown, warnings.showwarning = warnings.showwarning, _show_notes(given.verb)
    try:
        _refuse_other_encodings(given.rest)
        if given.verb == "train":
            train(given.rest)
            return 0
        return _run(given.verb, given.rest)
    except BrokenPipeError:  # the reader of our output has seen enough, as in `| head`
        sys.stderr.close()
    except MrkneeError as error:
        print(f"mrknee {given.verb}: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # the system's own words: no space left, permission denied, ...
        advice = "make room, or write elsewhere" if error.errno in FULL_DISK else None
        told = OutputError(
            error.strerror or str(error), code="system", file=_path_of(error), advice=advice
        )
        print(f"mrknee {given.verb}: {told}", file=sys.stderr)
        return 1
    finally:
        warnings.showwarning = shown
    return 0


GOES_ON = ("phantom", "import", "demo", "protocol")
"""Verbs that take up what an earlier start has left."""


def _run(name: str, words: Sequence[str]) -> int:
    """Runs any verb but train; returns its exit status."""
    verb = VERBS[name]
    parser = _parser(name, verb)
    parser.refuse_unknown(words)
    given = vars(parser.parse_args(words))
    advice = "every file that it had written is whole; run the same command again"
    if name in GOES_ON:
        advice = "run the same command again to go on from what it had written"
    with _interruptible(name, advice):
        return verb(**given) or 0


@contextmanager
def _interruptible(verb: str, advice: str) -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM end a verb with one line.

    Raises:
        SystemExit: 130 or 143, as a shell has it for a command ended by these signals.
    """
    terminated = False

    def terminate(*_: object) -> None:
        nonlocal terminated
        terminated = True
        raise KeyboardInterrupt

    may_handle = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, terminate) if may_handle else None
    try:
        yield
    except KeyboardInterrupt:
        if may_handle:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second would end in a traceback
        how = "terminated" if terminated else "interrupted"
        print(f"mrknee {verb}: {how}; {advice}", file=sys.stderr)
        sys.exit(128 + (signal.SIGTERM if terminated else signal.SIGINT))
    finally:
        if may_handle:
            signal.signal(signal.SIGTERM, before)


def _refuse_other_encodings(words: Sequence[str]) -> None:
    """Refuses names that aren't UTF-8: they could be written into no table and no page."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise SettingsError(
                "a name on the command line can't be used",
                code="path",
                expected="UTF-8",
                found=ascii(word),
                advice="rename the file or folder",
            ) from None


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


def _show_notes(verb: str) -> Callable[..., None]:
    """What shows our own warnings as one line each, and other libraries' as Python does."""
    others = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:  # noqa: ANN401
        if issubclass(category, MrkneeWarning):
            print(f"mrknee {verb}: note: {message}", file=sys.stderr)
        else:
            others(message, category, *place)

    return show


def _refuse_file(out: Path) -> None:
    """Refuses an output folder that can't be written into, before any work is done."""
    from mrknee.outputs import check_output_folder

    check_output_folder(out)


def _path_of(error: OSError) -> Path | None:
    return Path(error.filename) if isinstance(error.filename, str) else None


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in a line or two, without all options there are."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit status 2."""
        print(f"{self.prog}: {message}", file=sys.stderr)
        print(f"`{self.prog} --help` explains all that is possible", file=sys.stderr)
        sys.exit(2)

    def refuse_unknown(self, words: Sequence[str]) -> None:
        """Ends the program if an option doesn't exist, and says which one was probably meant."""
        # as argparse has it, the beginning of one option's name is enough
        known = [option[2:] for option in self._option_string_actions if option[:2] == "--"]
        for word in words[: words.index("--") if "--" in words else None]:
            name = word[2:].partition("=")[0]
            if word.startswith("--") and not any(one.startswith(name) for one in known):
                near = suggestions.meant(name, known, suggestions.OPTIONS)
                told = f"; did you mean --{near}?" if near else ""
                self.error(f"no such option: --{name}{told}")


def _parser(name: str, verb: Callable[..., int | None]) -> _Parser:
    """A verb's parser from its signature and docstring: keyword-only parameters are options."""
    from docstring_parser import parse

    about = parse(verb.__doc__ or "")
    help_texts = {p.arg_name: (p.description or "").replace("\n", " ") for p in about.params}
    parser = _Parser(f"mrknee {name}", description=about.short_description)
    for parameter in inspect.signature(verb, eval_str=True).parameters.values():
        how: dict[str, Any] = {"help": help_texts[parameter.name], **_kind(parameter.annotation)}
        option = "--" + parameter.name.replace("_", "-")
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            parser.add_argument(parameter.name, **how)
            continue
        if parameter.default is inspect.Parameter.empty:
            how["required"] = True
        else:
            how["default"] = parameter.default
            if parameter.default not in (None, False):
                how["help"] += f" (default: {parameter.default})"
        parser.add_argument(option, **how)
    return parser


def _kind(annotation: Any) -> dict[str, Any]:  # noqa: ANN401  # any annotation at all
    """What argparse must know about a parameter of this type."""
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    if NoneType in get_args(annotation):  # this type, or not given
        return _kind(kinds[0])
    if annotation is bool:
        return {"action": "store_true"}
    if get_origin(annotation) is Literal:
        return {"choices": kinds}
    if get_origin(annotation) is list:
        return {"type": kinds[0], "nargs": "+", "action": "extend"}  # given twice: all of them
    if get_origin(annotation) is dict:
        return {"type": _shares, "metavar": "NAME=SHARE,..."}
    if get_origin(annotation) is tuple:
        return {"type": _models, "metavar": "MODEL"}
    return {"type": _path if annotation is Path else annotation}


DEEPEST = 200
"""Folders in a path, at most: making more at once ends in Python's own limit."""


def _path(text: str) -> Path:
    """A path that the system can have; names that are too long it refuses itself."""
    path = Path(text)
    if "\0" in text or len(path.parts) > DEEPEST:
        raise SettingsError(
            "a path can't be used",
            code="path",
            file=path,
            expected=f"no NUL character, and at most {DEEPEST} folders in one another",
            found="a NUL character" if "\0" in text else f"{len(path.parts)} folders",
        )
    return path


def _models(text: str) -> tuple[Path, ...]:
    """A model's path, or an ensemble's with commas between; a path that has a comma is itself."""
    whole = _path(text)
    if "," not in text or whole.exists():
        return (whole,)
    return tuple(_path(part.strip()) for part in text.split(","))


def _shares(text: str) -> dict[str, float]:
    """`acl=0.45,meniscus=0.4` as a dictionary; shares above 0 and below 1, each name once."""
    expected = "expected NAME=SHARE,... with shares between 0 and 1, each name once"
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        try:
            share = float(value)
        except ValueError:
            share = math.nan
        if not name or name in shares or not 0 < share < 1:
            raise argparse.ArgumentTypeError(f"{expected}; found {part!r}")
        shares[name] = share
    return shares
