"""lm-eval tasks driven sample by sample: scoring, journal, resuming, options, and mistakes in plain words.

Equality with lm-eval itself is tested in test_lm_eval_parity.py. Here answers are known: an engine that recites.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from harness.datasets import Datasets
from harness.errors import (
    BadCheckpoint,
    BadInput,
    BadPlan,
    DatasetUnavailable,
    EngineError,
    UnknownName,
)
from harness.protocols import TaskContext
from harness.records import Completion, GenerateRequest, Output, Request, Sample
from harness.stats.intervals import summarise
from harness.strategies.direct import Direct
from harness.suitefile import parse_task
from suites.from_lm_eval.entry import load
from tests.conftest import byte_tokenizer

Answer = Callable[[str, int], str]
"""(prompt, draw) -> text"""


class Reciter:
    """An engine without a model: texts come from a function, log-likelihoods from the length of the ending."""

    name = "reciter"
    max_length = 100_000

    def __init__(self, answer: Answer = lambda prompt, draw: "", *, chat: bool = False) -> None:
        self.tokenizer = byte_tokenizer(chat=chat)
        self.answer = answer
        self.asked: list[Request] = []

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        self.asked += requests
        futures: list[Future[Completion]] = []
        for request in requests:
            future: Future[Completion] = Future()
            try:
                future.set_result(self._complete(request))
            except EngineError as exc:
                future.set_exception(exc)
            futures.append(future)
        return futures

    def _complete(self, request: Request) -> Completion:
        if isinstance(request, GenerateRequest):
            prompt = self.tokenizer.decode(request.prompt_ids)
            draws = range(request.sampling.n)
            return Completion(
                tuple(Output(self.answer(prompt, i), (1,), "stop") for i in draws), output_tokens=1
            )
        return Completion(loglikelihood=-float(len(request.continuation_ids)), is_greedy=False)


def bind(ref: str, mirror: Path, engine: Reciter | None = None, **fields):
    context = TaskContext(engine=engine, strategy=Direct(), data=Datasets(mirror), **{"limit": 4, **fields})
    return load(parse_task(ref), context)


def run(task, todo: Sequence[str] | None = None) -> list[Sample]:
    samples: list[Sample] = []
    task.run(task.sample_ids if todo is None else todo, samples.append)
    return samples


def gold(mirror: Path) -> dict[str, str]:
    """question of GSM8K -> its worked answer"""
    lines = (mirror / "openai/gsm8k/main/test.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["question"]: row["answer"] for row in map(json.loads, lines)}


def last_question(prompt: str) -> str:
    return prompt.rsplit("Question: ", 1)[1].removesuffix("\nAnswer:")


def test_answers_are_scored_by_both_filters(mirror):
    """Right with its mark; right without; wrong; right again: strict 2 of 4, flexible 3 of 4."""
    answers = gold(mirror)
    order = list(answers)

    def answer(prompt: str, draw: int) -> str:
        question = last_question(prompt)
        place, right = order.index(question), answers[question]
        return {0: right, 1: "It is " + right.split("#### ")[1], 2: "#### 123456789", 3: right}[place]

    engine = Reciter(answer)
    task = bind("lm_eval:gsm8k", mirror, engine)
    samples = run(task)
    metrics = task.aggregate(samples)
    both = ["exact_match,strict-match", "exact_match,flexible-extract"]
    assert list(metrics) == [*both, "extractors_disagree"] == task.metric_names
    assert metrics["extractors_disagree"].value == 0.25
    assert not metrics["extractors_disagree"].higher_is_better
    assert metrics["exact_match,strict-match"].value == 0.5
    assert metrics["exact_match,flexible-extract"].value == 0.75
    assert metrics["exact_match,strict-match"].interval == "wilson"
    # Standard error of the mean of 1, 0, 0, 1: sqrt((4 * 0.25 / 3) / 4)
    assert metrics["exact_match,strict-match"].stderr == pytest.approx((1 / 12) ** 0.5)
    second = next(sample for sample in samples if sample.sample_id == "1")
    assert second.target == answers[order[1]]
    assert second.metadata["extracted"] == {"strict-match": "[invalid]", "flexible-extract": "3"}
    assert second.prompt.count("Question: ") == 6
    request = engine.asked[0]
    assert request.sampling.max_tokens == 256
    assert request.sampling.stop == ("Question:", "</s>", "<|im_end|>", "<|eos|>")
    assert request.sampling.temperature == 0


def test_only_what_is_missing_is_asked(mirror):
    engine = Reciter()
    task = bind("lm_eval:arc_challenge", mirror, engine)
    assert (list(task.sample_ids), task.n_requests) == (["0", "1", "2", "3"], 16)
    assert [sample.sample_id for sample in run(task, ["2"])] == ["2"]
    assert len(engine.asked) == 4


def test_choices_are_compared_and_shown(mirror):
    """The reciter likes short endings: acc picks the shortest answer of each question."""
    task = bind("lm_eval:arc_challenge", mirror, Reciter())
    samples = sorted(run(task), key=lambda sample: sample.sample_id)
    rows = [json.loads(line) for line in (mirror / "allenai/ai2_arc/ARC-Challenge/test.jsonl").open()][:4]
    for sample, row in zip(samples, rows, strict=True):
        texts = row["choices"]["text"]
        gold_text = texts[row["choices"]["label"].index(row["answerKey"])]
        shortest = min(texts, key=lambda text: len(text.encode()))
        assert sample.target == gold_text
        assert sample.outputs == (f" {shortest}",)
        assert sample.scores["acc"].value == float(shortest == gold_text)
        assert sample.prompt.endswith(f"Question: {row['question']}\nAnswer:")


def test_an_engine_failure_is_no_wrong_answer(mirror):
    def answer(prompt: str, draw: int) -> str:
        if "Janet" in last_question(prompt):
            raise EngineError("out of memory at one row")
        return "#### 3"

    task = bind("lm_eval:gsm8k", mirror, Reciter(answer))
    samples = run(task)
    failed = [sample for sample in samples if sample.failed]
    assert [(sample.sample_id, sample.error) for sample in failed] == [("0", "out of memory at one row")]
    metric = task.aggregate(samples)["exact_match,strict-match"]
    assert (metric.n, metric.n_failed) == (3, 1)
    assert metric.value == pytest.approx(1 / 3)  # the second question's answer is 3


def test_metrics_are_there_when_every_sample_failed(mirror):
    def answer(prompt: str, draw: int) -> str:
        raise EngineError("broken")

    task = bind("lm_eval:gsm8k", mirror, Reciter(answer))
    metric = task.aggregate(run(task))["exact_match,strict-match"]
    assert (metric.value, metric.n, metric.n_failed) == (None, 0, 4)


@pytest.mark.parametrize("name", ["truthfulqa_mc2", "ifeval", "gsm8k", "bbh_cot_zeroshot_hyperbaton"])
def test_the_journal_holds_all_that_the_metrics_need(name, mirror):
    """Through JSON and back, the sums are the same: what a resumed run adds up is what an unbroken one does."""
    task = bind(f"lm_eval:{name}", mirror, Reciter(lambda prompt, draw: "No, 3. #### 3"))
    adapter = TypeAdapter(Sample)
    samples = run(task)
    read = [adapter.validate_json(adapter.dump_json(sample)) for sample in samples]
    waiting = [sample for sample in read if not sample.graded]
    assert bool(waiting) == (name == "bbh_cot_zeroshot_hyperbaton")  # its filters are its own
    read = [sample for sample in read if sample.graded] + list(task.grade(waiting))
    fresh = [sample for sample in samples if sample.graded] + list(
        task.grade([sample for sample in samples if not sample.graded])
    )
    assert task.aggregate(read) == task.aggregate(fresh)
    assert all(sample.scores for sample in read)


def test_lists_of_checks_are_summed_over_instructions(mirror):
    """IFEval's instruction level is the share of instructions, not the mean of shares."""
    task = bind("lm_eval:ifeval", mirror, Reciter(lambda prompt, draw: "word " * 400), limit=6)
    samples = run(task)
    checks = [flag for s in samples for flag in s.scores["inst_level_strict_acc"].detail["item"]]
    assert len(checks) > len(samples)
    assert 0 < sum(checks) < len(checks)
    metrics = task.aggregate(samples)
    for name in ("inst_level_strict_acc", "inst_level_loose_acc"):
        checks = [(float(flag), s.sample_id) for s in samples for flag in s.scores[name].detail["item"]]
        expected = summarise(
            [flag for flag, _ in checks],
            n_failed=0,
            higher_is_better=True,
            clusters=[prompt for _, prompt in checks],
        )
        assert metrics[name] == replace(expected, value=metrics[name].value)
        assert metrics[name].value == pytest.approx(expected.value)
        assert metrics[name].interval == "cluster-wilson"
    assert {metrics[f"prompt_level_{how}_acc"].interval for how in ("strict", "loose")} == {"wilson"}


def test_repeats_share_one_request_and_vote(mirror):
    """64 draws of lm-eval's self-consistency task: 24 say 5, 40 say the right thing, the first draw says 5."""
    answers = {question: text.split("#### ")[1] for question, text in gold(mirror).items()}

    def answer(prompt: str, draw: int) -> str:
        question = prompt.rsplit("Q: ", 1)[1].removesuffix("\n\nA:").removesuffix("\nA:")
        right = answers[question.strip()]
        return f"The answer is {'5' if draw < 24 else right}."

    engine = Reciter(answer)
    task = bind("lm_eval:gsm8k_cot_self_consistency", mirror, engine, limit=3)
    samples = run(task)
    assert [request.sampling.n for request in engine.asked] == [64, 64, 64]
    assert engine.asked[0].sampling.temperature > 0
    assert all(len(sample.outputs) == 64 for sample in samples)
    values = {name: metric.value for name, metric in task.aggregate(samples).items()}
    assert values["exact_match,score-first"] == 0.0
    assert values["exact_match,maj@64"] == 1.0


def test_a_group_has_its_parts_and_its_own_metric(mirror):
    task = bind("lm_eval:ai2_arc", mirror, Reciter(), limit=2)
    assert list(task.sample_ids) == ["arc_challenge/0", "arc_challenge/1", "arc_easy/0", "arc_easy/1"]
    metrics = task.aggregate(run(task))
    parts = [metrics["acc/arc_challenge"].value, metrics["acc/arc_easy"].value]
    assert metrics["acc"].value == pytest.approx(sum(parts) / 2)
    assert metrics["acc"].n == 4
    assert next(iter(metrics)) == "acc"
    assert any("unweighted" in note for note in task.notes)  # lm-eval declares no aggregate for this tag


def test_counting_needs_no_engine(mirror):
    task = bind("lm_eval:winogrande", mirror)
    assert (len(task.sample_ids), task.n_requests) == (4, 8)
    assert task.notes == ["4 of 1267 samples"]


def test_fingerprint_follows_what_is_asked_and_not_where_it_lies(mirror, tmp_path):
    first = bind("lm_eval:gsm8k", mirror).fingerprint
    (tmp_path / "openai").symlink_to(mirror / "openai")
    assert bind("lm_eval:gsm8k", tmp_path).fingerprint == first
    others = [
        bind("lm_eval:gsm8k,num_fewshot=1", mirror),
        bind("lm_eval:gsm8k,fewshot_seed=1", mirror),
        bind("lm_eval:gsm8k,max_tokens=9", mirror),
        bind("lm_eval:gsm8k", mirror, limit=3),
        bind("lm_eval:gsm8k", mirror, chat="on"),
    ]
    assert len({first, *(task.fingerprint for task in others)}) == 6


def test_a_changed_row_changes_the_fingerprint(mirror, tmp_path):
    import shutil

    shutil.copytree(mirror / "openai/gsm8k", tmp_path / "openai/gsm8k")
    file = tmp_path / "openai/gsm8k/main/test.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("Janet", "Jane", 1), encoding="utf-8")
    assert bind("lm_eval:gsm8k", tmp_path).fingerprint != bind("lm_eval:gsm8k", mirror).fingerprint


def test_chat_fills_the_checkpoints_own_template(mirror):
    engine = Reciter(chat=True)
    sample = run(bind("lm_eval:gsm8k,num_fewshot=1", mirror, engine, chat="on", limit=1))[0]
    assert sample.prompt.startswith("<|user|>Question: ")
    assert sample.prompt.endswith("\nAnswer:<|end|><|assistant|>")
    assert sample.prompt.count("<|assistant|>") == 2  # the shot is a turn of its own


@pytest.mark.parametrize("has_template", [True, False])
def test_chat_auto_asks_the_tokenizer(has_template, mirror):
    sample = run(bind("lm_eval:ifeval,chat=auto", mirror, Reciter(chat=has_template), limit=1))[0]
    assert sample.prompt.startswith("<|user|>") == has_template


def test_chat_without_a_template_is_refused(mirror):
    with pytest.raises(BadCheckpoint, match="no chat template"):
        run(bind("lm_eval:gsm8k", mirror, Reciter(), chat="on"))


def test_the_users_sampling_goes_before_the_suites_and_the_tasks(mirror):
    engine = Reciter()
    run(
        bind(
            "lm_eval:gsm8k,max_tokens=9,temperature=0.5", mirror, engine, sampling={"max_tokens": 7}, limit=1
        )
    )
    sampling = engine.asked[0].sampling
    assert (sampling.max_tokens, sampling.temperature) == (7, 0.5)


@pytest.mark.parametrize(
    ("kwargs", "repeats", "expected"),
    [
        ({"until": ["\n"]}, 1, (256, 0.0, 1.0, 0, ("\n", "<|eos|>"), 1)),
        ({"until": "x", "do_sample": False, "temperature": 0.7}, 4, (256, 0.0, 1.0, 0, ("x", "<|eos|>"), 1)),
        ({"do_sample": True, "temperature": 0.7, "max_gen_toks": 5}, 4, (5, 0.7, 1.0, 50, ("<|eos|>",), 4)),
        (
            {"do_sample": True, "temperature": 0.7, "top_k": 8, "top_p": 0.9},
            1,
            (256, 0.7, 0.9, 8, ("<|eos|>",), 1),
        ),
        ({"temperature": 0.2, "max_new_tokens": 3}, 2, (3, 0.2, 1.0, 50, ("<|eos|>",), 2)),
    ],
)
def test_generation_settings_are_read_as_by_lm_evals_hf_backend(kwargs, repeats, expected):
    from suites.from_lm_eval.entry import HarnessLM

    found = HarnessLM(Reciter()).sampling(kwargs, repeats)
    assert (found.max_tokens, found.temperature, found.top_p, found.top_k, found.stop, found.n) == expected


def test_a_setting_that_the_engine_does_not_know_is_refused():
    from suites.from_lm_eval.entry import HarnessLM

    with pytest.raises(BadInput, match="'num_beams'"):
        HarnessLM(Reciter()).sampling({"num_beams": 4})


def test_an_empty_context_becomes_one_token():
    from suites.from_lm_eval.entry import HarnessLM

    lm = HarnessLM(Reciter())
    request, moved = lm.encode_pairs([("", "ab"), ("a ", "b")])
    assert request.context_ids == (lm.tokenizer.eos_token_id,)  # no BOS here, so EOS
    assert lm.tokenizer.decode(request.continuation_ids) == "ab"
    assert (lm.tokenizer.decode(moved.context_ids), lm.tokenizer.decode(moved.continuation_ids)) == (
        "a",
        " b",
    )


# Mistakes


def test_an_unknown_task_is_told_before_anything_heavy_is_imported(mirror):
    bind("lm_eval:piqa", mirror)  # the index is built once per installation
    code = (
        "import sys\nfrom harness.errors import UnknownName\nfrom harness.suitefile import parse_task\n"
        "from suites.from_lm_eval.entry import load\n"
        "try:\n    load(parse_task('lm_eval:arc_chalenge'), None)\n"
        "except UnknownName as exc:\n    print(exc)\n"
        "assert not {'torch', 'lm_eval', 'datasets', 'transformers'} & set(sys.modules)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, env=os.environ
    )
    assert "no task, group or tag 'arc_chalenge'; did you mean arc_challenge" in done.stdout


@pytest.mark.parametrize(
    ("ref", "fields", "error", "message"),
    [
        ("lm_eval:gsm8k,num_fewshoot=2", {}, UnknownName, "'num_fewshoot'; did you mean num_fewshot"),
        (
            "lm_eval:gsm8k,max_tokens=hello",
            {},
            BadPlan,
            "lm_eval:gsm8k: max_tokens: input should be a valid integer",
        ),
        (
            "lm_eval:gsm8k,temperature=-1",
            {},
            BadPlan,
            "temperature: input should be greater than or equal to 0",
        ),
        (
            "lm_eval:arc_challenge,num_fewshot=abc",
            {},
            BadPlan,
            "num_fewshot: input should be a valid integer",
        ),
        ("lm_eval:arc_challenge,num_fewshot=-1", {}, BadPlan, "greater than or equal to 0, found -1"),
        (
            "lm_eval:arc_challenge,fewshot_seed=x",
            {},
            BadPlan,
            "fewshot_seed: input should be a valid integer",
        ),
        ("lm_eval:arc_challenge,chat=maybe", {}, BadPlan, "chat"),
        (
            "lm_eval:arc_challenge,allow_unsafe_code=1",
            {},
            BadPlan,
            "allow_unsafe_code: input should be a valid bool",
        ),
        ("lm_eval:humaneval", {}, BadInput, "runs code that the model writes"),
        ("lm_eval:mmmu_val_art", {}, BadInput, "images or sounds"),
        ("lm_eval:boolq", {}, DatasetUnavailable, "--data-dir"),
        ("lm_eval:hellaswag,num_fewshot=2", {}, DatasetUnavailable, "no split 'train'"),
        ("lm_eval:arc_challenge", {"num_fewshot": 5000}, BadInput, "with 5000 shots"),
    ],
)
def test_mistakes_are_told_in_one_line(ref, fields, error, message, mirror):
    with pytest.raises(error) as caught:
        bind(ref, mirror, **fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_package_names_the_pip_command():
    from suites.from_lm_eval.loading import missing_package

    hint = "No module named 'nltk'. Please install via `pip install lm-eval[\"ruler\"]`"
    assert "pip install 'lm-eval[ruler]'" in str(missing_package("niah", ImportError(hint)))
    named = ModuleNotFoundError("No module named 'rouge_score'", name="rouge_score")
    assert "pip install 'rouge_score'" in str(missing_package("x", named))


def test_shots_that_a_task_fixes_at_zero_stay_zero_and_are_told(mirror):
    task = bind("lm_eval:ifeval", mirror, num_fewshot=3)
    assert "lm-eval fixes the shots of this task at 0; num_fewshot 3 is not used" in task.notes


def test_an_unknown_name_is_not_taken_for_a_file(tmp_path, mirror):
    file = tmp_path / "evil.yaml"
    file.write_text("task: evil\ndataset_path: x\ndoc_to_text: !function evil.run\n", encoding="utf-8")
    with pytest.raises(UnknownName):
        bind(f"lm_eval:{file}", mirror)
