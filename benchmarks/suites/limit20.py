"""All suites at --limit 20 on a random Llama of four million parameters: one command, one load, how long?

    python benchmarks/suites/limit20.py --data-dir DATA [--suites reasoning,latency] [--threads 2] [--limit 20]

The command is the user's own; what is printed per suite is what its record says. The goal is under ten minutes on two
cores with the transformers engine. The model's weights are random, so most answers run into their token limit: the
longest that they can take.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import registry
from harness.records import RunRecord
from harness.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "overhead"))
from gsm8k import build_checkpoint  # the same model as that benchmark's

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
PHASES = ("data", "inference", "grading")


def rows(runs: list[RunRecord]) -> list[str]:
    """A line per suite, slowest first."""
    lines = [
        "| suite | tasks | samples | failed | data, s | inference, s | grading, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in sorted(runs, key=lambda run: -sum(run.phases_s.values())):
        cells = [f"{run.phases_s.get(phase, 0.0):.1f}" for phase in PHASES]
        counts = [str(len(run.metrics)), str(run.n_samples), str(run.n_failed)]
        lines.append(f"| {run.suite} | {' | '.join(counts + cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--suites", default=",".join(registry.names("suite")))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, runs = Path(folder, "llama-4m"), Path(folder, "runs")
        n_parameters = build_checkpoint(checkpoint, options.data_dir)
        (checkpoint / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
        command = [
            sys.executable, "-m", "harness", "eval", "--suite", options.suites, "--limit", str(options.limit),
            "--threads", str(options.threads), "--data-dir", str(options.data_dir), "--runs", str(runs),
            str(checkpoint),
        ]  # fmt: skip
        start = time.perf_counter()
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        wall = time.perf_counter() - start
        found = Store(runs).runs() if runs.is_dir() else []
    print("\n".join(rows(found)))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    print(
        f"\n{n_parameters / 1e6:.2f} M parameters, --limit {options.limit}, {options.threads} threads: {wall:.0f} s in "
        f"all, exit code {done.returncode}, peak memory {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
