"""How many CPU threads a training run should take."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SMALL = 20_000_000
"""Below this many parameters one thread wins on any machine seen: the products are too small to share."""
_ROWS, _WIDTH = 512, 1024


@contextmanager
def training_threads(parameters: int | None, wanted: Any = None) -> Iterator[int]:
    """Set torch's threads for the time of a training run.

    Order: the user's word (wanted, then OMP_NUM_THREADS), one for small models, else the faster count of a short
    measurement.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(choose_threads(parameters, wanted))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def choose_threads(parameters: int | None, wanted: Any = None) -> int:
    """Threads for a model of that many parameters on this machine; the user's word comes first."""
    import torch

    if wanted:
        return int(wanted)
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return int(os.environ["OMP_NUM_THREADS"])
    if torch.cuda.is_available():
        return torch.get_num_threads()
    if parameters is not None and parameters < SMALL:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(sorted({1, max(1, cores // 2), cores}), key=_product_s)


def _product_s(threads: int) -> float:
    """Best of three timings of a product as in a layer of some 20 M parameters, seconds."""
    import torch

    torch.set_num_threads(threads)
    left, right = torch.ones(_ROWS, _WIDTH), torch.ones(_WIDTH, 4 * _WIDTH)
    best = float("inf")
    for attempt in range(4):
        start_s = time.perf_counter()
        left @ right
        if attempt:  # the first one warms up
            best = min(best, time.perf_counter() - start_s)
    return best
