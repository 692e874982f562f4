"""As coverage.py, for the interval of the expected calibration error.

    python benchmarks/statistics/calibration_coverage.py [--draws 10000] [--n 100 400] > table.md

Answers are drawn from models whose calibration error is known: confidences from a distribution, rightness from a given
chance at each confidence. The truth is the binned error of two million confidences without noise. REPLICATES stands
for the library's 2,000, so that 10,000 draws end within minutes; beside the library's interval (harness.stats) stands
the plain percentile bootstrap, which does not allow for the bias.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from coverage import Case, Covered, row

from harness.stats.calibration import BINS, ece_estimate

Draw = Callable[[np.random.Generator, int], np.ndarray]
REPLICATES = 500


class Model(NamedTuple):
    """How confident answers are, and how often they are right at each confidence."""

    name: str
    confidences: Draw
    chance: Callable[[np.ndarray], np.ndarray]


MODELS = (
    Model("calibrated", lambda rng, n: rng.uniform(0, 1, n), lambda c: c),
    Model("0.05 too sure", lambda rng, n: rng.uniform(0.4, 1, n), lambda c: c - 0.05),
    Model("0.20 too sure", lambda rng, n: rng.uniform(0.5, 1, n), lambda c: c - 0.2),
    Model("extremes too sure", lambda rng, n: rng.uniform(0, 1, n), lambda c: 0.25 + 0.5 * c),
    Model("stated in tenths", lambda rng, n: rng.choice([0.5, 0.7, 0.8, 0.9, 1.0], n), lambda c: 0.6 * c),
    Model("likelihoods a little too sure", lambda rng, n: rng.beta(4, 1.2, n), lambda c: c**1.3),
    Model("one bin of ten off", lambda rng, n: rng.uniform(0, 1, n), lambda c: np.where(c > 0.9, 0.6, c)),
)


def places(confidences: np.ndarray) -> np.ndarray:
    return np.clip(np.ceil(confidences * BINS - 1e-9) - 1, 0, BINS - 1).astype(int)


def truth(model: Model, n: int = 2_000_000) -> float:
    """Binned calibration error without noise."""
    confidences = model.confidences(np.random.default_rng(1), n)
    gaps = np.bincount(places(confidences), model.chance(confidences) - confidences, BINS)
    return float(np.abs(gaps).sum() / n)


def percentile_interval(confidences: np.ndarray, right: np.ndarray, seed: int) -> tuple[float, float]:
    """The plain percentile bootstrap, for comparison."""
    n = len(right)
    gaps = np.zeros((n, BINS))
    gaps[np.arange(n), places(confidences)] = right - confidences
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=200)
    low, high = np.quantile(np.abs(weights @ gaps).sum(axis=1) / n, [0.025, 0.975])
    return float(low), float(high)


def intervals(model: Model, n: int, draws: int) -> np.ndarray:
    """(draws, 4) limits: the harness's, the percentile bootstrap's (of every tenth draw, else NaN)."""
    found = np.full((draws, 4), math.nan)
    for seed in range(draws):
        rng = np.random.default_rng([seed, n])
        stated = model.confidences(rng, n)
        right = (rng.random(n) < model.chance(stated)).astype(float)
        own = ece_estimate(stated.tolist(), right.tolist(), seed=seed, replicates=REPLICATES)
        found[seed, :2] = own.ci95 or (math.nan, math.nan)
        if seed % 10 == 0:
            found[seed, 2:] = percentile_interval(stated, right, seed)
    return found


def covered(limits: np.ndarray, true: float) -> Covered:
    low, high = limits[np.isfinite(limits[:, 0])].T
    inside = (low <= true + 1e-12) & (true <= high + 1e-12)
    return Covered(float(inside.mean()), float((high - low).mean()), 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--n", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--models", type=int, nargs="+", default=range(len(MODELS)), help="places in MODELS")
    args = parser.parse_args()
    start = time.perf_counter()
    print("| interval | world | n | truth inside | mean width | 94.5 to 95.5 % |\n|---|---|---|---|---|---|")
    for model in [MODELS[place] for place in args.models]:
        true = truth(model)
        for n in args.n:
            limits = intervals(model, n, args.draws)
            plain = 100 * covered(limits[:, 2:], true).share
            world = f"calibration error {true:.3f}, {model.name} (percentile bootstrap: {plain:.0f} %)"
            case = Case("bias-aware inversion", world, n, true, None, None, None)  # type: ignore[arg-type]
            print(row(case, covered(limits[:, :2], true)), flush=True)
    print(f"\n{args.draws} draws per case, {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
