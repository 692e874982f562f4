"""Paired differences of dependent samples: interval and test rest on their clusters. numpy loads when needed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from harness.stats.intervals import Z95, Estimate, clustered_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENUMERATED = 16
"""Most clusters whose signs are all tried (65,536 ways); beyond, where sums are no whole numbers, SHUFFLES are."""
SHUFFLES = 10_000
COUNTED = 50_000_000
"""Most steps of counting all totals of whole numbers (clusters x twice their sum): a fraction of a second."""


def sums_of(differences: Sequence[float], clusters: Sequence[Hashable]) -> list[float]:
    """Sum of the differences of each cluster."""
    held: dict[Hashable, list[float]] = {}
    for cluster, difference in zip(clusters, differences, strict=True):
        held.setdefault(cluster, []).append(difference)
    return [math.fsum(own) for own in held.values()]


def sign_flip(sums: Sequence[float], seed: int = 0) -> float:
    """Two-sided p-value: how often the total is as far from 0 when every cluster changes sign by a coin.

    If neither system is better, the two could be swapped in any cluster. Exact for whole numbers (differences of 0/1
    scores; with one sample per cluster it is McNemar's exact test) and for up to ENUMERATED clusters that differ;
    else from SHUFFLES draws.

    Args: sums: of each cluster's differences; those that are 0 change nothing.
    Source: Fisher 1935, The Design of Experiments, sec. 21; by clusters: Gail et al. 1996, Stat. Med. 15:1069.
    """
    import numpy as np

    moved = np.array([total for total in sums if total != 0], dtype=float)
    if not len(moved):
        return 1.0
    if (moved == np.round(moved)).all() and 2 * len(moved) * float(np.abs(moved).sum()) <= COUNTED:
        return _by_counting(np.abs(moved).astype(int), round(abs(float(moved.sum()))))
    if len(moved) <= ENUMERATED:
        ways = np.arange(2 ** len(moved))
        signs = 1.0 - 2.0 * (ways[:, None] >> np.arange(len(moved)) & 1)
        return float(_as_far(signs @ moved, moved).mean())
    rng = np.random.default_rng(seed)
    rows = max(1, 4_000_000 // len(moved))  # a few million signs at once
    blocks = [
        (1.0 - 2.0 * rng.integers(2, size=(min(rows, SHUFFLES - start), len(moved)))) @ moved
        for start in range(0, SHUFFLES, rows)
    ]
    return float((_as_far(np.concatenate(blocks), moved).sum() + 1) / (SHUFFLES + 1))


def _as_far(draws: NDArray[np.float64], moved: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which totals are no nearer to 0 than the observed one, whatever the rounding."""
    import numpy as np

    found: NDArray[np.bool_] = np.abs(draws) >= abs(float(moved.sum())) - 1e-9 * float(np.abs(moved).sum())
    return found


def _by_counting(sizes: NDArray[np.int_], observed: int) -> float:
    """Exact p-value from the distribution of the total, built cluster by cluster."""
    import numpy as np

    reach = int(sizes.sum())
    chances = np.zeros(2 * reach + 1)  # of totals -reach..reach
    chances[reach] = 1.0
    for size in sizes:
        chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2  # what wraps round is 0
    return min(1.0, float(chances[np.abs(np.arange(-reach, reach + 1)) >= observed].sum()))


def clustered_difference(differences: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """Mean difference with the cluster-robust error and its t interval (CR2, Satterthwaite's degrees).

    Returns: no interval for one cluster, nor where no cluster differs from the others.
    """
    return clustered_mean(differences, clusters, is_share=False)


def effective_pairs(
    differences: Sequence[float], clusters: Sequence[Hashable], found: Estimate
) -> float | None:
    """Independent pairs that would tell as much of the difference of two shares as these clustered ones.

    Args: differences: of 0/1 scores. found: as clustered_difference(differences, clusters) gave it.
    Returns: None for one cluster. Where no cluster differs from the others there is no error to be seen: then one
        per cluster, as for shares.
    Source: Korn & Graubard 1998, Survey Methodology 24:193.
    """
    groups, n = len(set(clusters)), len(differences)
    if groups < 2:
        return None
    spread = math.fsum(one**2 for one in differences) / n - found.value**2
    if found.ci95 is None or spread <= 0:
        return float(groups)
    half = (found.ci95[1] - found.ci95[0]) / 2
    return spread * (Z95 / half) ** 2
