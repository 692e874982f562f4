"""IFEval through lm-eval's task against its own functions, called by hand on the benchmark's rows."""

from __future__ import annotations

import json
import random

import pytest

from harness.stats.intervals import summarise
from tests.suites.awkward import DRESSED, EMPTY, REFUSALS, UNSURE
from tests.suites.following import upstream_ifbench
from tests.suites.from_lm_eval.test_entry import Reciter, bind, run

ROWS = 120
MADE = (
    "word " * 400,
    "no commas at all here and nothing is in capitals",
    "LOUD AND CLEAR",
    '"' + "quoted " * 30 + '"',
    "* one\n* two\n* three\n\nP.S. four\n\n<<title>>",
    "<<A title>>\n\nParagraph one.\n\n***\n\nParagraph two.\n\n***\n\n[name] [place] [date] *bright* *dark*",
    '```json\n{"a": 1}\n```',
    "My answer is yes.",
    "Is there anything else I can help with?",
)
ANSWERS = (*EMPTY, *MADE, *REFUSALS, *DRESSED, *UNSURE, "１２ 位 ünïcödé ß 🙂", "no\n" * 300)


@pytest.fixture
def nltk_data(tmp_path_factory, monkeypatch):
    import nltk

    folder = upstream_ifbench.small_nltk_data(tmp_path_factory.mktemp("nltk"))
    monkeypatch.setattr(nltk.data, "path", [str(folder)])


@pytest.mark.mirror
@pytest.mark.usefixtures("nltk_data")
def test_all_four_figures_are_those_of_lm_evals_functions(mirror):
    """120 real prompts, each with another answer: empty, in other scripts, refused, made to follow some constraint."""
    given: dict[str, str] = {}

    def say(prompt: str, draw: int) -> str:
        return given.setdefault(prompt, ANSWERS[len(given) % len(ANSWERS)])

    task = bind("lm_eval:ifeval", mirror, Reciter(say), limit=ROWS)
    samples = run(task)
    from lm_eval.tasks.ifeval import utils as theirs

    rows = [
        json.loads(line) for line in (mirror / "google/IFEval/default/train.jsonl").open(encoding="utf-8")
    ]
    by_prompt = {row["prompt"]: row for row in rows}
    flags: dict[str, list] = {}
    for sample in samples:
        assert sample.error is None, sample.error
        row = by_prompt[sample.prompt]
        kwargs = [{k: v for k, v in given.items() if v is not None} for given in row["kwargs"]]
        random.seed(0)  # two documents ask for letters '#' and '!', for which theirs draws one
        expected = theirs.process_results({**row, "kwargs": kwargs}, [sample.outputs[0]])
        for name, value in expected.items():
            score = sample.scores[name]
            assert (score.detail["item"] if isinstance(value, list) else bool(score.value)) == value, (
                name,
                row,
            )
            flags.setdefault(name, []).append(value)
    assert len(samples) == ROWS
    metrics = task.aggregate(samples)
    for name in ("inst_level_strict_acc", "inst_level_loose_acc"):
        assert metrics[name].value == pytest.approx(theirs.agg_inst_level_acc(flags[name]))
        assert metrics[name].n == sum(map(len, flags[name]))
    for name in ("prompt_level_strict_acc", "prompt_level_loose_acc"):
        own = summarise([float(flag) for flag in flags[name]], n_failed=0, higher_is_better=True)
        assert (metrics[name].value, metrics[name].ci95) == (
            pytest.approx(own.value),
            pytest.approx(own.ci95),
        )
        assert 5 <= sum(flags[name]) <= ROWS - 30


@pytest.mark.mirror
@pytest.mark.usefixtures("nltk_data")
def test_a_letter_that_is_none_is_judged_the_same_every_time(mirror):
    """Document 1122 wants four '#', which lm-eval takes for a letter of its own choice, anew at every call."""
    task = bind("lm_eval:ifeval", mirror, Reciter(lambda prompt, draw: "#a #b #c #d the tweet"), limit=60)
    rows = (mirror / "google/IFEval/default/train.jsonl").read_text(encoding="utf-8").splitlines()
    place = str([json.loads(row)["key"] for row in rows].index(1122))
    scores = []
    for seed in range(6):
        random.seed(seed)
        scores.append(run(task, [place])[0].scores)
    assert all(one == scores[0] for one in scores)
