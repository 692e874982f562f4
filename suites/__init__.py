"""The suites that come with the harness: one YAML file each, and the adapters and tasks that they name."""

from pathlib import Path

_FOLDER = Path(__file__).parent

reasoning = _FOLDER / "reasoning.yaml"
instruction = _FOLDER / "instruction.yaml"
hallucination = _FOLDER / "hallucination.yaml"
toxicity = _FOLDER / "toxicity.yaml"
unlearning = _FOLDER / "unlearning.yaml"
refusal = _FOLDER / "refusal.yaml"
safety = _FOLDER / "safety.yaml"
latency = _FOLDER / "latency.yaml"
