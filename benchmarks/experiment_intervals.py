"""Simulation: do the intervals of `mrknee experiment` cover, and does its test keep its level?

    python benchmarks/experiment_intervals.py [--draws 1000]

Scores are normal, as in the model of C. A. Roe, C. E. Metz, "Dorfman-Berbaum-Metz method for
statistical analysis of multireader, multimodality receiver operating characteristic data",
Academic Radiology 4 (1997) 298-303: each exam's noise has a part that all networks share, a part
that the seeds of one arm share, and a part of its own; each seed has a separation of the classes of
its own. Three findings with MRNet's patterns of labels; seeds vary in all findings together.

Printed per number of seeds, number of exams and SD of the AUC over seeds (0.85 in the mean):

- `5 %`, `1 %`: how often the test of the difference in mean AUC rejects at this level, where the
  two arms don't differ;
- `covers`: how often the 95 % interval of the difference contains it, for AUCs of 0.80 and 0.90;
- `AUC`: how often the 95 % interval of one arm's mean AUC contains it;
- `width`: mean half width of the interval of the difference;
- the same for alternatives: `Hillis` (t quantile with Hillis' degrees of freedom), `seeds` (paired
  t test over seeds), `exams` (DeLong's test of the mean of these networks), and `bootstrap`
  (percentile interval, seeds and exams drawn with replacement).
"""

from __future__ import annotations

import argparse
import math
from collections import Counter

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, ndtri, stdtrit

from mrknee.metrics.hierarchical import (
    SeedAucs,
    auc_over_seeds,
    difference_over_seeds,
    mean_over_findings,
    seed_aucs,
)

PATTERNS = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]], dtype=float)
FREQUENCIES = np.array([25, 20, 21, 23, 31]) / 120  # of MRNet's valid split
ALL_SHARE, ARM_SHARE = 0.4, 0.2
"""Shares of the variance of an exam's noise that all networks have in common, and the seeds of one
arm. Two networks of one arm then have noise correlated by 0.6, two of different arms by 0.4."""


def simulate(
    rng: np.random.Generator,
    seeds: int,
    exams: int,
    seed_sd: float,
    aucs: tuple[float, float],
) -> tuple[list[SeedAucs], list[float]]:
    """Draws an experiment of two arms.

    Args:
        rng: random number generator.
        seeds: number of seeds.
        exams: number of exams.
        seed_sd: SD of the AUC over seeds, approximately.
        aucs: AUC of each arm at the mean separation of the classes.

    Returns:
        Each arm's mean AUCs over the findings, and each arm's true mean over seeds and exams.
    """
    labels = PATTERNS[rng.choice(len(PATTERNS), size=exams, p=FREQUENCIES)].T
    shared = rng.normal(size=(3, 1, exams)) * math.sqrt(ALL_SHARE)
    drawn, truths = [], []
    for value in aucs:
        separation = math.sqrt(2) * float(ndtri(value))
        slope = math.exp(-(separation**2) / 4) / math.sqrt(4 * math.pi)  # dAUC / dseparation
        sd = seed_sd / slope
        of_arm = rng.normal(size=(3, 1, exams)) * math.sqrt(ARM_SHARE)
        own = rng.normal(size=(3, seeds, exams)) * math.sqrt(1 - ALL_SHARE - ARM_SHARE)
        apart = separation + sd * rng.normal(size=(1, seeds, 1))
        scores = shared + of_arm + own + apart * labels[:, np.newaxis]
        drawn.append(mean_over_findings([seed_aucs(labels[f], scores[f]) for f in range(3)]))
        truths.append(float(ndtr(separation / math.sqrt(2 + sd**2))))
    return drawn, truths


def alternatives(rng: np.random.Generator, first: SeedAucs, second: SeedAucs) -> dict[str, bool]:
    """Returns which other methods reject equality: column of the table -> whether."""
    values, influences = second.aucs - first.aucs, second.influences - first.influences
    r, value = len(values), abs(float(values.mean()))
    covariance = influences @ influences.T
    own = float(values.var(ddof=1)) / r
    shared = max(0.0, float(covariance.sum() - np.trace(covariance)) / (r * (r - 1)))
    df = (own + shared) ** 2 / (own**2 / (r - 1))
    low, high = np.quantile(bootstrap(rng, values, influences), [0.025, 0.975])
    hillis = {level: -float(stdtrit(df, level / 2)) for level in (0.05, 0.01)}
    return {
        "Hillis 5 %": value > hillis[0.05] * math.sqrt(own + shared),
        "Hillis 1 %": value > hillis[0.01] * math.sqrt(own + shared),
        "seeds 5 %": value > -float(stdtrit(r - 1, 0.025)) * math.sqrt(own),
        "exams 5 %": value > -float(ndtri(0.025)) * math.sqrt(float(covariance.mean())),
        "bootstrap 5 %": not low <= 0 <= high,
    }


def bootstrap(
    rng: np.random.Generator,
    values: Float[np.ndarray, " seeds"],
    influences: Float[np.ndarray, "seeds exams"],
    replicates: int = 400,
) -> Float[np.ndarray, " replicates"]:
    """Draws seeds and exams with replacement; the AUC is linear in the exams' weights."""
    exams = influences.shape[1]
    times = rng.multinomial(exams, np.full(exams, 1 / exams), size=replicates)
    of_exams = values + (times - 1) @ influences.T
    chosen = rng.integers(len(values), size=(replicates, len(values)))
    means: Float[np.ndarray, " replicates"] = np.take_along_axis(of_exams, chosen, 1).mean(axis=1)
    return means


def rates(seeds: int, exams: int, seed_sd: float, draws: int) -> dict[str, float]:
    """Simulates `draws` experiments; returns the columns of the table."""
    rng = np.random.default_rng([seeds, exams, round(1000 * seed_sd)])
    counts: Counter[str] = Counter()
    width = 0.0
    for _ in range(draws):
        (first, second), truths = simulate(rng, seeds, exams, seed_sd, (0.85, 0.85))
        found = difference_over_seeds(first, second)
        counts["5 %"] += found.p < 0.05
        counts["1 %"] += found.p < 0.01
        width += (found.high - found.low) / 2 / draws
        one = auc_over_seeds(first)
        counts["AUC"] += one.low <= truths[0] <= one.high
        for name, rejected in alternatives(rng, first, second).items():
            counts[name] += rejected
        (first, second), truths = simulate(rng, seeds, exams, seed_sd, (0.80, 0.90))
        found = difference_over_seeds(first, second)
        counts["covers"] += found.low <= truths[1] - truths[0] <= found.high
    shares = {name: count / draws for name, count in counts.items()}
    return {"width": width, **shares}


def main() -> None:
    """Prints the table, one line per case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000, help="experiments per case")
    draws = parser.parse_args().draws
    columns = ["5 %", "1 %", "covers", "AUC", "width", "Hillis 5 %", "Hillis 1 %"]
    columns += ["seeds 5 %", "exams 5 %", "bootstrap 5 %"]
    print("| " + " | ".join(["seeds", "exams", "SD", *columns]) + " |")
    print("|" + " --- |" * (3 + len(columns)))
    for seeds in (3, 5):
        for exams in (120, 400, 1000):
            for seed_sd in (0.0, 0.01, 0.03):
                found = rates(seeds, exams, seed_sd, draws)
                cells = [f"{found.get(name, 0.0):.3f}" for name in columns]
                print(
                    f"| {seeds} | {exams} | {seed_sd:.2f} | " + " | ".join(cells) + " |", flush=True
                )


if __name__ == "__main__":
    main()
