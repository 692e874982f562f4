"""One side of a row in a process of its own: loads once, then does its work whenever the driver says so.

    python benchmarks/engine/worker.py JOB.json      (started by run.py)

Commands come line by line on stdin (warm, run, exit); one JSON object per command goes to the original stdout.
What libraries print goes to stderr, which the driver keeps in a log.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

SIDES = {
    "harness": "harness_side:HarnessTasks",
    "harness_inspect": "inspect_side:OverHarness",
    "harness_scoring": "harness_side:Scoring",
    "harness_threads": "harness_side:Threads",
    "harness_command": "adapters_side:HarnessCommand",
    "harness_adapters": "adapters_side:HarnessAdapters",
    "lm_eval_hf": "lm_eval_side:OnTransformers",
    "lm_eval_vllm": "lm_eval_side:OnVllm",
    "lm_eval_commands": "adapters_side:LmEvalCommands",
    "lm_eval_adapters": "adapters_side:LmEvalAdapters",
    "inspect_hf": "inspect_side:OverTransformers",
    "raw_vllm": "vllm_side:RawGenerate",
    "matmul": "peak_side:Matmul",
}


class Side(Protocol):
    """What a side module's class offers; loading happens in __init__."""

    def warm(self) -> None:
        """Everything that only the first call pays, on other data than the row's."""
        ...

    def run(self) -> dict[str, Any]:
        """The row's work once: {seconds, answers, metrics, facts}."""
        ...


def peak_rss_bytes() -> int | None:
    """Highest resident set of this program. Unlike getrusage's, it is not inherited through exec."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def peak_device_bytes() -> int | None:
    """Highest allocation on the GPU, where one is in use."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_initialized() else None


def load_side(job: dict[str, Any]) -> Side:
    if job["threads"] and "torch" not in sys.modules:
        import torch

        torch.set_num_threads(job["threads"])
    module, _, name = SIDES[job["side"]].partition(":")
    side: Side = getattr(import_module(module), name)(job)
    return side


def serve(job: dict[str, Any], answers: Any) -> None:
    start = time.perf_counter()
    side = load_side(job)
    tell(answers, {"loaded_s": time.perf_counter() - start})
    for line in sys.stdin:
        command = line.strip()
        if command == "exit":
            return
        if command == "warm":
            side.warm()
            tell(answers, {"warm": True})
        elif command == "run":
            before_s = time.process_time()
            found = side.run()
            # of this process alone: engines that compute in another one are not in it
            found["processor_s"] = time.process_time() - before_s
            peaks = {"peak_rss_bytes": peak_rss_bytes(), "peak_device_bytes": peak_device_bytes()}
            tell(answers, {**found, **peaks})


def tell(answers: Any, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(job, answers)
    answers.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # engines leave threads and children behind that would be waited for


if __name__ == "__main__":
    main()
