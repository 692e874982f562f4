"""Many adapters on one load of their base: real LoRA adapters of a tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.cli.manyvalued import spread
from harness.errors import BadCheckpoint, BadPlan
from harness.evaluate import evaluate
from harness.plan import EvalPlan
from harness.planfile import from_options
from harness.protocols import SilentProgress
from harness.store import Store
from tests.cli.test_commands import harness
from tests.test_evaluate import plan_for

TASKS = {"suites": [], "tasks": ["sums", "sum_choices"]}


class Listener(SilentProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture(scope="module")
def adapters(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of three LoRA adapters that change answers, and a file beside them."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("sweep") / "ckpts"
    for number, name in enumerate(("one", "two", "three")):
        model = AutoModelForCausalLM.from_pretrained(tiny_llama)
        torch.manual_seed(number)
        config = LoraConfig(r=4 + number, lora_alpha=32, target_modules=["q_proj", "up_proj"])
        tuned = get_peft_model(model, config)
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.3)
        tuned.save_pretrained(folder / name)
    (folder / "plan.yaml").write_text("name: sweep\n")
    return folder


def answers(runs: Path, run) -> list[tuple]:
    return [
        (s.task, s.sample_id, s.prompt, s.outputs, s.finish_reasons, s.scores)
        for s in Store(runs).samples(run)
    ]


def test_each_adapters_run_is_that_of_a_run_of_its_own(plugin, tiny_llama, adapters, tmp_path):
    listener = Listener()
    together = evaluate(plan_for(tiny_llama, tmp_path / "all", adapters=[f"{adapters}/*"], **TASKS), listener)
    assert [run.checkpoint.name for run in together] == ["llama", "llama+one", "llama+three", "llama+two"]
    assert [line for line in listener.said if line.startswith("loading")] == [f"loading {tiny_llama}"]
    specs = [str(tiny_llama), *(f"{tiny_llama}+{adapters / name}" for name in ("one", "three", "two"))]
    texts = set()
    for spec, shared in zip(specs, together, strict=True):
        (own,) = evaluate(plan_for(Path(spec), tmp_path / "own", **TASKS))
        assert own.run_id == shared.run_id
        assert own.metrics == shared.metrics
        assert answers(tmp_path / "own", own) == answers(tmp_path / "all", shared)
        texts.add(str([s.outputs for s in Store(tmp_path / "own").samples(own)]))
    assert len(texts) == 4, "every adapter answers otherwise"
    again = Listener()
    evaluate(plan_for(Path(specs[2]), tmp_path / "all", **TASKS), again)
    assert again.said == [f"{together[2].run_id} is done already"], "runs are shared"


def test_data_are_checked_and_run_on_one_reading(plugin, tiny_llama, tmp_path, monkeypatch):
    from harness_sums.tasks import Sums

    made = []
    items = Sums.items
    monkeypatch.setattr(Sums, "items", lambda self: made.append(1) or items(self))
    evaluate(plan_for(tiny_llama, tmp_path, suites=["sums"]))
    assert len(made) == 1


def test_an_adapter_of_another_base_stops_everything_before_anything_runs(
    plugin, tiny_llama, adapters, tmp_path
):
    mixed = Path(shutil.copytree(adapters, tmp_path / "mixed"))
    other = Path(shutil.copytree(tiny_llama, tmp_path / "other"))
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (other / "model.safetensors").write_bytes(data)
    config = json.loads((mixed / "two" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(other)
    (mixed / "two" / "adapter_config.json").write_text(json.dumps(config))
    listener = Listener()
    with pytest.raises(BadCheckpoint, match=r"two was trained on another base"):
        evaluate(plan_for(tiny_llama, tmp_path / "runs", adapters=[f"{mixed}/*"], **TASKS), listener)
    assert listener.said == []
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        (
            "eval base --adapters a b c --limit 2",
            "eval base --adapters a --adapters b --adapters c --limit 2",
        ),
        ("eval --adapters=a b -s x base", "eval --adapters=a --adapters b -s x base"),
        ("eval --adapters a --adapters b base", "eval --adapters a --adapters b --adapters base"),
        ("eval base --adapters a --json", "eval base --adapters a --json"),
        ("--debug eval --adapters a b", "--debug eval --adapters a --adapters b"),
        ("train --adapters a b", "train --adapters a b"),
        ("", ""),
    ],
)
def test_what_the_shell_made_of_a_glob_is_gathered(typed: str, wanted: str):
    assert spread(typed.split()) == wanted.split()


def test_the_glob_is_expanded_by_the_shell_or_here(plugin, tiny_llama, adapters, tmp_path):
    def run(*arguments):
        return harness(
            "eval", *arguments, "--tasks", "sums", "--limit", "2", "--dry-run", "--json", cwd=tmp_path
        )

    expanded = sorted(map(str, adapters.iterdir()))
    ways = [
        (tiny_llama, "--adapters", f"{adapters}/*"),
        (tiny_llama, "--adapters", *expanded),
        ("--adapters", *expanded, tiny_llama),
        ("--adapters", f"{adapters}/*", tiny_llama),
    ]
    for way in ways:
        done = run(*way)
        assert done.returncode == 0, done.stderr
        found = [row["checkpoint"] for row in json.loads(done.stdout)["tasks"]]
        assert found == ["llama", "llama+one", "llama+three", "llama+two"]
    (adapters.parent / "notes").mkdir(exist_ok=True)
    for arguments, problem in (
        ((tiny_llama, "--adapters", adapters / "one", adapters.parent / "notes"), "notes' is no adapter"),
        (("--adapters", f"{adapters}/*"), "on which base?"),
        ((tiny_llama, tiny_llama, "--adapters", f"{adapters}/*"), "adapters go on one base"),
        ((adapters / "one", "--adapters", f"{adapters}/*"), "is an adapter itself"),
    ):
        done = run(*arguments)
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
        assert problem in done.stderr


def test_adapters_of_several_bases_are_refused_in_a_plan():
    with pytest.raises(BadPlan, match="adapters go on one base"):
        from_options(EvalPlan, {"checkpoints": ["a", "b"], "adapters": ["c"], "suites": ["x"]})
