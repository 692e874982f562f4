"""ToxiGen: the check of the classifier, by hand, on the mirror, and beside every toxicity figure."""

from __future__ import annotations

import random

import pytest

from harness import registry
from harness.classifiers import choose
from harness.errors import BadColumns, DatasetUnavailable
from harness.records import Sample
from harness.stats.auroc import auroc
from suites.harms import toxigen
from suites.harms.toxigen import checked, statements
from tests.suites.conftest import ref, run_whole

CARD = "---\nconfigs:\n- config_name: {name}\n  data_files:\n  - split: {split}\n    path: {name}/{split}.jsonl\n---\n"


@pytest.fixture(autouse=True)
def _no_detoxify_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))


def write(root, dataset, name, split, lines):
    folder = root / dataset / name
    folder.mkdir(parents=True)
    (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    (folder.parent / "README.md").write_text(CARD.format(name=name, split=split))
    return root


def task_of(context, data_dir, **fields):
    return registry.load("task", "toxigen")(ref("toxigen"), context(data_dir, engine=None, **fields))


def test_statements_of_the_mirror_are_dealt_round_groups_and_labels(mirror, context):
    found = statements(context(mirror).data)
    assert len(found) == 6514
    assert sum(one.hateful for one in found) == 2767
    assert all((one.human > 3) == one.hateful for one in found)
    first = found[:20]
    assert len({(one.group, one.hateful) for one in first}) == 20


def test_figures_by_hand(mirror, context):
    task = task_of(context, mirror)

    def made(index, value, hateful, group):
        metadata = {"hateful": hateful, "group": group, "human": 4.0 if hateful else 1.0}
        return Sample("toxigen", str(index), "?", scores=task._scores(value, hateful), metadata=metadata)

    samples = [
        made(0, 0.9, True, "women"),
        made(1, 0.5, True, "women"),  # the threshold belongs to toxic
        made(2, 0.2, True, "mental dis"),
        made(3, 0.6, False, "women"),
        made(4, 0.1, False, "mental dis"),
    ]
    metrics = task.aggregate(samples)
    assert list(metrics) == [
        "profanity_auroc", "profanity_accuracy", "profanity_recall", "profanity_false_alarms",
        "profanity_auroc_mental_dis", "profanity_auroc_women",
    ]  # fmt: skip
    assert metrics["profanity_auroc"].value == pytest.approx((2 + 1 + 1) / 6)
    assert metrics["profanity_accuracy"].value == 3 / 5
    assert (metrics["profanity_recall"].value, metrics["profanity_recall"].n) == (pytest.approx(2 / 3), 3)
    assert (metrics["profanity_false_alarms"].value, metrics["profanity_false_alarms"].n) == (0.5, 2)
    assert metrics["profanity_auroc_women"].value == 0.5  # 0.9 above 0.6, 0.5 below it
    assert metrics["profanity_auroc_mental_dis"].value == 1.0


def test_figures_of_sixty_statements_are_scikit_learns(mirror, context):
    from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

    rng = random.Random(3)
    task = task_of(context, mirror)
    truth = [rng.random() < 0.4 for _ in range(60)]
    values = [round(min(1.0, max(0.0, rng.gauss(0.6 if hateful else 0.4, 0.25))), 1) for hateful in truth]
    samples = [
        Sample(
            "toxigen", str(i), "?", scores=task._scores(value, hateful),
            metadata={"hateful": hateful, "group": "abc"[i % 3], "human": 4.0 if hateful else 1.0},
        )
        for i, (value, hateful) in enumerate(zip(values, truth, strict=True))
    ]  # fmt: skip
    metrics = task.aggregate(samples)
    called = [value >= 0.5 for value in values]
    assert metrics["profanity_auroc"].value == pytest.approx(roc_auc_score(truth, values))
    assert metrics["profanity_accuracy"].value == pytest.approx(accuracy_score(truth, called))
    assert metrics["profanity_recall"].value == pytest.approx(recall_score(truth, called))
    harmless = recall_score(truth, called, pos_label=False)
    assert metrics["profanity_false_alarms"].value == pytest.approx(1 - harmless)
    for place, group in enumerate("abc"):
        own = roc_auc_score(truth[place::3], values[place::3])
        assert metrics[f"profanity_auroc_{group}"].value == pytest.approx(own)


def test_a_run_asks_the_model_nothing_and_grades_apart(mirror, context):
    task = task_of(context, mirror, limit=60)
    waiting: list[Sample] = []
    task.run(task.sample_ids, waiting.append)
    assert task.n_requests == 0
    assert not any(sample.graded or sample.outputs for sample in waiting)
    graded = list(task_of(context, mirror, limit=60).grade(waiting))
    metric = task.aggregate(graded)["profanity_auroc"]
    values = choose({}).score([sample.prompt for sample in graded])
    assert metric.value == auroc(values, [sample.metadata["hateful"] for sample in graded]).value
    assert metric.ci95[0] < metric.value < metric.ci95[1]


def test_the_figure_stands_beside_every_toxicity_figure(mirror, context):
    for name in ("real_toxicity_prompts", "bold"):
        task = registry.load("task", name)(ref(name, max_tokens=3, n=2), context(mirror, limit=2))
        beside = task.aggregate(run_whole(task))["profanity_classifier_auroc"]
        assert beside == checked(choose({}), task.context.data)
        assert (beside.n, beside.chance) == (toxigen.CHECKED_STATEMENTS, 0.5)
        assert 0.5 < beside.value < 0.7  # people's hateful statements hold few swear words
        assert beside.interval == "delong-logit"


def test_without_statements_a_note_says_so(tmp_path, context, monkeypatch):
    write(
        tmp_path, "AmazonScience/bold", "default", "train",
        ['{"domain": "race", "category": "c", "name": "n", "prompts": ["a b "]}'],
    )  # fmt: skip
    task = registry.load("task", "bold")(ref("bold", max_tokens=3), context(tmp_path))
    metrics = task.aggregate(run_whole(task))
    assert not any("auroc" in name for name in metrics)
    assert any("could not be checked on ToxiGen" in note for note in task.notes)
    with pytest.raises(DatasetUnavailable, match="microsoft/SafeNLP"):
        _ = task_of(context, tmp_path).sample_ids


def test_the_hubs_own_table_serves_as_well(tmp_path, context):
    write(
        tmp_path, "skg/toxigen-data", "annotated", "test",
        [
            '{"text": "a", "toxicity_human": 3.0, "toxicity_ai": 1.0, "target_group": "x"}',
            '{"text": "b", "toxicity_human": 3.4, "toxicity_ai": 1.0, "target_group": "x"}',
        ],
    )  # fmt: skip
    found = statements(context(tmp_path).data)
    assert [(one.text, one.hateful) for one in found] == [("a", False), ("b", True)]


def test_an_unknown_label_is_named(tmp_path, context):
    line = '{"id": 1, "text": "a", "toxicity_score": 1.0, "label": "odd", "target_groups": []}'
    write(tmp_path, "microsoft/SafeNLP", "toxiGen", "train", [line])
    with pytest.raises(BadColumns, match="'odd'"):
        statements(context(tmp_path).data)
