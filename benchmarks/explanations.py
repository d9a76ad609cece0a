"""What the explanations of a trained model are worth: measured on lesions that are known.

    python benchmarks/explanations.py RUN DATA [--split valid] [--out DIR] [--pictures docs]

RUN was trained on the phantom DATA. Four measurements, all on exams that training never saw:

1. Localisation: does the heat lie where the lesion is, against chance, against the middle of the
   stack (lesions lie in the middle of a knee, which needs no network to know), and against the
   same network with a random head.
2. Deletion: the logit without the hottest slices, against without as many drawn at random.
3. Random weights (Adebayo et al., NeurIPS 2018): how alike are the maps before and after the head,
   then head and encoders, are drawn anew. A map that stays the same doesn't show the network.
4. Cost: explaining against predicting, in turns.

It prints tables and writes DIR/explanations.json; with --pictures, explanation_lesions.png too.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from scipy.stats import spearmanr

from mrknee.exams import PLANES, Exam, ExamFolder, Plane, read_stack
from mrknee.inference.decomposition import explain
from mrknee.inference.explanation import Explanation
from mrknee.inference.predictor import Predictor
from mrknee.networks.checkpoint import save_checkpoint
from mrknee.networks.network import Network
from mrknee.networks.settings import NetworkSettings
from mrknee.report.pictures import overlay
from mrknee.scoring.localisation import Localisation, localise, mean_interval, summarise
from mrknee.tensors.batches import Sample, frame_exam, join
from mrknee.tensors.preparation import Preparation

mpl.use("Agg")
import matplotlib.pyplot as plt

TOGETHER = "all planes"
SHARES = (0.1, 0.3)
"""Of all slices of an exam, left out in the deletion test."""

RANDOM_SETS = 20
"""Random sets of slices an exam, to which the hottest are compared."""

RANDOM_HEADS = 5
"""Random networks an exam in the test of random weights."""

Lesions = Mapping[Plane, np.ndarray]


def lesions_of(data: Path, split: str, finding: str, exam: Exam) -> Lesions:
    """The finding's lesion in each plane of the exam."""
    folder = data / "lesions" / split / finding
    return {p: read_stack(folder / p / f"{exam.id}.npy", exam.id) > 0 for p in exam.stacks}


def middle(shape: tuple[int, ...]) -> np.ndarray:
    """A map that knows nothing but where the middle of the stack is."""
    spot = np.zeros(shape, dtype=np.float32)
    spot[tuple(side // 2 for side in shape)] = 1
    return spot


def with_random(predictor: Predictor, seed: int, *, encoders: bool) -> Predictor:
    """The model with its head drawn anew, and its encoders where asked for."""
    other = copy.copy(predictor)
    other.reader = copy.deepcopy(predictor.reader)
    network = other.reader.network
    torch.manual_seed(seed)
    network.head.reset_parameters()
    if encoders:
        fresh = Network(network.settings, network.findings)
        network.encoders.load_state_dict(fresh.encoders.state_dict())
    return other


def localisation(
    predictor: Predictor, exams: Sequence[Exam], data: Path, split: str
) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
    """Localisation scores by finding, plane and map; and the exams left out, with their number."""
    blind = with_random(predictor, 0, encoders=False)
    found: dict[tuple[str, str, str], list[Localisation]] = {}
    unseen: dict[str, dict[str, int]] = {}
    for exam in exams:
        maps = {"model": explain(predictor, exam), "random head": explain(blind, exam)}
        seen = {p: maps["model"].seen(p) for p in exam.stacks}
        heats = {name: {p: made.heat(p) for p in exam.stacks} for name, made in maps.items()}
        for row, finding in enumerate(predictor.findings):
            if exam.labels.get(finding) != 1:
                continue
            lesions = lesions_of(data, split, finding, exam)
            for where in (*exam.stacks, TOGETHER):
                planes = list(exam.stacks) if where == TOGETHER else [Plane(where)]
                windows = [seen[p] for p in planes]
                masks = [lesions[p] for p in planes]
                if not any((m & w).any() for m, w in zip(masks, windows, strict=True)):
                    counts = unseen.setdefault(finding, {})
                    counts[str(where)] = counts.get(str(where), 0) + 1
                    continue
                for name in maps:
                    own = [heats[name][p][row] for p in planes]
                    found.setdefault((finding, where, name), []).append(
                        localise(own, masks, windows)
                    )
                if where != TOGETHER:
                    spot = middle(exam.stacks[Plane(where)].shape)
                    found.setdefault((finding, where, "middle"), []).append(
                        localise([spot], masks, windows)
                    )
    scores: dict[str, Any] = {finding: {} for finding in predictor.findings}
    for (finding, where, name), each in found.items():
        scores[finding].setdefault(where, {})[name] = asdict(summarise(each))
    return scores, unseen


def print_localisation(scores: Mapping[str, Any], unseen: Mapping[str, Any]) -> None:
    """One table a question."""
    titles = {"slices": "hottest slice holds the lesion", "pointing": "hottest pixel in the lesion"}
    for question, title in titles.items():
        print(f"\n### {title}\n")
        print("| finding | plane | n | model (95 %) | chance | p | random head | middle |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for finding, planes in scores.items():
            for where, maps in planes.items():
                one, share = maps["model"][question], maps["model"][question]["observed"]
                centre = maps.get("middle")
                print(
                    f"| {finding} | {where} | {share['n']} "
                    f"| {share['value']:.2f} ({share['low']:.2f} to {share['high']:.2f}) "
                    f"| {one['chance']:.{2 if question == 'slices' else 4}f} | {one['p']:.2g} "
                    f"| {maps['random head'][question]['observed']['value']:.2f} "
                    f"| {'' if centre is None else format(centre[question]['observed']['value'], '.2f')} |"  # noqa: E501
                )
    print("\n### share of positive heat inside the lesion, in percent\n")
    print("| finding | plane | n | model | even | model - even (95 %) | random head |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for finding, planes in scores.items():
        for where, maps in planes.items():
            heat = {k: 100 * v if isinstance(v, float) else v for k, v in maps["model"]["heat"].items()}  # fmt: skip # noqa: E501
            print(
                f"| {finding} | {where} | {heat['n']} | {heat['inside']:.2f} | {heat['even']:.2f} "
                f"| {heat['difference']:+.2f} ({heat['low']:+.2f} to {heat['high']:+.2f}) "
                f"| {100 * maps['random head']['heat']['inside']:.2f} |"
            )
    print(f"\nleft out, because no lesion pixel is in the crop: {json.dumps(unseen)}")


def without(sample: Sample, left_out: set[tuple[Plane, int]]) -> Sample:
    """The exam without some of its slices."""
    kept = {
        plane: stack[[i for i in range(len(stack)) if (plane, i) not in left_out]]
        for plane, stack in sample.slices.items()
    }
    return replace(sample, slices=kept)


def logits(predictor: Predictor, samples: Sequence[Sample]) -> np.ndarray:
    """What the network says to each of the exams: (exams, findings)."""
    device = next(predictor.reader.parameters()).device
    with torch.inference_mode():
        found = predictor.reader(join(samples).to(device))
    return np.asarray(found.double().cpu().numpy())


def deletion(predictor: Predictor, exams: Sequence[Exam], seed: int = 0) -> dict[str, Any]:
    """How much lower the logit is without the hottest slices than without random ones.

    Of every plane the coldest slice is kept, from the random sets too: without any the plane would
    count as missing, and the others for more. That favours the random sets, if anything.
    """
    rng = np.random.default_rng(seed)
    drops: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for exam in exams:
        made, sample = explain(predictor, exam), frame_exam(exam, predictor.reader.preparation)
        for row, finding in enumerate(predictor.findings):
            if exam.labels.get(finding) != 1:
                continue
            scores = {p: made.slice_scores(p)[row] for p in exam.stacks}
            slots = [(float(scores[p][i]), p, i) for p in scores for i in range(len(scores[p]))]
            free = [
                (p, i) for _, p, i in sorted(slots, reverse=True) if i != int(scores[p].argmin())
            ]
            for share in SHARES:
                count = min(int(np.ceil(share * len(slots))), len(free))
                sets = [set(free[:count])]
                for _ in range(RANDOM_SETS):
                    sets.append({free[i] for i in rng.permutation(len(free))[:count]})
                values = logits(predictor, [sample, *(without(sample, out) for out in sets)])[
                    :, row
                ]
                drop = values[0] - values[1:]
                drops.setdefault((finding, share), []).append((drop[0], drop[1:].mean()))
    results: dict[str, Any] = {finding: {} for finding in predictor.findings}
    for (finding, share), pairs in drops.items():
        hottest, random = np.array(pairs).T
        difference, low, high = mean_interval(hottest - random, seed=seed)
        results[finding][str(share)] = {
            "n": len(pairs),
            "hottest": float(hottest.mean()),
            "random": float(random.mean()),
            "difference": difference,
            "low": low,
            "high": high,
            "exams_where_hottest_lowers_more": int((hottest > random).sum()),
        }
    return results


def print_deletion(results: Mapping[str, Any]) -> None:
    """One row a finding and share."""
    print("\n### how much the logit falls without some of the slices\n")
    print("| finding | slices left out | n | hottest | random | difference (95 %) | exams |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for finding, shares in results.items():
        for share, one in shares.items():
            print(
                f"| {finding} | {float(share):.0%} | {one['n']} | {one['hottest']:+.2f} "
                f"| {one['random']:+.2f} | {one['difference']:+.2f} "
                f"({one['low']:+.2f} to {one['high']:+.2f}) "
                f"| {one['exams_where_hottest_lowers_more']} of {one['n']} |"
            )


def random_weights(predictor: Predictor, exams: Sequence[Exam]) -> dict[str, Any]:
    """Spearman's correlation of an exam's map before and after weights are drawn anew.

    Of all cells of all planes together; signed maps, and their absolute values; for each exam the
    mean over the random networks, then the mean over exams with its interval.
    """
    results: dict[str, Any] = {}
    stages = {"head": False, "head and encoders": True}
    before = [explain(predictor, exam) for exam in exams]
    for stage, encoders in stages.items():
        others = [with_random(predictor, s, encoders=encoders) for s in range(RANDOM_HEADS)]
        alike = {"signed": np.zeros((len(exams), len(predictor.findings), len(others)))}
        alike["absolute"] = alike["signed"].copy()
        for i, exam in enumerate(exams):
            for k, other in enumerate(others):
                after = explain(other, exam)
                for row in range(len(predictor.findings)):
                    old, new = (cells(made, row) for made in (before[i], after))
                    alike["signed"][i, row, k] = spearmanr(old, new).statistic
                    alike["absolute"][i, row, k] = spearmanr(abs(old), abs(new)).statistic
        for row, finding in enumerate(predictor.findings):
            for kind, values in alike.items():
                mean, low, high = mean_interval(values[:, row].mean(axis=1))
                entry = {"n": len(exams), "mean": mean, "low": low, "high": high}
                results.setdefault(finding, {}).setdefault(stage, {})[kind] = entry
    return results


def cells(explanation: Explanation, row: int) -> np.ndarray:
    """One finding's contributions, all planes in one row."""
    return np.concatenate([explanation.native[p][row].ravel() for p in explanation.native])


def print_random_weights(results: Mapping[str, Any]) -> None:
    """One row a finding and stage."""
    print("\n### how alike maps are after weights are drawn anew (Spearman)\n")
    print("| finding | drawn anew | n | signed (95 %) | absolute (95 %) |")
    print("| --- | --- | --- | --- | --- |")
    for finding, stages in results.items():
        for stage, kinds in stages.items():
            texts = [
                f"{k['mean']:+.2f} ({k['low']:+.2f} to {k['high']:+.2f})" for k in kinds.values()
            ]
            print(f"| {finding} | {stage} | {kinds['signed']['n']} | {' | '.join(texts)} |")


def sums(predictor: Predictor, exams: Sequence[Exam]) -> dict[str, float]:
    """The largest gaps: sum to logit, and exact map to Captum's signed Grad-CAM."""
    to_logit, to_captum = 0.0, 0.0
    for exam in exams:
        made = explain(predictor, exam)
        total = made.bias + np.sum(list(made.plane_sums.values()), axis=0)
        to_logit = max(to_logit, float(np.abs(total - made.logits).max()))
        captum = explain(predictor, exam, method="grad-cam")
        gaps = [float(np.abs(made.native[p] - captum.native[p]).max()) for p in made.native]
        to_captum = max(to_captum, *gaps)
    return {"exams": len(exams), "sum_to_logit": to_logit, "exact_to_grad_cam": to_captum}


def cost(predictor: Predictor, exam: Exam, rounds: int) -> dict[str, float]:
    """Medians of seconds, all ways in turns."""

    def with_heat() -> None:
        made = explain(predictor, exam)
        for plane in made.native:
            made.heat(plane)

    ways: dict[str, Callable[[], object]] = {
        "predict": lambda: predictor.predict([exam]),
        "explain": lambda: explain(predictor, exam),
        "explain_and_full_resolution": with_heat,
        "grad_cam": lambda: explain(predictor, exam, method="grad-cam"),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            taken[name].append(time.perf_counter() - start)
    return {"rounds": rounds} | {n: statistics.median(t[1:]) for n, t in taken.items()}


def reference_model(folder: Path) -> Predictor:
    """The reference network with random weights: time doesn't depend on them."""
    network = Network(NetworkSettings(), ("abnormal", "acl", "meniscus"))
    save_checkpoint(folder, network, Preparation().to_dict(), {})
    return Predictor(folder)


def reference_exam() -> Exam:
    """Noise, in MRNet's size and with its median slice counts."""
    rng = np.random.default_rng(0)
    counts = dict(zip(PLANES, (35, 30, 30), strict=True))
    return Exam("noise", {p: rng.integers(0, 256, (n, 256, 256)).astype(np.uint8) for p, n in counts.items()})  # fmt: skip # noqa: E501


def print_cost(results: Mapping[str, Mapping[str, float]]) -> None:
    """One row a model."""
    print("\n### seconds an exam (medians of rounds, in turns)\n")
    print("| model | rounds | predict | explain | full resolution | Grad-CAM | explain / predict |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, one in results.items():
        print(
            f"| {name} | {one['rounds']} | {one['predict']:.3f} | {one['explain']:.3f} "
            f"| {one['explain_and_full_resolution']:.3f} | {one['grad_cam']:.3f} "
            f"| {one['explain'] / one['predict']:.2f} |"
        )


def draw(predictor: Predictor, exams: Sequence[Exam], data: Path, split: str, file: Path) -> None:
    """For each finding the positive exam of median probability: each plane's hottest slice.

    The exam is chosen by that rule, not by its looks. The lesion's outline is drawn where that
    slice holds it.
    """
    made = {exam.id: explain(predictor, exam) for exam in exams}
    figure, axes = plt.subplots(
        len(predictor.findings), 2 * len(PLANES), figsize=(13, 2.5 * len(predictor.findings))
    )
    for row, finding in enumerate(predictor.findings):
        positive = [e for e in exams if e.labels.get(finding) == 1]
        positive.sort(key=lambda e, row=row: made[e.id].probabilities[row])  # type: ignore[misc]
        exam = positive[len(positive) // 2]
        one, lesions = made[exam.id], lesions_of(data, split, finding, exam)
        for column, plane in enumerate(exam.stacks):
            score = one.slice_scores(plane)[row]
            hottest = int(score.argmax())
            grey, lesion = np.asarray(exam.stacks[plane][hottest]), lesions[plane][hottest]
            heat = one.heat(plane)[row, hottest]
            for axis, picture in (
                (axes[row, 2 * column], np.repeat(grey[..., None], 3, axis=2)),
                (axes[row, 2 * column + 1], overlay(grey, heat, one.scale)),
            ):
                axis.imshow(picture)
                axis.set_axis_off()
                if lesion.any():
                    axis.contour(lesion, levels=[0.5], colors="yellow", linewidths=0.8)
            held = "holds the lesion" if lesion.any() else "no lesion here"
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
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="valid")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sanity-exams", type=int, default=40)
    arguments = parser.parse_args()
    predictor = Predictor(arguments.run)
    folder = ExamFolder.of_split(arguments.data, arguments.split, findings=predictor.findings)
    exams = list(folder)
    some = exams[: arguments.sanity_exams]
    sides = {p: explain(predictor, exams[0]).native[p].shape[2:] for p in exams[0].stacks}
    print(f"{len(exams)} exams, feature maps of {sides}, {predictor.reader.preparation}")

    results: dict[str, Any] = {"exams": len(exams), "sums": sums(predictor, some)}
    print(f"largest gaps: {results['sums']}")
    results["localisation"], results["unseen"] = localisation(
        predictor, exams, arguments.data, arguments.split
    )
    print_localisation(results["localisation"], results["unseen"])
    results["deletion"] = deletion(predictor, exams)
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
        draw(predictor, exams, arguments.data, arguments.split, file)


if __name__ == "__main__":
    main()
