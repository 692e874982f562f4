"""lm-eval's own HF backend and evaluator beside ours: same model, same tokenizer, same documents, fp32 on CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from harness.checkpoints import resolve
from harness.datasets import Datasets
from harness.protocols import TaskContext
from harness.records import Metric, Sample
from harness.strategies.direct import Direct
from harness.suitefile import parse_task
from suites.from_lm_eval.entry import load
from suites.from_lm_eval.scoring import DISAGREE

pytestmark = [pytest.mark.mirror, pytest.mark.slow]

LIMIT = 6
MAX_TOKENS = 48
TOLERANCE_NATS = 1e-3
# Task -> YAML file in lm-eval, what the reference run must be told besides its data set.
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "arc_challenge": ("arc/arc_challenge.yaml", {"num_fewshot": 2}),
    "truthfulqa_mc1": ("truthfulqa/truthfulqa_mc1.yaml", {}),
    "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", {}),
    "mmlu_abstract_algebra": ("mmlu/default/mmlu_abstract_algebra.yaml", {"num_fewshot": 5}),
    "hellaswag": ("hellaswag/hellaswag.yaml", {"training_split": None}),  # the mirror has no training split
    "piqa": ("piqa/piqa.yaml", {}),
    "winogrande": ("winogrande/default.yaml", {"num_fewshot": 1}),
    "gsm8k": ("gsm8k/gsm8k.yaml", {}),
    "ifeval": ("ifeval/ifeval.yaml", {}),
    "bbh_cot_fewshot_navigate": ("bbh/cot_fewshot/navigate.yaml", {}),
    "bbh_cot_zeroshot_navigate": ("bbh/cot_zeroshot/navigate.yaml", {}),
    "minerva_math500": ("minerva_math/minerva_math500.yaml", {}),
    "wikitext": ("wikitext/wikitext.yaml", {}),
}
GENERATIVE = {"gsm8k", "ifeval", "bbh_cot_fewshot_navigate", "bbh_cot_zeroshot_navigate", "minerva_math500"}
CHATS = ("gsm8k", "arc_challenge", "winogrande")
AGGREGATE = {"metric": "acc", "weight_by_size": True}
SUBJECTS = ("econometrics", "sociology", "us_foreign_policy")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}[/]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


class Ours(NamedTuple):
    samples: dict[int, Sample]
    metrics: dict[str, Metric]


def train_tokenizer(mirror: Path):
    """A byte-level BPE with a BOS that it adds itself, as Llama's does; trained on questions of GSM8K."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    lines = (mirror / "openai/gsm8k/main/test.jsonl").read_text(encoding="utf-8").splitlines()[:300]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator((json.loads(line)["question"] for line in lines), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=1024,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


@pytest.fixture(scope="module")
def model_folder(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("parity") / "llama"
    tokenizer = train_tokenizer(mirror)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=1024,  # shorter than some prompts: truncation must be the same too
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data_dir(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mirror's folders, and a small stand-in for the documents of the rolling task."""
    root = tmp_path_factory.mktemp("data")
    for owner in mirror.iterdir():
        if owner.is_dir() and owner.name != "EleutherAI":
            (root / owner.name).symlink_to(owner)
    folder = root / "EleutherAI" / "wikitext_document_level"
    rows = [json.loads(line) for line in (mirror / "openai/gsm8k/main/test.jsonl").open(encoding="utf-8")]
    pages = [
        " ".join(row["question"] for row in rows[i * 20 : i * 20 + 20]) for i in range(LIMIT)
    ]  # > 1 window
    config = folder / "wikitext-2-raw-v1"
    config.mkdir(parents=True)
    for split in ("train", "validation", "test"):
        text = "".join(json.dumps({"page": page}) + "\n" for page in pages)
        (config / f"{split}.jsonl").write_text(text, encoding="utf-8")
    files = "\n".join(
        f"  - split: {s}\n    path: wikitext-2-raw-v1/{s}.jsonl" for s in ("train", "validation", "test")
    )
    card = f"---\nconfigs:\n- config_name: wikitext-2-raw-v1\n  data_files:\n{files}\n---\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def reference_lm(model_folder: Path):
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(model_folder), device="cpu", dtype="float32", batch_size=4)


def lm_eval_says(lm, tasks: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """lm_eval.simple_evaluate, without the 10 s in which it reads all its task files."""
    import langdetect
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    # IFEval asks langdetect for languages; unseeded it draws at random, on their side as on ours
    langdetect.DetectorFactory.seed = 0
    manager = TaskManager(include_defaults=False)
    settings = {"limit": LIMIT, "bootstrap_iters": 1000, **options}
    return simple_evaluate(lm, tasks=tasks, task_manager=manager, **settings)


@pytest.fixture(scope="module")
def reference(reference_lm, data_dir: Path) -> dict[str, Any]:
    """What lm-eval says with its own model class."""
    return lm_eval_says(reference_lm, [reference_config(name, data_dir) for name in TASKS])


def reference_config(name: str, data_dir: Path) -> dict[str, Any]:
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    file, changes = TASKS.get(name) or (f"mmlu/default/{name}.yaml", {})
    config = load_yaml(Path(lm_eval.tasks.__file__).parent / file, resolve_func=True)
    config = {**config, **changes, "dataset_path": str(data_dir / config["dataset_path"])}
    # Without a cache of its own, datasets may serve another folder of the same name.
    config["dataset_kwargs"] = {"cache_dir": str(data_dir / "cache")}
    if name in GENERATIVE:
        config["generation_kwargs"] = {**config["generation_kwargs"], "max_gen_toks": MAX_TOKENS}
    return {key: value for key, value in config.items() if key != "tag"}


@pytest.fixture(scope="module")
def engine(model_folder: Path):
    from harness.engines.transformers import TransformersEngine

    engine = TransformersEngine.load(resolve(str(model_folder)), {"threads": 1, "dtype": "float32"})
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def ours(engine, data_dir: Path) -> dict[str, Ours]:
    return {name: run_ours(name, engine, data_dir) for name in TASKS}


def run_ours(name: str, engine, data_dir: Path, chat: str = "off") -> Ours:
    shots = TASKS[name][1].get("num_fewshot")
    options = {"num_fewshot": shots} if shots else {}
    if name in GENERATIVE:
        options["max_tokens"] = MAX_TOKENS
    context = TaskContext(engine=engine, strategy=Direct(), data=Datasets(data_dir), limit=LIMIT, chat=chat)
    task = load(parse_task(f"lm_eval:{name}", options=options), context)
    samples: list[Sample] = []
    task.run(task.sample_ids, samples.append)
    waiting = [sample for sample in samples if not sample.graded]
    samples = [sample for sample in samples if sample.graded] + list(task.grade(waiting))
    by_id = {sample.metadata["doc_id"]: sample for sample in samples}
    return Ours(by_id, dict(task.aggregate([by_id[i] for i in sorted(by_id)])))


def responses(row: dict[str, Any]) -> list[Any]:
    return [group[0] for group in row["resps"]]


@pytest.mark.parametrize("name", sorted(set(TASKS) - GENERATIVE - {"wikitext"}))
def test_loglikelihoods_are_those_of_lm_eval(name, reference, ours):
    rows = {row["doc_id"]: row for row in reference["samples"][name]}
    assert sorted(rows) == sorted(ours[name].samples) == list(range(LIMIT))
    for doc_id, row in rows.items():
        mine = [group[0] for group in ours[name].samples[doc_id].metadata["responses"]]
        assert [flag for _, flag in mine] == [bool(flag) for _, flag in responses(row)]
        for (own, _), (theirs, _) in zip(mine, responses(row), strict=True):
            assert own == pytest.approx(float(theirs), abs=TOLERANCE_NATS)


def test_rolling_loglikelihoods_are_those_of_lm_eval(reference, ours):
    for row in reference["samples"]["wikitext"]:
        mine = ours["wikitext"].samples[row["doc_id"]].metadata["responses"][0][0]
        assert mine == pytest.approx(float(responses(row)[0]), rel=1e-6, abs=TOLERANCE_NATS)


@pytest.mark.parametrize("name", sorted(GENERATIVE))
def test_greedy_texts_are_those_of_lm_eval(name, reference, ours):
    rows = {row["doc_id"]: responses(row)[0] for row in reference["samples"][name]}
    assert {doc_id: sample.outputs[0] for doc_id, sample in ours[name].samples.items()} == rows
    assert any(rows.values())


@pytest.mark.parametrize("name", sorted(TASKS))
def test_metrics_and_errors_are_those_of_lm_eval(name, reference, ours):
    theirs = {key: value for key, value in reference["results"][name].items() if "," in key}
    mine = {key: metric for key, metric in ours[name].metrics.items() if key != DISAGREE}
    values = {key.removesuffix(",none"): value for key, value in theirs.items() if "_stderr," not in key}
    assert {key: metric.value for key, metric in mine.items()} == pytest.approx(values, rel=1e-5, abs=1e-9)
    for key, metric in mine.items():
        own_name, _, filter_name = key.partition(",")
        stderr = theirs[f"{own_name}_stderr,{filter_name or 'none'}"]
        if stderr != "N/A":
            assert metric.stderr == pytest.approx(stderr, rel=1e-4, abs=1e-9)
        elif metric.stderr is not None:  # shares of IFEval's checks: lm-eval has no error for them
            assert metric.interval.startswith(("cluster", "wilson", "bootstrap"))
        assert metric.n >= LIMIT if own_name.startswith("inst_level") else metric.n == LIMIT
        assert metric.n_failed == 0


def test_prompts_longer_than_the_context_are_cut_and_counted(ours):
    """Five shots of GSM8K and the three worked examples of BBH do not fit into 1024 tokens here."""
    assert all(sample.dropped_prompt_tokens > 0 for sample in ours["gsm8k"].samples.values())
    assert all(sample.dropped_prompt_tokens == 0 for sample in ours["piqa"].samples.values())


@pytest.mark.parametrize("name", CHATS)
def test_chats_are_those_of_lm_eval(name, reference_lm, engine, data_dir):
    """Template, turns for the shots, no second BOS, no space before a choice."""
    config = reference_config(name, data_dir)
    theirs = lm_eval_says(reference_lm, [config], apply_chat_template=True, fewshot_as_multiturn=True)
    mine = run_ours(name, engine, data_dir, chat="on")
    for row in theirs["samples"][name]:
        sample = mine.samples[row["doc_id"]]
        assert row["arguments"][0][0] in sample.prompt
        if name in GENERATIVE:
            assert sample.outputs[0] == responses(row)[0]
            continue
        found = [group[0][0] for group in sample.metadata["responses"]]
        assert found == pytest.approx([float(ll) for ll, _ in responses(row)], abs=TOLERANCE_NATS)


def test_group_totals_are_those_of_lm_eval(reference_lm, engine, data_dir, monkeypatch):
    """Subjects of unequal size: the weights of the mean and of its error show."""
    from lm_eval.api.group import Group
    from lm_eval.api.task import ConfigurableTask

    from suites.from_lm_eval import index as lm_index
    from suites.from_lm_eval import loading as lm_loading

    names = [f"mmlu_{subject}" for subject in SUBJECTS]
    group = Group.from_config({"group": "few", "task": names, "aggregate_metric_list": [AGGREGATE]})
    for name in names:
        group.add(ConfigurableTask(config=reference_config(name, data_dir)))
    theirs = lm_eval_says(reference_lm, [group], limit=0.03)["results"]["few"]

    file = data_dir / "few.yaml"
    text = json.dumps({"group": "few", "task": names, "aggregate_metric_list": [AGGREGATE]})
    file.write_text(text, encoding="utf-8")
    entries = {**lm_index.index(), "few": lm_index.IndexEntry("GROUP", str(file), ())}
    monkeypatch.setattr(lm_index, "index", lambda: entries)
    monkeypatch.setattr(lm_loading, "_registry", lm_loading._registry.__wrapped__)
    context = TaskContext(engine=engine, strategy=Direct(), data=Datasets(data_dir))
    task = load(parse_task("lm_eval:few"), context)
    sizes = dict(zip(names, (4, 7, 3), strict=True))  # 3 % of 114, 201 and 100, rounded up
    todo = [i for i in task.sample_ids if int(i.split("/")[1]) < sizes[i.split("/")[0]]]
    samples: list[Sample] = []
    task.run(todo, samples.append)
    metrics = task.aggregate(samples)
    assert len(samples) == 14
    assert metrics["acc"].value == pytest.approx(theirs["acc,none"], abs=1e-12)
    # lm-eval takes the subjects' samples for independent; here a subject is a cluster
    right = [sum(s.scores["acc"].value for s in samples if s.metadata["subtask"] == name) for name in names]
    held, total = np.array([*sizes.values()]), metrics["acc"].value
    sums = np.array(right) - held * total
    assert metrics["acc"].stderr == pytest.approx(np.sqrt((sums**2 / (1 - held / 14)).sum()) / 14)
    assert metrics["acc"].interval == "cluster-wilson"
    assert metrics["acc"].n == 14
    assert metrics["acc/macro"].value == pytest.approx((np.array(right) / held).mean())
    assert set(metrics) == {"acc", "acc/macro", *(f"acc/{name}" for name in names)}


def test_simple_evaluate_runs_on_our_engine(engine, data_dir, reference):
    """The other way round: lm-eval's evaluator, our model."""
    from suites.from_lm_eval.entry import HarnessLM

    names = ["arc_challenge", "gsm8k", "wikitext"]
    configs = [reference_config(name, data_dir) for name in names]
    result = lm_eval_says(HarnessLM(engine), configs, bootstrap_iters=0)
    for name in names:
        for key, value in result["results"][name].items():
            if "," in key and "_stderr" not in key:
                assert value == pytest.approx(reference["results"][name][key], rel=1e-5), (name, key)
