"""HaluEval, general: labels, readings as in the official script, an accuracy that always saying No does not win."""

from __future__ import annotations

import json
from itertools import product

import pytest

from harness.errors import BadColumns
from harness.records import Completion, Output, Sample
from suites.truthfulness.halueval import judgement
from suites.truthfulness.halueval_general import load
from tests.suites.conftest import ref, run_whole


def official(answer: str) -> str | None:
    """What the official script does with an answer, step by step.

    https://github.com/RUCAIBox/HaluEval/blob/c0432f6/evaluation/evaluate.py
    """
    answer = answer.replace(".", "")
    yes, no = answer.count("Yes") > 0, answer.count("No") > 0
    failed = (yes and no) or not (yes or no)
    return None if failed else ("Yes" if yes else "No")


def test_readings_are_those_of_the_official_script():
    parts = ["", "Yes", "No", "yes", "Y.es", "N.o", "Not", "None of it", "YES", "Ｎｏ", "Yes.", "\nNo\n"]
    cases = [f"{a} {b}" for a, b in product(parts, parts)]
    assert len(cases) >= 30
    assert [judgement(case) for case in cases] == [official(case) for case in cases]


def answered(task, answers):
    """Samples with the answer that `answers` gives for each item's target."""
    samples = []
    for item in task._items.values():
        completion = Completion(outputs=(Output(answers(item.target), (1,), "stop"),))
        scores = task.score(item, [completion])
        samples.append(Sample(task.name, item.id, "?", scores=scores, metadata=item.metadata))
    return samples


def test_always_no_is_mostly_right_and_worth_nothing(mirror, context):
    task = load(ref("halueval_general"), context(mirror, engine=None))
    metrics = task.aggregate(answered(task, lambda target: "No."))
    assert metrics["accuracy"].value == 0.761  # 761 of the mirror's 1,000 are labelled "no"
    assert metrics["balanced_accuracy"].value == 0.5
    assert metrics["balanced_accuracy"].chance == 0.5
    assert next(iter(metrics)) == "balanced_accuracy"
    assert (metrics["accuracy_on_right"].value, metrics["accuracy_on_hallucinated"].value) == (1.0, 0.0)


def test_figures_by_hand(mirror, context):
    task = load(ref("halueval_general"), context(mirror, engine=None, limit=4))
    assert [item.target for item in task._items.values()] == ["Yes", "No", "Yes", "No"]  # dealt in turn
    samples = answered(task, {"Yes": "Yes", "No": "perhaps"}.get)
    failed = Sample(task.name, "x", "?", error="gone", metadata={"kind": "right"})
    metrics = task.aggregate([*samples, failed])
    assert {name: (m.value, m.n, m.n_failed) for name, m in metrics.items()} == {
        "balanced_accuracy": (0.5, 4, 1),
        "accuracy": (0.5, 4, 1),
        "accuracy_on_right": (0.0, 2, 1),
        "accuracy_on_hallucinated": (1.0, 2, 0),
        "no_judgement": (0.5, 4, 1),
        "extractors_disagree": (0.0, 4, 1),
    }


def test_labels_are_the_data_sets(mirror, context):
    path = mirror / "pminervini" / "HaluEval" / "general" / "data.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    task = load(ref("halueval_general"), context(mirror, engine=None))
    assert len(task.sample_ids) == len(rows)
    for index, row in enumerate(rows):
        item = task._items[str(index)]
        assert (item.target == "Yes") == (row["hallucination"] == "yes")
        assert item.doc == {"query": row["user_query"], "response": row["chatgpt_response"]}


def test_a_label_that_is_none_is_refused(tmp_path, context):
    folder = tmp_path / "pminervini" / "HaluEval" / "general"
    folder.mkdir(parents=True)
    card = "---\nconfigs:\n- config_name: general\n  data_files:\n  - split: data\n    path: general/data.jsonl\n---\n"
    (folder.parent / "README.md").write_text(card, encoding="utf-8")
    row = {"ID": "1", "user_query": "q", "chatgpt_response": "r", "hallucination": "maybe"}
    (folder / "data.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    task = load(ref("halueval_general"), context(tmp_path, engine=None))
    with pytest.raises(BadColumns, match="'maybe'; known: yes, no"):
        _ = task.sample_ids


@pytest.mark.parametrize("chat", ["auto", "off"])
def test_a_run_on_the_mirror(mirror, context, chat):
    task = load(ref("halueval_general"), context(mirror, limit=2, chat=chat))
    samples = run_whole(task)
    assert [s.error for s in samples] == [None] * 2
    assert samples[0].prompt.startswith("<|user|>") is (chat == "auto")
    assert samples[0].prompt.endswith("\nAnswer:") is (chat == "off")
    assert task.aggregate(samples)["accuracy"].n == 2
