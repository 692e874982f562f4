"""Adapters that rewrite weights of the base: nobody else's scores move, and theirs are those of a load of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.checkpoints import resolve
from harness.engines.transformers import TransformersEngine
from harness.errors import BadCheckpoint
from harness.records import Checkpoint, LoglikelihoodRequest
from tests.engines.test_tree import GPT, random_model

REQUEST = LoglikelihoodRequest(tuple(range(3, 20)), (40, 41, 42))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(
        tmp_path_factory.mktemp("gpt2") / "base", "gpt2", {**GPT, "n_embd": 64, "n_positions": 64}
    )


def adapter_of(base: Path, folder: Path, **settings: Any) -> Path:
    """A LoRA whose weights are far from zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base)
    peft = get_peft_model(
        model, LoraConfig(r=4, target_modules=["c_attn"], task_type="CAUSAL_LM", **settings)
    )
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if any(part in name for part in ("lora_", "bias", "modules_to_save")):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    peft.save_pretrained(folder)
    return folder


def score(engine: TransformersEngine) -> float:
    return engine.submit([REQUEST])[0].result(60).loglikelihood


def alone(checkpoint: Checkpoint) -> float:
    engine = TransformersEngine.load(checkpoint, {"threads": 1})
    try:
        return score(engine)
    finally:
        engine.close()


def test_scores_on_one_load_are_those_of_loads_of_their_own(base: Path, tmp_path: Path) -> None:
    folders = [
        adapter_of(base, tmp_path / "plain"),
        adapter_of(base, tmp_path / "bias", bias="all"),
        adapter_of(base, tmp_path / "pissa", init_lora_weights="pissa"),
        adapter_of(base, tmp_path / "head", modules_to_save=["lm_head"]),
    ]
    base_itself, *adapters = [resolve(str(path)) for path in (base, *folders)]
    expected = {one.spec: alone(one) for one in (base_itself, *adapters)}
    assert len({round(value, 3) for value in expected.values()}) == 5
    engine = TransformersEngine.load(base_itself, {"threads": 1})
    try:
        for one in (*adapters, base_itself, adapters[0], adapters[1], adapters[1], adapters[0], base_itself):
            engine.activate(one)
            assert score(engine) == pytest.approx(expected[one.spec], abs=1e-4), one.spec
    finally:
        engine.close()


def test_an_adapter_that_cannot_compute_is_refused_and_the_base_stays(base: Path, tmp_path: Path) -> None:
    """OLoRA of a transposed layer loads, and fails at the first product."""
    plain = resolve(str(adapter_of(base, tmp_path / "plain")))
    broken = adapter_of(base, tmp_path / "olora")
    config = broken / "adapter_config.json"
    config.write_text(config.read_text().replace('"init_lora_weights": true', '"init_lora_weights": "olora"'))
    checkpoint = resolve(str(base))
    expected = {one.spec: alone(one) for one in (checkpoint, plain)}
    engine = TransformersEngine.load(checkpoint, {"threads": 1})
    try:
        with pytest.raises(BadCheckpoint, match="olora"):
            engine.activate(resolve(str(broken)))
        for one in (plain, checkpoint):
            engine.activate(one)
            assert score(engine) == pytest.approx(expected[one.spec], abs=1e-4)
    finally:
        engine.close()
