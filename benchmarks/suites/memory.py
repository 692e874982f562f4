"""Peak memory of a whole run by its number of samples: is it flat?

    python benchmarks/suites/memory.py [--sizes 1000,10000,100000] [--prompt-chars 2000]

The run is evaluate() as the command calls it: a native task with a generated data set, journal, response cache,
metrics, table. Only the engine is a stand-in that answers at once with 400 characters, so that 100,000 samples take
minutes and what is weighed is the harness. Each size runs in a process of its own. The data set itself is in memory
as rows (ids and numbers here); prompts, answers and scores are what the samples hold.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from harness import evaluate as evaluation
from harness.binding import Binder
from harness.engines.lazy import SharedEngine
from harness.plan import EnergySpec, EvalPlan
from harness.protocols import EngineStats, SilentProgress
from harness.records import Checkpoint, Completion, Output
from harness.suitecheck import PlainTokenizer

TASK = """
from harness.records import Sampling, Score
from harness.tasks import Item, MetricSpec, RequestTask

class Many(RequestTask):
    metrics = {"accuracy": MetricSpec(), "length": MetricSpec(unit="chars")}
    defaults = Sampling(max_tokens=100)
    uses_chat = False

    def items(self):
        return [Item(str(i), {"i": i}, target="1") for i in range(SIZE)]

    def requests(self, item):
        return self.ask(f"Question {item.doc['i']}: " + "words " * (CHARS // 6))

    def score(self, item, completions):
        text = completions[0].outputs[0].text
        return {"accuracy": Score(float(item.doc["i"] % 2)), "length": Score(float(len(text)))}
"""


class EchoEngine:
    """Answers at once."""

    name = "echo"
    max_length = 1_000_000

    def __init__(self) -> None:
        self.tokenizer = PlainTokenizer()
        self._asked = 0

    def submit(self, requests: Sequence[Any]) -> list[Future[Completion]]:
        self._asked += len(requests)
        futures = [Future[Completion]() for _ in requests]
        for number, future in enumerate(futures):
            text = f"{number} " + "answer " * 57
            output = Output(text, (1, 2, 3), "stop")
            future.set_result(Completion(outputs=(output,), prompt_tokens=1, output_tokens=3))
        return futures

    def stats(self) -> EngineStats:
        return EngineStats(0.0, self._asked, 0, 0, 0, None)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}

    def close(self) -> None: ...


class EchoBinder(Binder):
    """Binds everything as it is, but for the engine."""

    def shared_engine(self, checkpoint: Checkpoint | None = None) -> SharedEngine:
        return SharedEngine("echo", lambda checkpoint: EchoEngine(), self._open_answers)  # type: ignore[arg-type,return-value]


def run(size: int, prompt_chars: int, checkpoint: Path) -> None:
    """One run; prints seconds and KiB."""
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder, "many.py")
        task.write_text(f"SIZE, CHARS = {size}, {prompt_chars}\n{TASK}", encoding="utf-8")
        plan = EvalPlan(
            checkpoints=[str(checkpoint)], tasks=[f"{task}:Many"], runs=Path(folder, "runs"),
            energy=EnergySpec(idle_s=0),
        )  # fmt: skip
        start = time.perf_counter()
        (record,) = evaluation.Evaluation(EchoBinder(plan, SilentProgress()), None).run()
        seconds = time.perf_counter() - start
        metric = record.metrics["Many"]["accuracy"]
        if (record.n_samples, record.n_failed, metric.n, metric.value) != (size, 0, size, 0.5):
            raise SystemExit(f"the run is not whole: {record.n_samples} samples, {metric}")
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--prompt-chars", type=int, default=2000)
    parser.add_argument("--checkpoint", type=Path, default=None, help="folder of any model")
    parser.add_argument("--alone", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    checkpoint = options.checkpoint or Path("bundled:starter")
    if options.alone is not None:
        run(options.alone, options.prompt_chars, checkpoint)
        return
    print("| samples | peak memory, MB | wall time, s |\n|---|---|---|")
    for size in map(int, options.sizes.split(",")):
        command = [
            sys.executable,
            __file__,
            "--alone",
            str(size),
            "--prompt-chars",
            str(options.prompt_chars),
        ]
        command += ["--checkpoint", str(checkpoint)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        seconds, kib = map(float, done.stdout.split())
        print(f"| {size:,} | {kib * 1024 / 1e6:.0f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
