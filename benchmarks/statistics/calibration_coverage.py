"""How often does the interval of a calibration error hold the truth?

    python benchmarks/statistics/calibration_coverage.py [--draws 1000] [--n 100 400 1000]

Answers are drawn from models whose calibration error is known: confidences from a distribution, rightness from a given
chance at each confidence. The truth is the binned error of a million confidences without noise. For every model and
size: the share of draws whose 95 % interval holds the truth, of the interval that the harness reports
(harness/stats/calibration.py) and of the plain percentile bootstrap, with the error of the share itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from harness.stats.calibration import BINS, bin_of, ece_estimate

Draw = Callable[[np.random.Generator, int], np.ndarray]
REPLICATES = 1000
"""Of the percentile bootstrap, beside which the harness's own stands."""


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
)


def bins_of(confidences: np.ndarray) -> np.ndarray:
    return np.array([bin_of(float(one)) for one in confidences])


def truth(model: Model, n: int = 1_000_000) -> float:
    """Binned calibration error without noise."""
    confidences = model.confidences(np.random.default_rng(1), n)
    places = np.clip(np.ceil(confidences * BINS - 1e-9) - 1, 0, BINS - 1).astype(int)
    return float(np.abs(np.bincount(places, model.chance(confidences) - confidences, BINS)).sum() / n)


def percentile_interval(confidences: np.ndarray, right: np.ndarray, seed: int) -> tuple[float, float]:
    """The plain percentile bootstrap, for comparison."""
    n = len(right)
    gaps = np.zeros((n, BINS))
    gaps[np.arange(n), bins_of(confidences)] = right - confidences
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=REPLICATES)
    low, high = np.quantile(np.abs(weights @ gaps).sum(axis=1) / n, [0.025, 0.975])
    return float(low), float(high)


def coverage(model: Model, n: int, draws: int) -> tuple[float, float]:
    """Shares of draws whose interval holds the truth: the harness's, the percentile one."""
    true, own, plain = truth(model), 0, 0
    for seed in range(draws):
        rng = np.random.default_rng([seed, n])
        confidences = model.confidences(rng, n)
        right = (rng.random(n) < model.chance(confidences)).astype(float)
        low, high = ece_estimate(confidences.tolist(), right.tolist(), seed=seed).ci95 or (1.0, 0.0)
        own += low <= true <= high
        low, high = percentile_interval(confidences, right, seed)
        plain += low <= true <= high
    return own / draws, plain / draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--n", type=int, nargs="+", default=[100, 400, 1000])
    args = parser.parse_args()
    error = 1.96 * (0.05 * 0.95 / args.draws) ** 0.5
    print(f"{'model':20} {'truth':>6} {'n':>5} {'harness':>8} {'percentile':>10}   (+- {error:.3f})")
    for model in MODELS:
        for n in args.n:
            own, plain = coverage(model, n, args.draws)
            print(f"{model.name:20} {truth(model):6.3f} {n:5d} {own:8.3f} {plain:10.3f}", flush=True)


if __name__ == "__main__":
    main()
