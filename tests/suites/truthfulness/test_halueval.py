"""HaluEval QA: the official reading of an answer, the seeded choice, the prompt as published."""

from __future__ import annotations

import re

import pytest

from harness import registry
from harness.records import Completion, Output, Sample, Score
from suites.truthfulness.halueval import first_word, judgement
from tests.suites.awkward import EMPTY, SHORT
from tests.suites.conftest import ref, run_whole


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes", "Yes"),
        ("No", "No"),
        ("Yes.", "Yes"),
        (" No.", "No"),
        ("Yes, it does contain hallucination.", "Yes"),
        ("The answer is No", "No"),
        ("Yes and No", None),
        ("", None),
        ("maybe", None),
        ("yes", None),  # case counts in the official script
        ("NO", None),
        ("Not sure", "No"),  # and so does the inside of words
        ("Nothing, Yes", None),
        ("Y.es", "Yes"),  # full stops go first
    ],
)
def test_judgements_as_in_the_official_script(answer, expected):
    assert judgement(answer) == expected


def official(answer: str) -> str | None:
    """The reading of the official script in a form of our own: the words are looked for once full stops are gone.

    https://github.com/RUCAIBox/HaluEval/blob/c0432f6/evaluation/evaluate.py ; it is on no package registry.
    """
    said = {word for word in ("Yes", "No") if re.search(word, "".join(answer.split(".")))}
    return said.pop() if len(said) == 1 else None


def test_awkward_answers_are_read_as_in_the_official_script():
    """Nothing, other scripts and languages, refusals, both words, words inside of words, markdown."""
    assert [judgement(answer) for answer in SHORT] == [official(answer) for answer in SHORT]
    assert len(SHORT) >= 300
    assert [sum(official(answer) == said for answer in SHORT) >= 5 for said in ("Yes", "No")] == [True, True]
    assert {judgement(answer) for answer in (*EMPTY, "Ｙｅｓ", "はい", "I cannot tell.")} == {None}


def test_thoughts_before_the_answer_are_not_read(mirror, context):
    task = load(context, mirror, engine=None)
    item = next(i for i in task._items.values() if i.target == "Yes")

    def value(text):
        return task.score(item, [Completion(outputs=(Output(text, (1,), "stop"),))])["accuracy"].value

    assert value("<think>Yes or No? No, I think.</think>Yes") == 1.0
    assert value("<think>Yes") == 0.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("yes", "Yes"),
        ("NO.", "No"),
        ("Nothing, yes", "Yes"),
        ("Not sure", None),
        ("", None),
        ("No; yes", "No"),
    ],
)
def test_a_laxer_reading_takes_the_first_word(answer, expected):
    assert first_word(answer) == expected


def load(context, mirror, **fields):
    return registry.load("task", "halueval_qa")(ref("halueval_qa"), context(mirror, **fields))


def test_which_answer_is_shown_depends_on_seed_and_row_alone(mirror, context):
    def shown(**fields):
        return [item.target for item in load(context, mirror, **fields)._items.values()]

    assert shown() == shown()
    assert shown(limit=10) == shown()[:10]
    assert shown(seed=1) != shown()
    assert 450 < shown().count("Yes") < 550  # of 1,000; 50 is more than 3 standard deviations
    items = load(context, mirror)._items.values()
    rows = load(context, mirror).context.data.rows("pminervini/HaluEval", "qa", "data")
    for item, row in zip(items, rows, strict=True):
        assert item.doc["answer"] == row["hallucinated_answer" if item.target == "Yes" else "right_answer"]


def test_the_prompt_is_the_published_one(mirror, context):
    task = load(context, mirror)
    item = task._items["0"]
    prompt = task.requests(item).prompt
    assert prompt.startswith("<|system|>You are a huallucination detector. You MUST determine")
    assert "<|user|>I want you act as an answer judge. Given a question" in prompt
    ending = (
        'MUST be \\"Yes\\" or \\"No\\"".\n\n#Question#: Which magazine was started first Arthur\'s Magazine or '
        f"First for Women?\n#Answer#: {item.doc['answer']}\n#Your Judgement#: <|end|><|assistant|>"
    )
    assert prompt.endswith(ending)
    plain = load(context, mirror, chat="off").requests(item)
    assert plain.prompt.endswith("\n#Your Judgement#:")
    assert plain.requests[0].sampling.stop == ("\n",)


def test_a_template_without_system_turn_gets_it_in_the_users(mirror, context, tiny_engine, monkeypatch):
    template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<|user|>{{ m['content'] }}<|end|>{% endfor %}<|assistant|>"
    )
    monkeypatch.setattr(tiny_engine.tokenizer, "chat_template", template)
    task = load(context, mirror)
    for name in ("0", "1"):
        prompt = task.requests(task._items[name]).prompt
        assert prompt.startswith("<|user|>You are a huallucination detector.")
    assert [note for note in task.notes if "system message" in note] == [task.notes[-1]]


def test_metrics_by_hand(mirror, context):
    task = load(context, mirror, engine=None)

    def sample(index, target, answer):
        item = next(i for i in task._items.values() if i.target == target)
        completion = Completion(outputs=(Output(answer, (1,), "stop"),))
        scores = task.score(item, [completion])
        return Sample("halueval_qa", str(index), "?", scores=scores, metadata=item.metadata)

    answers = [("Yes", "Yes"), ("Yes", "No"), ("Yes", "Yes."), ("No", "No"), ("No", "perhaps")]
    samples = [sample(i, target, answer) for i, (target, answer) in enumerate(answers)]
    failed = Sample("halueval_qa", "x", "?", error="gone", metadata={"kind": "right"})
    metrics = task.aggregate([*samples, failed])
    assert {name: round(m.value, 4) for name, m in metrics.items()} == {
        "accuracy": 0.6,
        "accuracy_on_right": 0.5,
        "accuracy_on_hallucinated": 0.6667,
        "no_judgement": 0.2,
        "extractors_disagree": 0.0,
    }
    assert [m.n_failed for m in metrics.values()] == [1, 1, 0, 1, 1]
    assert metrics["accuracy"].chance == 0.5
    assert samples[4].scores["accuracy"] == Score(0.0, detail=[None])


def test_a_run_on_the_mirror(mirror, context):
    task = load(context, mirror, limit=3)
    samples = run_whole(task)
    assert [s.error for s in samples] == [None] * 3
    metrics = task.aggregate(samples)
    right = [judgement(s.outputs[0]) == s.target for s in samples]
    assert metrics["accuracy"].value == sum(right) / 3
