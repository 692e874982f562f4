"""The `vllm` profile of the latency task beside `vllm bench serve`, on one server and the same prompts, in turns.

    python benchmarks/latency/vllm_bench.py --data-dir DATA --repeats 5              # a random Llama of 4 M parameters
    python benchmarks/latency/vllm_bench.py --model CKPT --concurrency 8 --requests 100
    python benchmarks/latency/vllm_bench.py --model CKPT --rate 4 --requests 100     # an open loop

Both clients run in this process, one after the other, each repeat in the other order; the server is a process of its
own without a prefix cache, since the second asker would gain by the first. Printed per figure: both medians over the
repeats, the spread (largest less smallest) of each side by itself, and whether the medians differ by less than what
vLLM's client differs from itself. Exit code 1 where a median or a mean does not; the rest is shown.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

WORDS = (
    "alpha",
    "beta",
    "north",
    "south",
    "river",
    "stone",
    "cloud",
    "paper",
    "seven",
    "quick",
    "red",
    "green",
)
SERIES = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2el": "e2e"}
"""vLLM's name -> ours."""
STATISTICS = {"mean": "mean", "median": "p50", "std": "std", "p99": "p99"}
RATES = {
    "request_throughput": "vllm_requests_per_s",
    "output_throughput": "vllm_output_tokens_per_s",
    "total_token_throughput": "vllm_total_tokens_per_s",
}
JUDGED = ("mean", "median", "throughput")
"""Figures that decide; deviations and 99th percentiles of a hundred requests are noise by themselves."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="checkpoint folder; left out: a random Llama of 4 M parameters")
    parser.add_argument("--data-dir", help="mirror whose text the random model's tokenizer is trained on")
    parser.add_argument("--url", help="server that runs already, http://host:port; --model is its tokenizer")
    parser.add_argument("--served-model-name", default="m", help="its name there")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--rate", type=float, help="requests per second: an open loop instead")
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=8)
    parser.add_argument("--words", type=int, default=100, help="words of a prompt")
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1, help="of the server")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "latency-parity"))
    parser.add_argument("--json", help="write every figure of every repeat there")
    return parser.parse_args(argv)


# The server


@contextlib.contextmanager
def server(args: argparse.Namespace, model: str, work: Path) -> Iterator[str]:
    """vLLM's server on the model; gives its root."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model,
        "--served-model-name", args.served_model_name, "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "float32", "--max-model-len", "1024",
        "--enforce-eager", "--no-enable-prefix-caching",
    ]  # fmt: skip
    environment = {
        **os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": str(args.threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }  # fmt: skip
    log = work / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=work, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        root = f"http://127.0.0.1:{port}"
        wait_for(root, process, log)
        yield root
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(root: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import httpx

    deadline_s = time.monotonic() + 300
    while True:
        if process.poll() is not None or time.monotonic() > deadline_s:
            sys.exit(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")
        try:
            if httpx.get(f"{root}/health", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)


def prompts(args: argparse.Namespace, work: Path) -> tuple[Path, Path]:
    """Files of the same measured prompts: ours has those of the warm-up before them."""
    draw = random.Random(0)
    lines = [
        json.dumps({"prompt": f"{number} " + " ".join(draw.choices(WORDS, k=args.words))}) + "\n"
        for number in range(args.warmup + args.requests)
    ]
    ours, theirs = work / "ours.jsonl", work / "theirs.jsonl"
    ours.write_text("".join(lines))
    theirs.write_text("".join(lines[args.warmup :]))
    return ours, theirs


# The two clients


def bench_serve(args: argparse.Namespace, root: str, model: str, file: Path) -> dict[str, float]:
    """`vllm bench serve`, through the functions that the command calls; in ms and per second."""
    from vllm.benchmarks.serve import add_cli_args, main
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    load = ["--max-concurrency", args.concurrency] if args.rate is None else ["--request-rate", args.rate]
    words = [
        "--backend", "openai", "--base-url", root, "--endpoint", "/v1/completions", "--model", model,
        "--served-model-name", args.served_model_name, "--tokenizer", model,
        "--dataset-name", "custom", "--dataset-path", file,
        "--custom-output-len", args.output_tokens, "--skip-chat-template", "--disable-shuffle", "--num-prompts",
        args.requests, "--num-warmups", args.warmup, "--ignore-eos", "--temperature", 0, "--disable-tqdm",
        "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "99", *load,
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        found = main(parser.parse_args([str(word) for word in words]))
    if found["failed"] or found["completed"] != args.requests:
        sys.exit(f"vllm bench serve: {found['failed']} requests failed")
    names = [f"{statistic}_{name}_ms" for name in SERIES for statistic in STATISTICS]
    return {
        name: float(found[name]) for name in [*names, *RATES, "total_output_tokens", "total_input_tokens"]
    }


def our_task(args: argparse.Namespace, root: str, file: Path) -> Any:
    """The latency task, bound to the server."""
    from harness import registry
    from harness.datasets import Datasets
    from harness.endpoints import checkpoint_of
    from harness.engines.endpoint import EndpointEngine
    from harness.protocols import TaskContext, TaskRef
    from harness.strategies.direct import Direct

    spec = f"{root}/v1#{args.served_model_name}"
    engine = EndpointEngine.load(checkpoint_of(spec), {})
    load = {"concurrencies": args.concurrency} if args.rate is None else {"rates": args.rate}
    options = {
        "prompts": str(file), "requests": args.requests, "warmup": args.warmup, "output_tokens": args.output_tokens,
        "profiles": ["vllm"], **load,
    }  # fmt: skip
    context = TaskContext(engine, Direct(), Datasets(None), checkpoint_of(spec))
    return registry.load("task", "latency")(TaskRef("", "latency", options, "latency"), context)


def ours(task: Any) -> dict[str, float]:
    """One run of the task, under vLLM's names."""
    samples: list[Any] = []
    task.run(list(task.sample_ids), samples.append)
    failed = [sample.error for sample in samples if sample.error]
    if failed:
        sys.exit(f"harness: {len(failed)} requests failed: {failed[0]}")
    metrics = {name.partition("@")[0]: metric.value for name, metric in task.aggregate(samples).items()}
    found = {
        f"{statistic}_{name}_ms": metrics[f"vllm_{mine}_{short}_ms"]
        for name, mine in SERIES.items()
        for statistic, short in STATISTICS.items()
    }
    found |= {name: metrics[mine] for name, mine in RATES.items()}
    measured = [sample for sample in samples if not sample.metadata["warmup"]]
    found["total_output_tokens"] = float(sum(sample.output_tokens for sample in measured))
    found["total_input_tokens"] = float(sum(sample.prompt_tokens for sample in measured))
    return found


# The comparison


def report(rows: Mapping[str, list[dict[str, float]]]) -> bool:
    """Print every figure of both sides and a verdict; whether those that decide are equal within noise."""
    print(
        f"{'figure':<24}{'vllm bench':>12}{'spread':>10}{'harness':>12}{'spread':>10}{'difference':>12}  within noise"
    )
    beyond = []
    for name in rows["vllm"][0]:
        theirs, mine = ([row[name] for row in rows[side]] for side in ("vllm", "harness"))
        difference = statistics.median(mine) - statistics.median(theirs)
        noise = max(theirs) - min(theirs)
        same = abs(difference) <= noise
        counts = any(word in name for word in JUDGED) or name.startswith("total_")
        beyond += [name] if counts and not same else []
        numbers = (
            statistics.median(theirs),
            noise,
            statistics.median(mine),
            max(mine) - min(mine),
            difference,
        )
        verdict = ("yes" if same else "NO") + ("" if counts else " (shown only)")
        print(f"{name:<22}" + "".join(f"{number:>12.3f}" for number in numbers) + f"  {verdict}")
    print("verdict: " + (f"beyond noise: {', '.join(beyond)}" if beyond else "equal within noise"))
    return not beyond


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    work = Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    model = args.model or random_model(work, args.data_dir)
    own_file, their_file = prompts(args, work)
    rows: dict[str, list[dict[str, float]]] = {"vllm": [], "harness": []}
    with contextlib.nullcontext(args.url) if args.url else server(args, model, work) as root:
        task = our_task(args, root, own_file)
        sides = {
            "vllm": lambda: bench_serve(args, root, model, their_file),
            "harness": lambda: ours(task),
        }
        for run in sides.values():  # the first of all is thrown away: the server compiles on its first calls
            run()
        for repeat in range(args.repeats):
            for side in sorted(sides, reverse=bool(repeat % 2)):
                rows[side].append(sides[side]())
                print(f"repeat {repeat + 1} {side}: {json.dumps(rows[side][-1])}", file=sys.stderr)
        task.engine.close()
    if args.json:
        Path(args.json).write_text(json.dumps({"arguments": vars(args), **rows}, indent=1))
    load = f"{args.concurrency} in flight" if args.rate is None else f"{args.rate:g} requests/s"
    print(
        f"{args.repeats} repeats in turns, {args.requests} requests each, {load}, {args.output_tokens} tokens"
    )
    return 0 if report(rows) else 1


def random_model(work: Path, data_dir: str | None) -> str:
    if data_dir is None:
        sys.exit("give --model FOLDER, or --data-dir DATA to make a random one")
    sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
    from models import model_folder

    return str(model_folder(work, "4m", Path(data_dir)))


if __name__ == "__main__":
    sys.exit(main())
