"""The machine's measured peak: large square matrix products at the threads and dtype of the row."""

from __future__ import annotations

import time
from typing import Any

WIDTH = {"cpu": 4096, "cuda": 8192}
PRODUCTS = 6


class Matmul:
    def __init__(self, job: dict[str, Any]) -> None:
        import torch

        self.torch = torch
        torch.set_num_threads(job["threads"])
        self.device = job["device"]
        self.width = WIDTH[self.device]
        kind = {"dtype": getattr(torch, job["dtype"]), "device": self.device}
        self.left, self.right = (torch.randn(self.width, self.width, **kind) for _ in range(2))

    def warm(self) -> None:
        self._product_s()

    def _product_s(self) -> float:
        start = time.perf_counter()
        with self.torch.inference_mode():
            self.left @ self.right
        if self.device == "cuda":
            self.torch.cuda.synchronize()
        return time.perf_counter() - start

    def run(self) -> dict[str, Any]:
        """The best product of a few: a peak is what the machine can do."""
        seconds = min(self._product_s() for _ in range(PRODUCTS))
        flops = 2 * self.width**3
        return {
            "seconds": seconds,
            "flops_per_s": flops / seconds,
            "metrics": {},
            "facts": {"width": self.width},
        }
