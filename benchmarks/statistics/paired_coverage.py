"""Two runs on few samples whose scores are not 0/1: does the interval hold, and how often does the test cry wolf?

    python benchmarks/statistics/paired_coverage.py [--draws 10000] [--n 5 10 20 100] > table.md

`paired t` and `sign-flip` of harness.stats.paired. Both are written out here for all draws in one array, and the first
draws of every case are held against the library's own function. The test stands where the truth is no difference; up
to ten pairs it tries all signs, beyond it draws them (the library from 17 on).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from harness.stats.paired import paired_difference

CHECKED, SHUFFLES, BLOCK = 5, 9_999, 1_000
TRIED = 10
"""Most pairs whose signs are all tried."""


class World(NamedTuple):
    name: str
    truth: float
    draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


WORLDS = (
    World("normal", 0.0, lambda rng, shape: rng.normal(size=shape)),
    World(
        "three of five pairs equal, else uniform in -1..1",
        0.0,
        lambda rng, shape: np.where(rng.random(shape) < 0.6, 0.0, rng.uniform(-1, 1, shape)),
    ),
    World(
        "four of five pairs equal, else uniform in 0..1",
        0.1,
        lambda rng, shape: np.where(rng.random(shape) < 0.8, 0.0, rng.random(shape)),
    ),
    World("skewed: exponential less 1", 0.0, lambda rng, shape: rng.exponential(size=shape) - 1.0),
)


def p_values(differences: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(draws,) of the sign-flip test. Args: differences: (draws, n)."""
    n = differences.shape[1]
    if n <= TRIED:
        signs = 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        seen = 0
    else:
        signs = 1.0 - 2.0 * rng.integers(2, size=(SHUFFLES, n))
        seen = 1
    found = []
    for start in range(0, len(differences), BLOCK):
        rows = differences[start : start + BLOCK].T
        far = np.abs(signs @ rows) >= np.abs(rows.sum(axis=0)) - 1e-9 * np.abs(rows).sum(axis=0)
        found.append((far.sum(axis=0) + seen) / (len(signs) + seen))
    return np.concatenate(found)


def row(world: World, n: int, draws: int) -> str:
    """Raises: SystemExit: the figures are not those of the library."""
    rng = np.random.default_rng([n, WORLDS.index(world)])
    data = world.draw(rng, (draws, n))
    mean, error = data.mean(axis=1), data.std(axis=1, ddof=1) / np.sqrt(n)
    half, p = stdtrit(n - 1, 0.975) * error, p_values(data, rng)
    given = error > 0
    for place in range(CHECKED):
        of_run, _, p_value = paired_difference([0.0] * n, data[place].tolist())[4:7]
        limits = (mean[place] - half[place], mean[place] + half[place])
        if given[place] and not np.allclose(of_run or np.nan, limits, rtol=1e-9, atol=1e-9):
            raise SystemExit(f"{world.name}, {n}: {limits}, and the library: {of_run}")
        if abs(p[place] - (p_value or 0.0)) > (1e-9 if n <= TRIED else 0.025):
            raise SystemExit(f"{world.name}, {n}: p {p[place]}, and the library: {p_value}")
    inside = np.abs(mean - world.truth)[given] <= half[given]
    share, without = 100 * inside.mean(), 100 * (1 - given.mean())
    said = "yes" if 94.5 <= share <= 95.5 else "**narrow**" if share < 94.5 else "**wide**"
    alarms = "-" if world.truth else f"{100 * (p < 0.05).mean():.2f} %"
    return (
        f"| {world.name} | {n} | {share:.2f} % | {2 * half[given].mean():.3f} | {said} | {without:.1f} % "
        f"| {alarms} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--n", type=int, nargs="+", default=[5, 10, 20, 100])
    parser.add_argument("--worlds", type=int, nargs="+", default=range(len(WORLDS)), help="places in WORLDS")
    options = parser.parse_args()
    print(
        "| differences | n | truth inside | mean width | 94.5 to 95.5 % | no interval | p < 0.05 without a difference |"
    )
    print("|---|---|---|---|---|---|---|")
    for place in options.worlds:
        for n in options.n:
            print(row(WORLDS[place], n, options.draws), flush=True)


if __name__ == "__main__":
    main()
