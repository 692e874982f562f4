"""What the transformers engine can be told; read before anything heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.errors import BadInput
from harness.records import Json

OPTIONS = ("batch_tokens", "device", "dtype", "threads")
DEVICE = re.compile(r"auto|(cpu|cuda|mps)(:\d+)?")


def check_options(given: Mapping[str, Json]) -> None:
    """Raises: BadInput: an unknown option, or a device that cannot be."""
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        raise BadInput(f"engine transformers has no option {unknown[0]!r}; known: {', '.join(OPTIONS)}")
    device = str(given.get("device") or "auto")
    if not DEVICE.fullmatch(device):
        raise BadInput(f"no device {device!r}; use auto, cpu, cuda or cuda:N")
