"""Memorisation: what is asked, how drops pair, what is left out; and the rewordings that it uses."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from harness.errors import BadPlan, UnknownName
from harness.records import Completion, Output, Sample
from harness.testing import TaskConformance
from suites.gsm8k import data as gsm8k_data
from suites.gsm8k.memorisation import load
from suites.gsm8k.rewording import MEN, WOMEN, in_other_words, with_other_names
from tests.suites.conftest import ref, run_whole

ROWS = [
    ("Ann has 12 pens and gives 5 away. How many are left?", "12-5=<<12-5=7>>7\n#### 7"),
    ("Tom buys 3 boxes of 14 eggs. How many eggs are that?", "3*14=<<3*14=42>>42\n#### 42"),
    ("A train has 40 seats. How many people can sit?", "All of them.\n#### 40"),
    ("Mia runs 6 miles and Bob 9. How many miles is that in total?", "<<6+9=15>>15\n#### 15"),
]


@pytest.fixture
def folder(tmp_path):
    """A mirror with four problems and two shots."""
    place = tmp_path / "openai/gsm8k"
    (place / "main").mkdir(parents=True)
    shots = [("What is 1 + 1?", "#### 2"), ("What is 2 + 2?", "#### 4")]
    for split, rows in (("test", ROWS), ("train", shots)):
        lines = [json.dumps({"question": q, "answer": a}) for q, a in rows]
        (place / "main" / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    card = "---\nconfigs:\n- config_name: main\n  data_files:\n"
    card += "".join(f"  - split: {split}\n    path: main/{split}.jsonl\n" for split in ("test", "train"))
    (place / "README.md").write_text(card + "---\n", encoding="utf-8")
    return tmp_path


def answering(task, monkeypatch, say) -> list[Sample]:
    """Run the task on an engine that says what say(question) gives."""

    def submit(requests: Sequence) -> list[Future]:
        futures: list[Future] = []
        for request in requests:
            prompt = task.engine.tokenizer.decode(request.prompt_ids)
            question = prompt.rsplit("Question: ", 1)[1].removesuffix("\nAnswer:")
            futures.append(Future())
            futures[-1].set_result(Completion((Output(say(question), (1,), "stop"),), output_tokens=1))
        return futures

    monkeypatch.setattr(task, "submit", submit)
    return run_whole(task)


def test_a_memory_falls_on_other_numbers_and_not_on_other_names(context, folder, monkeypatch):
    """It knows the answers by the numbers that it sees, and says the nearest old answer to others."""
    task = load(ref("gsm8k_memorisation", num_fewshot=2), context(folder))
    numbers = {tuple(re.findall(r"\d+", q)): a.rsplit("#### ")[1] for q, a in ROWS}

    def recite(question: str) -> str:
        seen = tuple(re.findall(r"\d+", question))
        if seen in numbers:
            return f"#### {numbers[seen]}"
        return "#### 7" if len(seen) == 2 and "pens" in question else "I do not know."

    samples = answering(task, monkeypatch, recite)
    metrics = task.aggregate(samples)
    assert list(metrics) == task.metric_names
    assert metrics["original_accuracy"].value == 1.0
    # three problems have equations, and their number variants are all answered wrongly, one with the old answer
    drop = metrics["numbers_drop"]
    assert (drop.value, drop.n, drop.interval, drop.higher_is_better) == (1.0, 3, "newcombe", False)
    assert drop.ci95[0] < 1.0 <= drop.ci95[1] + 1e-12
    assert metrics["numbers_recalled"].value == pytest.approx(1 / 3)
    assert (metrics["names_drop"].value, metrics["names_drop"].n) == (0.0, 3)
    assert (metrics["paraphrase_drop"].value, metrics["paraphrase_drop"].n) == (0.0, 4)
    assert metrics["extractors_disagree"].value == 0.0
    assert "numbers: 3 of 4 problems varied; left out 1: the solution has no equations" in task.notes
    assert any(
        note.startswith("names: 3 of 4 problems varied; left out 1: it names nobody") for note in task.notes
    )


def test_a_solver_does_not_fall_and_answers_are_read_in_two_ways(context, folder, monkeypatch):
    task = load(ref("gsm8k_memorisation", num_fewshot=0, variants=2), context(folder))
    answers = {
        question: answer
        for item in task._items.values()
        for question, answer in zip(
            [one["question"] for one in item.doc["asked"]], item.metadata["answers"], strict=True
        )
    }
    samples = answering(
        task, monkeypatch, lambda question: f"#### {answers[question]}\nThat took 99 seconds."
    )
    metrics = task.aggregate(samples)
    assert {metrics[f"{kind}_drop"].value for kind in ("numbers", "names", "paraphrase")} == {0.0}
    assert metrics["numbers_accuracy"].value == 1.0
    assert metrics["extractors_disagree"].value == 1.0
    assert task.n_requests == 4 + 2 * (3 + 3 + 4) == sum(len(sample.outputs) for sample in samples)


def test_a_failed_problem_is_counted_in_the_ways_in_which_it_was_varied(context, folder, monkeypatch):
    task = load(ref("gsm8k_memorisation", num_fewshot=0), context(folder))
    samples = answering(task, monkeypatch, lambda question: "#### 1")
    broken = [
        Sample(s.task, s.sample_id, s.prompt, error="gone", metadata=s.metadata) if s.sample_id == "2" else s
        for s in samples
    ]
    metrics = task.aggregate(broken)
    assert (metrics["numbers_drop"].n, metrics["numbers_drop"].n_failed) == (3, 0)
    assert (metrics["paraphrase_drop"].n, metrics["paraphrase_drop"].n_failed) == (3, 1)


def test_prompts_are_those_of_lm_eval_with_the_first_shots(context, folder):
    task = load(ref("gsm8k_memorisation", num_fewshot=2), context(folder))
    prompt = task.requests(task._items["0"]).prompt
    assert prompt == (
        "Question: What is 1 + 1?\nAnswer: #### 2\n\nQuestion: What is 2 + 2?\nAnswer: #### 4\n\n"
        "Question: Ann has 12 pens and gives 5 away. How many are left?\nAnswer:"
    )


def test_variants_follow_the_seed_and_options_are_checked(context, folder):
    def questions(seed: int) -> list:
        task = load(ref("gsm8k_memorisation"), context(folder, seed=seed))
        return [item.metadata["questions"] for item in task._items.values()]

    assert questions(1) == questions(1) != questions(2)
    with pytest.raises(BadPlan, match="variants is 0; give a whole number from 1 on"):
        load(ref("gsm8k_memorisation", variants=0), context(folder))
    with pytest.raises(BadPlan, match=r"use variants=N for more, not sampling\.n"):
        load(ref("gsm8k_memorisation", n=3), context(folder))
    with pytest.raises(UnknownName, match="variant"):
        load(ref("gsm8k_memorisation", variant=2), context(folder))


class TestOnARealModel(TaskConformance):
    @pytest.fixture
    def task(self, context, mirror):
        return load(ref("gsm8k_memorisation", num_fewshot=1, max_tokens=8), context(mirror, limit=3))


# Rewording


def test_people_are_renamed_everywhere_within_their_pronouns():
    question = "Tom's sister Mary has 3 pens. Tom gives Mary's friend Will 2. How many has she?"
    renamed = with_other_names(question, random.Random(4))
    first, sister = renamed.split("'s sister ")[0], renamed.split("sister ")[1].split()[0]
    assert first in MEN
    assert sister in WOMEN
    assert renamed == question.replace("Tom", first).replace("Mary", sister)
    assert first not in question
    assert sister not in question


@pytest.mark.parametrize(
    "question",
    ["How many pens are 3 and 4?", "Mark and May and April sell 3 roses.", "Ann counts letters of Tom."],
)
def test_words_that_are_also_names_stay(question):
    assert with_other_names(question, random.Random(0)) is None


def test_the_lists_of_names_are_apart_and_hold_no_word():
    assert not set(WOMEN) & set(MEN)
    assert not {"April", "May", "June", "Will", "Mark", "Rose", "Grace", "Bill", "Max"} & {*WOMEN, *MEN}
    assert len(set(WOMEN)) == len(WOMEN)
    assert len(set(MEN)) == len(MEN)


@pytest.mark.mirror
def test_paraphrases_keep_every_number_of_the_question(mirror):
    lines = (mirror / "openai/gsm8k/main/test.jsonl").read_text(encoding="utf-8").splitlines()
    for index, row in enumerate(map(json.loads, lines)):
        said = in_other_words(row["question"], random.Random(index))
        assert said != row["question"]
        assert sorted(re.findall(r"\d+", said)) == sorted(re.findall(r"\d+", row["question"]))
        assert "{" not in said or "{" in row["question"]


# How answers are read


@pytest.mark.parametrize(
    ("answer", "strict", "last"),
    [
        ("#### 18", 18, 18),
        ("It is 9.\n#### 1,080 eggs", 1080, 1080),
        ("#### -5", -5, -5),
        ("####7.50", 7.5, 7.5),
        ("#### $12. Then 99", 12, 99),
        ("the total is 3, no: 4.", None, 4),
        ("", None, None),
        ("no number", None, None),
        ("#### x 5", None, 5),
        ("١٨", None, None),
        ("1,080,", None, 1080),
        ("9" * 5000, None, None),
    ],
)
def test_the_two_ways_of_reading(answer, strict, last):
    assert gsm8k_data.strict(answer) == strict
    if answer.startswith("999"):
        return  # whatever it is, it is soon there
    assert gsm8k_data.last(answer) == last
