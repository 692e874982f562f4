"""As coverage.py, for intervals that rest on resampling or on pairs: those of `harness compare` and of the judge too.

    python benchmarks/statistics/resampling_coverage.py [--draws 10000] [--only compare] > table.md

REPLICATES stands for the library's 2,000, so that 10,000 draws end within minutes: the limits
are noisier and hold the truth a little less often. Every draw has a seed of its own: one seed for all would be one and
the same error of the limits in all of them. The first draws of each case are held against the library's own function
with that seed and as many replicates.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from coverage import CHECKED, Case, Covered, Intervals, Limits, row
from scipy.stats import norm

from harness.stats import agreement, length_control
from harness.stats.calibration import brier
from harness.stats.intervals import Z95, summarise
from harness.stats.paired import paired_difference
from harness.stats.paired_clusters import clustered_difference
from harness.stats.resampling import JACKKNIFE_GROUPS, bca_limits, bootstrap_rows
from harness.stats.signed import signed_mean

REPLICATES = 1000
World = Callable[[np.random.Generator, int], np.ndarray]


Seeded = Callable[[Any, int], Limits]
"""Interval of one draw with a seed."""


def each(of_one: Seeded) -> Callable[[Any], Intervals]:
    """Every draw with its own seed."""

    def limits(data: Any) -> Intervals:
        found = [of_one(one, seed) or (math.nan, math.nan) for seed, one in enumerate(data)]
        return Intervals(*np.array(found, dtype=float).T)

    return limits


def covered(case: Case, draws: int, seed: int) -> Covered:
    """Raises: SystemExit: the intervals are not those of the library."""
    data = case.draw(np.random.default_rng(seed), draws)
    low, high = case.limits(data)
    of_one: Seeded = case.of_one  # type: ignore[assignment]
    for place in range(min(CHECKED, draws)):
        theirs = of_one(data[place], place)
        if not np.allclose(
            theirs or math.nan, (low[place], high[place]), rtol=1e-9, atol=1e-9, equal_nan=True
        ):
            raise SystemExit(
                f"{case.interval}, {case.world}: {low[place], high[place]}, and the library: {theirs}"
            )
    given = np.isfinite(low)
    inside = (low <= case.truth) & (case.truth <= high)
    return Covered(float(inside[given].mean()), float((high - low)[given].mean()), int((~given).sum()))


def chosen_rows(n: int, seed: int) -> np.ndarray:
    """(REPLICATES, n) rows as bootstrap_rows() draws them."""
    return np.random.default_rng(seed).integers(n, size=(REPLICATES, n))


def left_out(n: int) -> list[np.ndarray]:
    """The groups of rows that bootstrap_rows() leaves out in turn."""
    return np.array_split(np.arange(n), min(n, JACKKNIFE_GROUPS))


# A ratio: instructions followed over instructions given, as in IFEval. A mean: the Brier score


def ratio(rows: np.ndarray) -> float:
    """A row is a prompt: instructions followed, instructions given."""
    return float(rows[:, 0].sum() / rows[:, 1].sum())


def ratio_cases() -> Iterator[Case]:
    for n in (100, 200):
        yield Case(
            "bootstrap", "ratio: instructions followed of 1 to 3 per prompt", n, 0.6,
            partial(_instructions, n=n), each(_sums_bca),
            lambda rows, seed: bootstrap_rows(rows, ratio, replicates=REPLICATES, seed=seed).ci95,
        )  # fmt: skip
    yield Case(
        "cluster-bootstrap", "the same, 100 groups of 3 prompts, correlation 0.5", 300, 0.6,
        _instructions_in_groups, each(lambda rows, seed: _sums_bca(rows.reshape(100, 3, 2).sum(axis=1), seed)),
        lambda rows, seed: bootstrap_rows(
            rows, ratio, clusters=np.repeat(np.arange(100), 3).tolist(), replicates=REPLICATES, seed=seed
        ).ci95,
    )  # fmt: skip


def _instructions(rng: np.random.Generator, draws: int, n: int) -> np.ndarray:
    """Prompts of one to three instructions; whoever follows one is the likelier to follow the next."""
    given = rng.integers(1, 4, size=(draws, n))
    chance = rng.beta(1.2, 0.8, size=(draws, n))
    return np.stack([rng.binomial(given, chance), given], axis=2).astype(float)


def _instructions_in_groups(rng: np.random.Generator, draws: int) -> np.ndarray:
    given = rng.integers(1, 4, size=(draws, 100, 3))
    chance = rng.beta(0.6, 0.4, size=(draws, 100, 1))
    return np.stack([rng.binomial(given, chance), given], axis=3).reshape(draws, 300, 2).astype(float)


def _sums_bca(sums: np.ndarray, seed: int) -> Limits:
    """bootstrap_rows() for the ratio of two sums over prompts, or over whole groups of them."""
    n, total = len(sums), sums.sum(axis=0)
    drawn = sums[chosen_rows(n, seed)].sum(axis=1)
    left = total - sums
    return bca_limits(drawn[:, 0] / drawn[:, 1], total[0] / total[1], left[:, 0] / left[:, 1], n)


def brier_cases() -> Iterator[Case]:
    worlds: dict[str, tuple[World, float]] = {
        "Brier score, calibrated, confidence uniform in 0..1": (
            lambda rng, n: _squares(rng, rng.uniform(size=n), 0.0), 1 / 6,
        ),
        "Brier score, 0.2 too sure, confidence 0.7 to 1": (
            lambda rng, n: _squares(rng, rng.uniform(0.7, 1.0, n), 0.2), _expected_square(0.7, 1.0, 0.2),
        ),
    }  # fmt: skip
    for n in (100, 400):
        for name, (world, truth) in worlds.items():
            yield Case(
                "bootstrap", name, n, truth, partial(_rows, world, n=n), each(_mean_bca),
                lambda one, seed: brier(one.tolist(), seed=seed, replicates=REPLICATES).ci95,
            )  # fmt: skip


def _rows(world: World, rng: np.random.Generator, draws: int, n: int) -> np.ndarray:
    return np.stack([world(rng, n) for _ in range(draws)])


def _squares(rng: np.random.Generator, stated: np.ndarray, too_sure: float) -> np.ndarray:
    return ((rng.uniform(size=len(stated)) < stated - too_sure) - stated) ** 2


def _expected_square(low: float, high: float, too_sure: float) -> float:
    """Mean of (right - c)^2 for c uniform: p (1 - c)^2 + (1 - p) c^2 with p = c - too_sure."""
    c = np.linspace(low, high, 100_001)
    p = c - too_sure
    return float(np.mean(p * (1 - c) ** 2 + (1 - p) * c**2))


def _mean_bca(data: np.ndarray, seed: int) -> Limits:
    n = len(data)
    left = np.array([(data.sum() - data[part].sum()) / (n - len(part)) for part in left_out(n)])
    return bca_limits(data[chosen_rows(n, seed)].mean(axis=1), data.mean(), left, n)


# Two runs: harness compare, harness forgetting


def compare_cases() -> Iterator[Case]:
    for groups, size, rho in ((57, 4, 0.3), (100, 4, 0.3), (25, 8, 0.1), (100, 1, 0.0)):
        yield Case(
            "cluster-newcombe" if size > 1 else "newcombe",
            f"0.1 and 0.2 apart, {groups} clusters of {size}, correlation {rho:g}", groups * size, 0.1,
            partial(_clustered_pairs, groups=groups, size=size, rho=rho),
            each(partial(_compared, size=size)), partial(_compared, size=size),
        )  # fmt: skip
    yield Case(
        "cluster-t", "differences of scores, 57 clusters of 4, correlation 0.3", 228, 0.1,
        partial(_clustered_scores, groups=57, size=4), each(_clustered_t), partial(_compared, size=4),
    )  # fmt: skip
    yield Case(
        "cluster-wilson", "share lost, 57 clusters of 4, correlation 0.3", 228, 0.1,
        partial(_clustered_pairs, groups=57, size=4, rho=0.3), each(_lost), _lost,
    )  # fmt: skip
    yield Case(
        "t", "signed mean of -1, 0 and 1 (bias scores)", 100, 0.1,
        lambda rng, draws: rng.choice([-1.0, 0.0, 1.0], p=[0.2, 0.5, 0.3], size=(draws, 100)), each(_signed), _signed,
    )  # fmt: skip


def _clustered_pairs(rng: np.random.Generator, draws: int, groups: int, size: int, rho: float) -> np.ndarray:
    """(draws, n, 2) 0/1 scores: a alone right in 0.1 of the pairs, b alone in 0.2; clusters have latent normals."""
    common = np.repeat(rng.normal(size=(draws, groups)), size, axis=1)
    latent = norm.cdf(math.sqrt(rho) * common + math.sqrt(1 - rho) * rng.normal(size=common.shape))
    only_a, only_b = latent < 0.1, latent > 0.8
    both = rng.uniform(size=latent.shape) < 0.6
    return np.stack([only_a | (both & ~only_b), only_b | (both & ~only_a)], axis=2).astype(float)


def _clustered_scores(rng: np.random.Generator, draws: int, groups: int, size: int) -> np.ndarray:
    common = np.repeat(rng.normal(0.0, math.sqrt(0.3), size=(draws, groups)), size, axis=1)
    a = rng.uniform(size=common.shape)
    return np.stack([a, a + 0.1 + common + rng.normal(0.0, math.sqrt(0.7), size=common.shape)], axis=2)


def _compared(pairs: np.ndarray, seed: int, size: int) -> Limits:
    clusters = np.repeat(np.arange(len(pairs) // size), size).tolist()
    return paired_difference(pairs[:, 0].tolist(), pairs[:, 1].tolist(), clusters=clusters, seed=seed).ci95


def _clustered_t(pairs: np.ndarray, seed: int) -> Limits:
    """As _compared(), without the test."""
    clusters = np.repeat(np.arange(len(pairs) // 4), 4).tolist()
    return clustered_difference((pairs[:, 1] - pairs[:, 0]).tolist(), clusters).ci95


def _lost(pairs: np.ndarray, seed: int) -> Limits:
    worse = (pairs[:, 0] > pairs[:, 1]).astype(float).tolist()
    clusters = np.repeat(np.arange(len(worse) // 4), 4).tolist()
    return summarise(worse, n_failed=0, higher_is_better=False, clusters=clusters).ci95


def _signed(values: np.ndarray, seed: int) -> Limits:
    return signed_mean(values.tolist(), n_failed=0, higher_is_better=False).ci95


# A judge: agreement with people, length-controlled win rate


def judge_cases() -> Iterator[Case]:
    for n, table in (
        (100, (0.4, 0.1, 0.15, 0.35)),
        (400, (0.4, 0.1, 0.15, 0.35)),
        (100, (0.85, 0.03, 0.04, 0.08)),
    ):
        yield Case(
            "bootstrap", f"Cohen's kappa, {100 * (table[0] + table[3]):.0f} % in agreement", n,
            _kappa_of(np.array(table)), partial(_ratings, n=n, table=table), each(_kappa_bca),
            lambda rows, seed: bootstrap_rows(
                rows, lambda some: agreement._kappa(some, 2, "none"), replicates=REPLICATES, seed=seed
            ).ci95,
        )  # fmt: skip
    for n in (100,):
        yield Case(
            "bootstrap", "length-controlled win rate, longer answers preferred", n, 1 / (1 + math.exp(-0.5)),
            partial(_wins, n=n), each(_win_rate_bca),
            lambda rows, seed: bootstrap_rows(
                rows, lambda some: length_control._win_rate(length_control._fit(some)), replicates=REPLICATES, seed=seed
            ).ci95,
        )  # fmt: skip


def _kappa_of(shares: np.ndarray) -> Any:
    """Kappa from shares (..., 4) of the pairs 00, 01, 10, 11."""
    first, second = shares[..., 2] + shares[..., 3], shares[..., 1] + shares[..., 3]
    chance = first * second + (1 - first) * (1 - second)
    return 1 - (shares[..., 1] + shares[..., 2]) / (1 - chance)


def _ratings(rng: np.random.Generator, draws: int, n: int, table: tuple[float, ...]) -> np.ndarray:
    cells = rng.choice(4, p=table, size=(draws, n))
    return np.stack([cells // 2, cells % 2], axis=2).astype(float)


def _kappa_bca(rows: np.ndarray, seed: int) -> Limits:
    cells, n = (2 * rows[:, 0] + rows[:, 1]).astype(int), len(rows)
    drawn = cells[chosen_rows(n, seed)]
    counts = np.stack([(drawn == cell).sum(axis=1) for cell in range(4)], axis=1)
    whole = np.bincount(cells, minlength=4)
    left = np.array([whole - np.bincount(part, minlength=4) for part in (cells[p] for p in left_out(n))])
    with np.errstate(all="ignore"):
        found = _kappa_of(counts / n)
        leave_outs = _kappa_of(left / left.sum(axis=1, keepdims=True))
    return bca_limits(found[np.isfinite(found)], float(_kappa_of(whole / n)), leave_outs, n)


def _wins(rng: np.random.Generator, draws: int, n: int) -> np.ndarray:
    """(draws, n, 2): wins of B, and how much longer its answer is; theta 0.5, phi 0.8."""
    longer = rng.normal(100.0, 300.0, size=(draws, n))
    pull = np.tanh(longer / longer.std(axis=1, ddof=1, keepdims=True))
    chance = 1 / (1 + np.exp(-(0.5 + 0.8 * pull)))
    return np.stack([(rng.uniform(size=longer.shape) < chance).astype(float), longer], axis=2)


def _win_rate_bca(rows: np.ndarray, seed: int) -> Limits:
    n = len(rows)
    left = np.array([np.delete(np.arange(n), part) for part in left_out(n)])
    value = _win_rates(rows[None])[0]
    return bca_limits(_win_rates(rows[chosen_rows(n, seed)]), float(value), _win_rates(rows[left]), n)


def _win_rates(rows: np.ndarray) -> np.ndarray:
    """length_control._fit() for many sets of rows (m, n, 2) at once."""
    wins, delta = rows[..., 0], rows[..., 1]
    pull = np.tanh(delta / delta.std(axis=1, ddof=1, keepdims=True))
    theta = np.zeros(len(rows))
    phi = np.zeros(len(rows))
    for _ in range(12):
        share = 1 / (1 + np.exp(-(theta[:, None] + phi[:, None] * pull)))
        off, w = wins - share, share * (1 - share)
        g0 = off.sum(axis=1) - length_control.RIDGE * theta
        g1 = (off * pull).sum(axis=1) - length_control.RIDGE * phi
        a = w.sum(axis=1) + length_control.RIDGE
        b = (w * pull).sum(axis=1)
        c = (w * pull**2).sum(axis=1) + length_control.RIDGE
        det = a * c - b * b
        step = (c * g0 - b * g1) / det
        theta, phi = theta + step, phi + (a * g1 - b * g0) / det
        if np.abs(step).max() < 1e-11:
            break
    return 1 / (1 + np.exp(-theta))


# What lm-eval bootstraps; sums over several sets


def other_cases() -> Iterator[Case]:
    for n in (100, 400):
        yield Case(
            "normal, bootstraps", "perplexity of documents of one length (lm-eval's error)", n, math.exp(2.0),
            lambda rng, draws, n=n: rng.normal(-2.0, 0.5, size=(draws, n)), each(_perplexity), _perplexity,
        )  # fmt: skip


def tofu_cases() -> Iterator[Case]:
    for n in (100, 400):
        yield Case(
            "stratified bootstrap", "harmonic mean of 3 sets' 3 means (TOFU's utility)", n, _utility(np.array(MEANS)),
            partial(_sets, n=n), each(_utility_limits), _utility_limits,
        )  # fmt: skip


def _perplexity(logs: np.ndarray, seed: int) -> Limits:
    value = math.exp(-logs.mean())
    error = float(np.exp(-logs[chosen_rows(len(logs), seed)].mean(axis=1)).std(ddof=1))
    return value - Z95 * error, value + Z95 * error


MEANS = (0.4, 0.5, 0.6, 0.3, 0.5, 0.7, 0.5, 0.4, 0.6)


def _sets(rng: np.random.Generator, draws: int, n: int) -> np.ndarray:
    """(draws, 3, n // 3, 3) numbers in 0..1 whose means are MEANS."""
    means = np.array(MEANS).reshape(3, 1, 3)
    return rng.beta(2 * means, 2 * (1 - means), size=(draws, 3, n // 3, 3))


def _utility(parts: np.ndarray) -> Any:
    return parts.shape[-1] / (1 / parts).sum(axis=-1)


def _utility_limits(sets: np.ndarray, seed: int) -> Limits:
    """As suites/tofu/sums.py."""
    rng = np.random.default_rng(seed)
    drawn = [table[rng.integers(len(table), size=(REPLICATES, len(table)))].mean(axis=1) for table in sets]
    means = sets.mean(axis=1)
    left = (sets.sum(axis=1, keepdims=True) - sets) / (sets.shape[1] - 1)
    parts = [
        [left[k] if k == i else np.broadcast_to(means[k], left[k].shape) for k in range(3)] for i in range(3)
    ]
    leave_outs = np.concatenate([_utility(np.concatenate(part, axis=1)) for part in parts])
    draws = _utility(np.concatenate(drawn, axis=1))
    return bca_limits(draws, float(_utility(means.ravel())), leave_outs, sets.shape[1])


FAMILIES = {
    "ratio": ratio_cases,
    "brier": brier_cases,
    "compare": compare_cases,
    "judge": judge_cases,
    "other": other_cases,
    "tofu": tofu_cases,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--only", choices=FAMILIES, default=None)
    options = parser.parse_args()
    start = time.perf_counter()
    print("| interval | world | n | truth inside | mean width | 94.5 to 95.5 % |\n|---|---|---|---|---|---|")
    for name, cases in FAMILIES.items():
        if options.only in (None, name):
            for number, case in enumerate(cases()):
                print(row(case, covered(case, options.draws, seed=2000 + number)), flush=True)
    print(f"\n{options.draws} draws per case, {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
