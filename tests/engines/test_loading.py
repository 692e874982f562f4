"""What the engine loads is what the fingerprint was made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from harness.checkpoints import resolve, tokenizer_folder
from harness.engines.loading import _limits_above, left_out, load_model, load_tokenizer, pick_device
from harness.errors import BadCheckpoint, BadInput
from tests.test_checkpoints import write_adapter


@pytest.mark.parametrize(
    ("brought", "whose"),
    [([], "base"), (["tokenizer_config.json"], "base"), (["tokenizer.json"], "adapter")],
)
def test_tokenizer_is_the_one_that_was_hashed(
    tiny_llama: Path, tmp_path: Path, brought: list[str], whose: str
) -> None:
    """A vocabulary makes a tokenizer; its settings alone do not."""
    adapter = write_adapter(tmp_path / "adapter", str(tiny_llama))
    for name in brought:
        shutil.copy(tiny_llama / name, adapter / name)
    if "tokenizer.json" in brought:
        vocabulary = json.loads((adapter / "tokenizer.json").read_text())
        vocabulary["model"]["vocab"]["ADDED"] = len(vocabulary["model"]["vocab"]) + 50
        (adapter / "tokenizer.json").write_text(json.dumps(vocabulary))
    checkpoint = resolve(str(adapter))
    folder = {"base": str(tiny_llama), "adapter": str(adapter)}[whose]
    tokenizer = load_tokenizer(checkpoint)
    assert tokenizer_folder(checkpoint) == folder
    assert tokenizer.name_or_path == folder
    assert ("ADDED" in tokenizer.get_vocab()) == (whose == "adapter")


@pytest.mark.parametrize(
    ("name", "value"), [("num_hidden_layers", "two"), ("num_attention_heads", 0), ("hidden_size", 33)]
)
def test_a_damaged_config_is_refused_in_a_line(
    tiny_llama: Path, tmp_path: Path, name: str, value: object
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, name: value}))
    with pytest.raises(BadCheckpoint) as caught:
        load_model(resolve(str(folder)), torch.device("cpu"), "auto")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_weights_without_a_place_are_named(
    tiny_llama: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A config with a layer less: the last layer's weights would be left out in silence."""
    folder = tmp_path / "shorter"
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text())
    layers = config["num_hidden_layers"] - 1
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}))
    model = load_model(resolve(str(folder)), torch.device("cpu"), "auto")
    assert left_out(model)
    assert all(name.startswith(f"model.layers.{layers}.") for name in left_out(model))
    assert "UNEXPECTED" not in "".join(capfd.readouterr())
    assert left_out(load_model(resolve(str(tiny_llama)), torch.device("cpu"), "auto")) == []


@pytest.mark.parametrize("name", ["mps", "cuda:99", "tpu"])
def test_a_device_that_is_not_here_is_refused(name: str) -> None:
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(BadInput, match=name):
        pick_device(name)


def test_memory_limits_of_all_groups_above_count(tmp_path: Path) -> None:
    """Slurm limits the job, not the task's own group."""
    task = tmp_path / "slurm" / "job_7" / "step_0" / "task_0"
    task.mkdir(parents=True)
    (task / "memory.max").write_text("max\n")
    (tmp_path / "slurm" / "job_7" / "memory.max").write_text("4000\n")
    (tmp_path / "slurm" / "memory.max").write_text("9000\n")
    assert sorted(_limits_above(tmp_path, "/slurm/job_7/step_0/task_0", "memory.max")) == [4000, 9000]
    assert _limits_above(tmp_path, "/elsewhere", "memory.max") == []
