"""Adapters named by folder or glob, and what proves that one belongs to another base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.adapters import adapter_specs, misfit_of
from harness.checkpoints import resolve
from harness.errors import BadCheckpoint, BadInput
from tests.test_checkpoints import write_adapter


@pytest.fixture
def base(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "base"))


class TestPatterns:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ("a", "b", "c"):
            write_adapter(tmp_path / "ckpts" / name, "elsewhere")
        (tmp_path / "ckpts" / "plan.yaml").write_text("name: x\n")
        return tmp_path / "ckpts"

    def test_a_glob_and_what_the_shell_makes_of_it_are_the_same(self, folder: Path) -> None:
        wanted = [f"base+{folder / name}" for name in "abc"]
        assert adapter_specs("base", [f"{folder}/*"]) == wanted
        assert adapter_specs("base", sorted(map(str, folder.iterdir()))) == wanted
        assert adapter_specs("base", [f"{folder}/a", f"{folder}/*"]) == wanted, "named twice, scored once"

    def test_folders_that_are_no_adapters_are_named(self, folder: Path) -> None:
        (folder / "notes").mkdir()
        (folder / "zero").mkdir()
        with pytest.raises(BadCheckpoint, match=r"notes', '.*zero' are no adapters"):
            adapter_specs("base", [f"{folder}/*"])

    @pytest.mark.parametrize(
        ("pattern", "problem"), [("none/*", "matches nothing"), ("./none", "no folder './none'")]
    )
    def test_nothing_there(self, pattern: str, problem: str) -> None:
        with pytest.raises((BadInput, BadCheckpoint), match=problem):
            adapter_specs("base", [pattern])

    def test_a_file_is_no_adapter(self, folder: Path) -> None:
        with pytest.raises(BadInput, match="names files only"):
            adapter_specs("base", [f"{folder}/plan.yaml"])


class TestAnotherBase:
    def test_the_base_it_names_is_here_with_other_weights(self, base: Path, tmp_path: Path) -> None:
        other = Path(shutil.copytree(base, tmp_path / "other"))
        data = bytearray((other / "model.safetensors").read_bytes())
        data[-1] ^= 1
        (other / "model.safetensors").write_bytes(data)
        adapter = write_adapter(tmp_path / "lora", str(other))
        with pytest.raises(BadCheckpoint, match=r"trained on another base: it names .*other.*give the base"):
            resolve(f"{base}+{adapter}")
        assert resolve(str(adapter)).base == str(other)

    def test_a_copy_of_its_base_is_its_base(self, base: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(base, tmp_path / "copy"))
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, "transformers_version": "5.0.0"}))
        adapter = write_adapter(tmp_path / "lora", str(copy))
        assert resolve(f"{base}+{adapter}").base == str(base)

    def test_its_matrices_do_not_fit(self, tmp_path: Path) -> None:
        from tests.conftest import build_llama

        narrow = build_llama(tmp_path / "narrow", hidden=32)
        adapter = write_adapter(tmp_path / "lora", "elsewhere")
        with pytest.raises(BadCheckpoint, match=r"q_proj takes 64 and gives 64 numbers .* is 32 x 32 there"):
            resolve(f"{narrow}+{adapter}")


A, B = "base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"


def lora(module: str, wide: int, out: int) -> dict[str, tuple[int, ...]]:
    return {A.format(module): (4, wide), B.format(module): (out, 4)}


@pytest.mark.parametrize(
    ("adapter", "base", "evidence"),
    [
        (lora("model.layers.0.up", 8, 16), {"model.layers.0.up.weight": (16, 8)}, None),
        (lora("transformer.h.0.attn", 8, 24), {"h.0.attn.weight": (8, 24)}, None),
        (lora("model.layers.0.up", 8, 16), {"model.layers.0.up.weight": (32, 8)}, "is 32 x 8 there"),
        (lora("model.layers.0.up", 8, 16), {"renamed.weight": (16, 8)}, None),
        (lora("lm_head", 8, 16) | lora("model.layers.0.up", 8, 16), {"model.layers.0.up.weight": (16, 8)}, None),
        (
            lora("model.layers.0.up", 8, 16) | lora("model.layers.9.up", 8, 16),
            {"model.layers.0.up.weight": (16, 8)},
            "holds model.layers.9.up",
        ),
        ({"base_model.model.x.lora_A.weight": (4, 8)}, {"x.weight": (2, 2)}, None),
        ({}, {}, None),
    ],
    ids=["fits", "conv1d without its head's name", "other width", "other names", "tied head", "deeper", "half", "none"],
)  # fmt: skip
def test_shapes_that_prove_another_base(adapter, base, evidence) -> None:
    found = misfit_of(adapter, base)
    assert found is None if evidence is None else evidence in found
