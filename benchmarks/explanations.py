"""Validity and cost of a trained model's explanations, measured on known lesions.

    python benchmarks/explanations.py RUN DATA [--split valid] [--out DIR] [--pictures docs/images]

RUN was trained on the phantom DATA. There are four measurements, all on exams not used in training:

1. Localisation: whether the heat lies in the lesion, compared with chance, with the middle of the
   stack (lesions lie in the middle of a knee, which is known without a network), and with the
   same network with random heads, paired by exam.
2. Deletion: the logit without the hottest slices, compared with removing as many random slices.
3. Random weights (Adebayo et al., NeurIPS 2018): similarity of the maps before and after the head,
   or head and encoders, are initialised randomly. A map that stays the same doesn't show the
   network.
4. Cost: processor time of explaining and of predicting, measured alternately.

The script prints the model's AUCs and tables, and writes DIR/explanations.json and, with
--pictures, explanation_lesions.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from mrknee.exams import PLANES, Dataset, Exam
from mrknee.explanations.faithfulness import Deletion, deletion, likeness, with_random_weights
from mrknee.explanations.localisation import (
    Localisation,
    contrast,
    localise,
    mean_interval,
    summarise,
)
from mrknee.explanations.map_validation import (
    SETS,
    TOGETHER,
    localise_exam,
    read_masks,
    summarise_deletions,
)
from mrknee.inference.torch_model import TorchModel
from mrknee.metrics.scorecard import score
from mrknee.models.checkpoint import save_checkpoint
from mrknee.models.network import Network
from mrknee.models.settings import NetworkSettings
from mrknee.reports.pictures import overlay
from mrknee.transforms.preparation import Preparation

mpl.use("Agg")
import matplotlib.pyplot as plt

SHARES = (0.1, 0.3)
"""Fractions of an exam's slices that are removed in the deletion test."""

RANDOM_NETWORKS = 5
"""Number of random heads, and of random networks, with which the model is compared."""

MODEL, MIDDLE = "model", "middle"


def middle(shape: tuple[int, ...]) -> np.ndarray:
    """Returns a map whose only hot pixel is the middle of the stack."""
    spot = np.zeros(shape, dtype=np.float32)
    spot[tuple(side // 2 for side in shape)] = 1
    return spot


def localisation(
    predictor: TorchModel, exams: Dataset
) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
    """Measures localisation by the model, by the middle of the stack and by random heads.

    Returns:
        The results by finding and series, and the numbers of exams excluded because the lesion is
        out of view.
    """
    blind = {
        f"random {seed}": with_random_weights(predictor, seed, encoders=False)
        for seed in range(RANDOM_NETWORKS)
    }
    found: dict[tuple[str, str], dict[str, list[Localisation]]] = {}
    unseen: dict[str, dict[str, int]] = {finding: {} for finding in predictor.findings}
    for exam in exams:
        if not any(exam.labels.get(finding) == 1 for finding in predictor.findings):
            continue
        maps = {name: one.explain(exam) for name, one in ({MODEL: predictor} | blind).items()}
        for finding in predictor.findings:
            masks = None
            if exam.labels.get(finding) == 1:
                masks = read_masks(exams, finding, maps[MODEL])
            if masks is None:
                continue
            for name, made in maps.items():
                places = localise_exam(made, finding, masks)
                for where in {*masks, TOGETHER} - places.keys() if name == MODEL else ():
                    unseen[finding][where] = unseen[finding].get(where, 0) + 1
                for where, one in places.items():
                    found.setdefault((finding, where), {}).setdefault(name, []).append(one)
                    if name == MODEL and where != TOGETHER:
                        spot, seen = middle(masks[where].shape), made.seen(where)
                        blindly = localise([spot], [masks[where]], [seen])
                        found[finding, where].setdefault(MIDDLE, []).append(blindly)
    scores: dict[str, Any] = {finding: {} for finding in predictor.findings}
    for finding in scores:
        for where in (*exams.series.names, TOGETHER):
            if (finding, where) in found:
                scores[finding][where] = summed_up(found[finding, where])
    return scores, unseen


def summed_up(each: Mapping[str, Sequence[Localisation]]) -> dict[str, Any]:
    """Summarises one finding in one plane: model, middle, and difference from random heads."""
    values = {"slices": "slice_hit", "pointing": "pointing_hit", "heat": "heat_inside"}
    numbers = {
        question: {
            name: np.array([getattr(one, value) for one in ones], dtype=np.float64)
            for name, ones in each.items()
        }
        for question, value in values.items()
    }
    against = {
        question: asdict(
            contrast(
                of[MODEL],
                np.stack([v for name, v in of.items() if name not in (MODEL, MIDDLE)]),
            )
        )
        for question, of in numbers.items()
    }
    found: dict[str, Any] = {MODEL: asdict(summarise(each[MODEL])), "random heads": against}
    if MIDDLE in each:
        found[MIDDLE] = asdict(summarise(each[MIDDLE]))
    return found


def rate(observed: Mapping[str, float]) -> str:
    """Formats a proportion with its interval."""
    return f"{observed['value']:.2f} ({observed['low']:.2f} to {observed['high']:.2f})"


def print_localisation(scores: Mapping[str, Any], unseen: Mapping[str, Any]) -> None:
    """Prints two tables per question: comparison with chance, and with uninformed maps."""
    titles = {
        "slices": "Hottest slice contains the lesion",
        "pointing": "Hottest pixel in the lesion",
    }
    for question, title in titles.items():
        print(f"\n## {title}\n")
        print("| finding | plane | n | model (95 %) | chance | p | middle (95 %) |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for finding, planes in scores.items():
            for where, maps in planes.items():
                one = maps[MODEL][question]
                centre = rate(maps[MIDDLE][question]["observed"]) if MIDDLE in maps else ""
                print(
                    f"| {finding} | {where} | {one['observed']['n']} | {rate(one['observed'])} "
                    f"| {one['chance']:.{2 if question == 'slices' else 4}f} | {one['p']:.2g} "
                    f"| {centre} |"
                )
        print_against(scores, question, 1, 2)
    print("\n## Share of positive heat inside the lesion, in percent\n")
    print("| finding | plane | n | model | uniform | model - uniform (95 %) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for finding, planes in scores.items():
        for where, maps in planes.items():
            heat = {k: 100 * v if isinstance(v, float) else v for k, v in maps[MODEL]["heat"].items()}  # fmt: skip # noqa: E501
            if not heat["n"]:
                print(f"| {finding} | {where} | 0 | | | |")
                continue
            print(
                f"| {finding} | {where} | {heat['n']} | {heat['inside']:.2f} | {heat['even']:.2f} "
                f"| {heat['difference']:+.2f} ({heat['low']:+.2f} to {heat['high']:+.2f}) |"
            )
    print_against(scores, "heat", 100, 2)
    print(f"\nleft out, because no lesion pixel is in the crop: {json.dumps(unseen)}")


def print_against(scores: Mapping[str, Any], question: str, times: float, digits: int) -> None:
    """Prints the comparison of the model with random heads on the same exams."""
    print(f"\n| finding | plane | n | {RANDOM_NETWORKS} random heads (lowest to highest) | model - random heads (95 %) |")  # fmt: skip # noqa: E501
    print("| --- | --- | --- | --- | --- |")
    for finding, planes in scores.items():
        for where, maps in planes.items():
            one = maps["random heads"][question]
            if not one["n"]:
                print(f"| {finding} | {where} | 0 | | |")
                continue
            v = {k: times * one[k] for k in one if k not in ("n", "left_out")}
            print(
                f"| {finding} | {where} | {one['n']} "
                f"| {v['random']:.{digits}f} "
                f"({v['lowest']:.{digits}f} to {v['highest']:.{digits}f}) "
                f"| {v['difference']:+.{digits}f} "
                f"({v['low']:+.{digits}f} to {v['high']:+.{digits}f}) |"
            )


def deletions(predictor: TorchModel, exams: Sequence[Exam]) -> dict[str, Any]:
    """Measures the decrease of the logit without the hottest slices, and without random ones."""
    falls: dict[tuple[str, float], list[Deletion]] = {}
    for number, exam in enumerate(exams):
        made = predictor.explain(exam)
        for finding in predictor.findings:
            for share in SHARES if exam.labels.get(finding) == 1 else ():
                fall = deletion(predictor, exam, made, finding, share=share, sets=SETS, seed=number)
                falls.setdefault((finding, share), []).append(fall)
    results: dict[str, Any] = {finding: {} for finding in predictor.findings}
    for (finding, share), each in falls.items():
        results[finding][str(share)] = asdict(summarise_deletions(each))
    return results


def print_deletion(results: Mapping[str, Any]) -> None:
    """Prints one row per finding and fraction of slices."""
    print("\n## Deletion test: fall of the logit without some slices\n")
    print("| finding | slices left out | n | hottest | random | difference (95 %) | exams |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for finding, shares in results.items():
        for share, one in shares.items():
            print(
                f"| {finding} | {float(share):.0%} | {one['n']} | {one['hottest']:+.2f} "
                f"| {one['random']:+.2f} | {one['difference']:+.2f} "
                f"({one['low']:+.2f} to {one['high']:+.2f}) "
                f"| {one['lower']} of {one['n']} |"
            )


def random_weights(predictor: TorchModel, exams: Sequence[Exam]) -> dict[str, Any]:
    """Computes Spearman's correlation of maps before and after weights are randomised.

    The correlation is over all cells of all planes together, for signed maps and for their absolute
    values. The result is the mean per exam over the random networks, then the mean over exams with
    its interval.
    """
    results: dict[str, Any] = {}
    before = [predictor.explain(exam) for exam in exams]
    for stage, encoders in {"head": False, "head and encoders": True}.items():
        others = [
            with_random_weights(predictor, seed, encoders=encoders)
            for seed in range(RANDOM_NETWORKS)
        ]
        alike = np.zeros((len(exams), len(predictor.findings), len(others), 2))
        for i, exam in enumerate(exams):
            for k, other in enumerate(others):
                after = other.explain(exam)
                for row, finding in enumerate(predictor.findings):
                    alike[i, row, k] = likeness(before[i], after, finding)
        for row, finding in enumerate(predictor.findings):
            for kind, values in zip(("signed", "absolute"), np.moveaxis(alike, 3, 0), strict=True):
                mean, low, high = mean_interval(values[:, row].mean(axis=1))
                entry = {"n": len(exams), "mean": mean, "low": low, "high": high}
                results.setdefault(finding, {}).setdefault(stage, {})[kind] = entry
    return results


def print_random_weights(results: Mapping[str, Any]) -> None:
    """Prints one row per finding and stage."""
    print("\n## Similarity of maps after randomising weights (Spearman)\n")
    print("| finding | randomised | n | signed (95 %) | absolute (95 %) |")
    print("| --- | --- | --- | --- | --- |")
    for finding, stages in results.items():
        for stage, kinds in stages.items():
            texts = [
                f"{k['mean']:+.2f} ({k['low']:+.2f} to {k['high']:+.2f})" for k in kinds.values()
            ]
            print(f"| {finding} | {stage} | {kinds['signed']['n']} | {' | '.join(texts)} |")


def sums(predictor: TorchModel, exams: Sequence[Exam]) -> dict[str, float]:
    """Returns the largest difference between the sum of contributions and the logit."""
    to_logit = 0.0
    for exam in exams:
        made = predictor.explain(exam)
        total = made.bias + np.sum(list(made.series_sums.values()), axis=0)
        to_logit = max(to_logit, float(np.abs(total - made.logits).max()))
    return {"exams": len(exams), "sum_to_logit": to_logit}


def cost(predictor: TorchModel, exam: Exam, rounds: int) -> dict[str, Any]:
    """Measures processor seconds of all variants alternately: median and range over the rounds.

    Other work on the machine affects processor time less than wall-clock time.
    """
    with tempfile.TemporaryDirectory() as name:
        ways: dict[str, Callable[[], object]] = {
            "predict": lambda: predictor.predict([exam]),
            "explain": lambda: predictor.explain(exam),
            "with_numbers_written": lambda: predictor.explain(exam).write_numbers(Path(name)),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds + 1):  # the first round is a warm-up
            for way, work in ways.items():
                start = time.process_time()
                work()
                taken[way].append(time.process_time() - start)
    taken["ratio"] = [e / p for e, p in zip(taken["explain"], taken["predict"], strict=True)]
    found: dict[str, Any] = {
        way: {"median": statistics.median(t[1:]), "least": min(t[1:]), "most": max(t[1:])}
        for way, t in taken.items()
    }
    return {"rounds": rounds} | found


def reference_model(folder: Path) -> TorchModel:
    """Returns the reference network with random weights, on which the time doesn't depend."""
    network = Network(NetworkSettings(), ("abnormal", "acl", "meniscus"))
    save_checkpoint(folder, network, Preparation().to_dict(), {})
    return TorchModel(folder)


def reference_exam() -> Exam:
    """Returns an exam of noise of MRNet's in-plane size and median slice counts."""
    rng = np.random.default_rng(0)
    counts = dict(zip(PLANES, (35, 30, 30), strict=True))
    return Exam("noise", {p: rng.integers(0, 256, (n, 256, 256)).astype(np.uint8) for p, n in counts.items()})  # fmt: skip # noqa: E501


def print_cost(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints one row per model."""
    print("\n## Processor seconds per exam: median (lowest to highest)\n")
    print("| model | rounds | predict | explain | explain, numbers written | explain / predict |")  # fmt: skip # noqa: E501
    print("| --- | --- | --- | --- | --- | --- |")
    ways = {"predict": 3, "explain": 3, "with_numbers_written": 3, "ratio": 2}
    for name, one in results.items():
        cells = [
            f"{one[way]['median']:.{d}f} ({one[way]['least']:.{d}f} to {one[way]['most']:.{d}f})"
            for way, d in ways.items()
        ]
        print(f"| {name} | {one['rounds']} | {' | '.join(cells)} |")


def draw(predictor: TorchModel, exams: Dataset, file: Path) -> None:
    """Draws, for each finding, the hottest slice per plane of the exam of median probability.

    The exam is chosen among the positive ones by this rule, not by its appearance. The lesion is
    outlined if the slice contains it.
    """
    made = {exam.id: predictor.explain(exam) for exam in exams}
    figure, axes = plt.subplots(
        len(predictor.findings), 2 * len(PLANES), figsize=(13, 2.5 * len(predictor.findings))
    )
    for row, finding in enumerate(predictor.findings):
        positive = [e for e in exams if e.labels.get(finding) == 1]
        positive.sort(key=lambda e, row=row: made[e.id].probabilities[row])  # type: ignore[misc]
        exam = positive[len(positive) // 2]
        one, lesions = made[exam.id], read_masks(exams, finding, made[exam.id])
        assert lesions is not None
        for column, plane in enumerate(exam.stacks):
            score = one.slice_scores(plane)[row]
            hottest = int(score.argmax())
            grey, lesion = np.asarray(exam.stacks[plane][hottest]), lesions[plane][hottest]
            heat = one.heat(plane, finding)[hottest]
            for axis, picture in (
                (axes[row, 2 * column], np.repeat(grey[..., None], 3, axis=2)),
                (axes[row, 2 * column + 1], overlay(grey, heat, one.scale)),
            ):
                axis.imshow(picture)
                axis.set_axis_off()
                if lesion.any():
                    axis.contour(lesion, levels=[0.5], colors="yellow", linewidths=0.8)
            held = "contains the lesion" if lesion.any() else "no lesion here"
            axes[row, 2 * column].set_title(
                f"{finding}, exam {exam.id}, p {one.probabilities[row]:.2f}" if column == 0 else "",
                fontsize=8,
            )
            axes[row, 2 * column + 1].set_title(
                f"{plane} {hottest + 1} of {len(score)}: {score[hottest]:+.2f}, {held}", fontsize=8
            )
    figure.tight_layout()
    figure.savefig(file, dpi=90)
    plt.close(figure)


def main() -> None:
    """Runs all measurements, prints and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="valid")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sanity-exams", type=int, default=40)
    arguments = parser.parse_args()
    predictor = TorchModel(arguments.run)
    folder = Dataset.of_split(arguments.data, arguments.split, findings=predictor.findings)
    exams = list(folder)
    some = exams[: arguments.sanity_exams]
    sides = {p: predictor.explain(exams[0]).native[p].shape[2:] for p in exams[0].stacks}
    print(f"{len(exams)} exams, feature maps of {sides}, {predictor.preparation}")

    labels = np.array([[e.labels.get(f, np.nan) for f in predictor.findings] for e in exams])
    table = predictor.predict(folder)
    card = score(table.findings, labels, table.probabilities, split=arguments.split)
    print(card.table())
    results: dict[str, Any] = {
        "exams": len(exams),
        "auc": {finding: asdict(one.auc) for finding, one in card.findings.items()},
        "sums": sums(predictor, some),
    }
    print(f"largest gaps: {results['sums']}")
    results["localisation"], results["unseen"] = localisation(predictor, folder)
    print_localisation(results["localisation"], results["unseen"])
    results["deletion"] = deletions(predictor, exams)
    print_deletion(results["deletion"])
    results["random_weights"] = random_weights(predictor, some)
    print_random_weights(results["random_weights"])
    with tempfile.TemporaryDirectory() as name:
        reference = reference_model(Path(name))
    results["cost"] = {
        "this model": cost(predictor, exams[0], arguments.rounds),
        "reference, MRNet's size": cost(reference, reference_exam(), arguments.rounds),
    }
    print_cost(results["cost"])
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(results, indent=2) + "\n"
        (arguments.out / "explanations.json").write_text(text, encoding="utf-8")
    if arguments.pictures:
        file = arguments.pictures / "explanation_lesions.png"
        draw(predictor, folder, file)


if __name__ == "__main__":
    main()
