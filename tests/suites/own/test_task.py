"""A user's own suite: what a file may say, what is asked, how it is scored, and what is said of a mistake."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from harness.datasets import Datasets
from harness.errors import BadColumns, BadInput, BadPlan, DatasetUnavailable, UserError
from harness.protocols import TaskContext
from harness.records import Completion, GenerateRequest, Output, Request, Sample
from harness.strategies.direct import Direct
from harness.suitefile import load_suite
from suites.own.task import OwnTask
from tests.conftest import byte_tokenizer
from tests.suites.conftest import run_whole

CAPITALS = (
    {"country": "France", "city": "Paris", "continent": "Europe", "wrong": "Lyon"},
    {"country": "Japan", "city": "Tokyo", "continent": "Asia", "wrong": "Osaka"},
    {"country": "Spain", "city": "Madrid", "continent": "Europe", "wrong": "Seville"},
)


class Answering:
    """An engine that reads the prompt and answers by rule; the likelihood of a text is its length, negative."""

    name = "answering"
    max_length = 4096

    def __init__(self, answer: Callable[[str], str] = lambda prompt: "Paris", *, chat: bool = False) -> None:
        self.tokenizer = byte_tokenizer(chat=chat)
        self.answer = answer
        self.asked: list[Request] = []

    def text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids))

    def submit(self, requests: Sequence[Request]) -> list[Future[Completion]]:
        self.asked += requests
        futures = [Future[Completion]() for _ in requests]
        for future, request in zip(futures, requests, strict=True):
            future.set_result(self._completion(request))
        return futures

    def _completion(self, request: Request) -> Completion:
        if not isinstance(request, GenerateRequest):
            return Completion(loglikelihood=-float(len(request.continuation_ids)))
        text = self.answer(self.text(request.prompt_ids))
        return Completion(outputs=(Output(text, (1,), "stop"),) * request.sampling.n)


@pytest.fixture
def suite(tmp_path: Path) -> Callable[..., Path]:
    """Write a data file and a suite file of one task beside each other."""

    def write(task: str, rows: Sequence[dict] = CAPITALS, head: str = "name: capitals") -> Path:
        (tmp_path / "capitals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        indented = "".join(f"    {line.strip()}\n" for line in task.strip().splitlines())
        file = tmp_path / "my.yaml"
        file.write_text(f"{head}\ntasks:\n  capitals:\n    data: capitals.jsonl\n{indented}", "utf-8")
        return file

    return write


def bind(file: Path, engine: Answering | None = None, **context: object) -> OwnTask:
    (spec,) = load_suite(str(file)).tasks
    fields = {"engine": engine or Answering(), "strategy": Direct(), "data": Datasets(None), **context}
    return OwnTask(spec.ref, TaskContext(**fields))  # type: ignore[arg-type]


def values(task: OwnTask, samples: Sequence[Sample]) -> dict[str, float | None]:
    return {name: metric.value for name, metric in task.aggregate(samples).items()}


ASK = """
prompt: "Capital of {country}?"
target: city
"""


# What is asked


def test_a_prompt_is_filled_row_by_row(suite) -> None:
    task = bind(suite(ASK + "scorer: exact_match\nmax_tokens: 7"))
    samples = run_whole(task)
    assert [sample.prompt for sample in samples] == [
        "Capital of France?", "Capital of Japan?", "Capital of Spain?",
    ]  # fmt: skip
    assert [sample.target for sample in samples] == ["Paris", "Tokyo", "Madrid"]
    assert task.engine.asked[0].sampling.max_tokens == 7
    assert values(task, samples) == {"exact_match": pytest.approx(1 / 3)}


def test_csv_and_parquet_are_read_too(suite, tmp_path: Path) -> None:
    import pandas as pd

    file = suite(ASK + "scorer: contains")
    frame = pd.DataFrame(list(CAPITALS))
    frame.to_csv(tmp_path / "capitals.csv", index=False)
    frame.to_parquet(tmp_path / "capitals.parquet")
    text = file.read_text("utf-8")
    prints = {bind(file).fingerprint}
    for suffix in ("csv", "parquet"):
        file.write_text(text.replace("capitals.jsonl", f"capitals.{suffix}"), "utf-8")
        prints.add(bind(file).fingerprint)
    assert len(prints) == 1  # the same rows are the same task, wherever they lie


def test_jinja_sees_lists_and_leaves_empty_cells_out(suite) -> None:
    rows = [
        {"q": "Who?", "hints": ["tall", "old"], "note": None},
        {"q": "When?", "hints": [], "note": "soon"},
    ]
    file = suite(
        """
        prompt: "{{ q }}{% if note %} ({{ note }}){% endif %} Hints: {{ hints | join(', ') }}"
        scorer: {name: regex, pattern: "."}
        """,
        rows,
    )
    assert [sample.prompt for sample in run_whole(bind(file))] == [
        "Who? Hints: tall, old",
        "When? (soon) Hints: ",
    ]


def test_other_braces_stay_what_they_are(suite) -> None:
    file = suite(
        r"""
        prompt: 'Answer as {"city": "..."} or \boxed{} for {country}'
        target: city
        scorer: exact_match
        """
    )
    assert run_whole(bind(file))[0].prompt == r'Answer as {"city": "..."} or \boxed{} for France'


def test_data_are_never_read_as_templates(suite) -> None:
    rows = [{"country": "{city} {{ 7 * 7 }} {% for x in range(9) %}", "city": "x"}]
    assert run_whole(bind(suite(ASK + "scorer: f1", rows)))[0].prompt == f"Capital of {rows[0]['country']}?"


@pytest.mark.parametrize("reach", ["''.__class__.__mro__", "city.__init__.__globals__", "cycler.__init__"])
def test_jinja_cannot_reach_python(suite, reach: str) -> None:
    file = suite(f'prompt: "{{{{ {reach} }}}} {{{{ country }}}}"\ntarget: city\nscorer: f1')
    with pytest.raises(BadColumns, match=r"my\.yaml:5: prompt: row 1 .*cannot be filled"):
        _ = bind(file).sample_ids


def test_a_chat_where_there_is_a_template(suite) -> None:
    file = suite(ASK + "system: You know the {continent}.\nscorer: f1")
    plain, chat = Answering(), Answering(chat=True)
    run_whole(bind(file, plain))
    run_whole(bind(file, chat))
    assert plain.text(plain.asked[0].prompt_ids) == "You know the Europe.\n\nCapital of France?"
    turns = "<|system|>You know the Europe.<|end|><|user|>Capital of France?<|end|><|assistant|>"
    assert chat.text(chat.asked[0].prompt_ids) == turns
    run_whole(bind(suite(ASK + "scorer: f1\nchat: false"), chat))
    assert chat.text(chat.asked[-1].prompt_ids) == "Capital of Spain?"


def test_a_template_without_a_system_turn_gets_it_in_the_users(suite) -> None:
    engine = Answering(chat=True)
    engine.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    )
    task = bind(suite(ASK + "system: Be brief.\nscorer: f1"), engine)
    assert run_whole(task)[0].prompt == "[Be brief.\n\nCapital of France?]"
    assert task.notes == ["the chat template takes no system message: it opens the user's turn instead"]


# How it is scored


SCORED = [
    ("exact_match", "Paris", " Paris\n", 1.0),
    ("exact_match", "Paris", "paris", 0.0),
    ("{name: exact_match, ignore_case: true}", "STRASSE", "straße", 1.0),
    ("exact_match", "Paris", "", 0.0),
    ("contains", "Paris", "It is PARIS, of course.", 1.0),
    ("contains", "Paris", "Lyon", 0.0),
    ("{name: regex, pattern: 'answer is (\\w+)'}", "Paris", "The answer is Paris.", 1.0),
    ("{name: regex, pattern: 'answer is (\\w+)'}", "Paris", "Paris", 0.0),
    ("number", "1234.5", "First 7, then 1,234.5 in all", 1.0),
    ("number", "34", "٣٤", 1.0),
    ("number", "-3", "it is −3", 1.0),
    ("number", "3", "no number here", 0.0),
    ("{name: number, tolerance: 0.01}", "100", "100.9", 1.0),
    ("{name: number, tolerance: 0.001}", "100", "100.9", 0.0),
    ("f1", "the green apple", "An apple, green!", 1.0),
    ("f1", "green apple", "a red apple", 0.5),  # one of two words on both sides
    ("f1", "green apple", "", 0.0),
    ("math", "1/2", "so $x = \\frac{2}{4}$", 1.0),
    ("math", "1/2", "\\boxed{2}", 0.0),
]


@pytest.mark.parametrize(("scorer", "target", "answer", "value"), SCORED)
def test_scorers(suite, scorer: str, target: str, answer: str, value: float) -> None:
    file = suite(f'prompt: "{{q}}"\ntarget: t\nscorer: {scorer}', [{"q": "?", "t": target}])
    (sample,) = run_whole(bind(file, Answering(lambda prompt: answer)))
    assert sample.error is None
    assert next(iter(sample.scores.values())).value == pytest.approx(value)


def test_rouge_is_that_of_the_library(suite) -> None:
    """'the cat sat' in 'the cat': precision 1, recall 2/3, F 0.8; one of two pairs of neighbours: F 2/3."""
    file = suite("prompt: '{q}'\ntarget: t\nscorer: rouge", [{"q": "?", "t": "the cat sat"}])
    (sample,) = run_whole(bind(file, Answering(lambda prompt: "the cat")))
    found = {name: score.value for name, score in sample.scores.items()}
    assert found == pytest.approx({"rougeL": 0.8, "rouge1": 0.8, "rouge2": 2 / 3})


def test_of_several_targets_the_best_counts(suite) -> None:
    file = suite(
        "prompt: '{q}'\ntarget: t\nscorer: [exact_match, f1]", [{"q": "?", "t": ["NYC", "New York"]}]
    )
    (sample,) = run_whole(bind(file, Answering(lambda prompt: "New York")))
    assert (sample.target, sample.scores["exact_match"].value) == ("NYC | New York", 1.0)


def test_the_likeliest_choice(suite) -> None:
    """The shortest choice is the likeliest here: 'Lyon' before 'Paris', 'Tokyo' and 'Osaka' alike."""
    task = bind(suite("prompt: 'It is'\ntarget: city\nchoices: ['{city}', '{wrong}']"))
    samples = run_whole(task)
    assert [sample.scores["accuracy"].value for sample in samples] == [0.0, 1.0, 1.0]
    assert task.n_requests == 6
    assert task.compares_likelihoods
    assert task.engine.text(task.engine.asked[0].continuation_ids) == " Paris"
    metric = task.aggregate(samples)["accuracy"]
    assert (metric.value, metric.chance, metric.interval) == (pytest.approx(2 / 3), 0.5, "wilson")


@pytest.mark.parametrize("target", ["B", "b", 1, "1", "Tokyo"])
def test_the_right_choice_by_letter_number_or_text(suite, target: object) -> None:
    rows = [{"q": "Japan", "options": ["Paris", "Tokyo"], "right": target}]
    file = suite(
        "prompt: '{q}\n{choices}'\ntarget: right\nchoices: options\nscorer: letter".replace("\n{", r" {"),
        rows,
    )
    task = bind(file, Answering(lambda prompt: "The answer is B."))
    (sample,) = run_whole(task)
    assert sample.prompt == "Japan A. Paris\nB. Tokyo"
    assert (sample.target, sample.scores["letter"].value, sample.scores["no_letter"].value) == (
        "Tokyo",
        1.0,
        0.0,
    )


def test_groups_are_reported_and_averaged(suite) -> None:
    task = bind(suite(ASK + "scorer: exact_match\ngroup: continent"))
    found = task.aggregate(run_whole(task))
    assert {name: metric.value for name, metric in found.items()} == {
        "exact_match": pytest.approx(1 / 3),
        "exact_match/macro": 0.25,
        "exact_match/Europe": 0.5,
        "exact_match/Asia": 0.0,
    }
    assert list(found) == list(task.metric_names)
    assert found["exact_match"].interval == "cluster-wilson"


def test_several_answers_of_a_prompt_are_one_score(suite) -> None:
    task = bind(suite(ASK + "scorer: exact_match\nn: 4\ntemperature: 1.0"))
    samples = run_whole(task)
    assert len(samples[0].outputs) == 4
    assert task.aggregate(samples)["exact_match"].n == 3


def test_a_scorer_of_the_users_own(suite, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def starts(answer, row):\n    return row['city'][0] == answer[0]\n", "utf-8"
    )
    file = suite("prompt: '{country}'\nscorer: ./mine.py:starts")
    task = bind(file)
    assert values(task, run_whole(task)) == {"starts": pytest.approx(1 / 3)}
    before = task.fingerprint
    (tmp_path / "mine.py").write_text("def starts(answer, row):\n    return row['nothing']\n", "utf-8")
    other = bind(file)
    assert other.fingerprint != before
    samples = run_whole(other)
    assert [sample.error for sample in samples] == ["scorer: KeyError: 'nothing'"] * 3
    assert other.aggregate(samples)["starts"].n_failed == 3


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        ("None", "returned None; a number is wanted"),
        ("'1'", "returned '1'; a number is wanted"),
        ("float('nan')", "returned nan"),
        ("[1]", r"returned \[1\]"),
        ("__import__('sys').exit(3)", "scorer: SystemExit: 3"),
    ],
)
def test_a_scorer_that_gives_no_number_fails_the_sample(suite, tmp_path, returned: str, error: str) -> None:
    (tmp_path / "mine.py").write_text(f"def mine(answer, row):\n    return {returned}\n", "utf-8")
    samples = run_whole(bind(suite("prompt: '{country}'\nscorer: ./mine.py:mine")))
    assert all(re.search(error, str(sample.error)) for sample in samples)


def test_numbers_of_numpy_are_numbers(suite, tmp_path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef half(a, row): return np.float32(0.5)\n", "utf-8"
    )
    task = bind(suite("prompt: '{country}'\nscorer: ./mine.py:half"))
    assert values(task, run_whole(task)) == {"half": 0.5}


def test_a_scorer_with_other_arguments_is_refused_before_anything_is_asked(suite, tmp_path) -> None:
    (tmp_path / "mine.py").write_text("def mine(answer): return 1\n", "utf-8")
    with pytest.raises(
        BadInput, match=r"my\.yaml:6: .*too many positional arguments; write def mine\(answer, row\)"
    ):
        bind(suite("prompt: '{country}'\nscorer: ./mine.py:mine"))


def test_a_pattern_that_runs_away_fails_its_sample(suite) -> None:
    file = suite("prompt: '{country}'\nscorer: {name: regex, pattern: '(x+x+)+y'}", CAPITALS[:1])
    (sample,) = run_whole(bind(file, Answering(lambda prompt: "x" * 5000)))
    assert "took over 1 s" in str(sample.error)


class Grader:
    """A judge that grades by the length of the answer, and once says nothing that can be read."""

    name = "grader"
    judges_itself = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def identity(self) -> dict:
        return {"name": self.name}

    def submit(self, conversations, max_tokens: int = 256) -> list[Future[str]]:
        futures = []
        for turns in conversations:
            self.asked.append(turns[-1]["content"])
            futures.append(Future[str]())
            readable = "Spain" not in turns[-1]["content"]
            futures[-1].set_result("Good. [[4]]" if readable else "Who knows?")
        return futures


def test_a_judge_grades_by_a_rubric_beside_the_rules(suite) -> None:
    file = suite(ASK + "scorer: [contains, {name: judge, rubric: Is it brief}]")
    judge = Grader()
    task = bind(file, judge=judge)
    found = task.aggregate(run_whole(task))
    assert {name: metric.value for name, metric in found.items()} == {
        "contains": pytest.approx(1 / 3), "judge_rubric": 4.0, "judge_unreadable": pytest.approx(1 / 3),
    }  # fmt: skip
    assert (found["judge_rubric"].n, list(found)) == (2, list(task.metric_names))
    assert "Is it brief" in judge.asked[0]
    assert "(A right answer: Paris)" in judge.asked[0]
    assert "judged by grader" in task.notes[0]


def test_without_a_judge_the_rules_score_and_a_note_says_so(suite) -> None:
    task = bind(suite(ASK + "scorer: [contains, {name: judge, rubric: Is it brief}]"))
    assert list(task.aggregate(run_whole(task))) == ["contains"]
    assert task.notes == ["scorer 'judge' is left out: no --judge was named"]
    with pytest.raises(BadPlan, match=r"my\.yaml:7: scorer 'judge' asks a model; name it with --judge"):
        bind(suite(ASK + "scorer: {name: judge, rubric: Is it brief}"))


# What is said of a mistake


MISTAKES = [
    (ASK + "scorer: exact_mach", BadPlan, r"my\.yaml:7: .*no scorer 'exact_mach'; did you mean 'exact_match'"),
    (ASK + "scorrer: f1", BadPlan, r"my\.yaml:7: unknown key 'tasks\.capitals\.scorrer'; did you mean 'scorer'"),
    (ASK + "scorer: {name: f1, pattern: x}", BadPlan, r"my\.yaml:7: .*scorer 'f1' has no pattern"),
    (ASK + "scorer: {name: regex, pattern: '('}", BadPlan, r"my\.yaml:7: scorer 'regex': pattern '\(' cannot"),
    (ASK, BadPlan, r"my\.yaml:3: .*needs a scorer"),
    ("prompt: 'x'\nscorer: f1", BadPlan, r"needs the right answer; add target"),
    ("scorer: f1\ntarget: city", BadPlan, r"needs a prompt"),
    (ASK + "scorer: choice", BadPlan, r"needs choices"),
    (ASK + "scorer: f1\nmax_tokens: 0", BadPlan, r"my\.yaml:8: .*max_tokens"),
    (ASK + "scorer: f1\ntask: bold", BadPlan, r"not both"),
    ("prompt: '{{ country'\ntarget: city\nscorer: f1", BadPlan, r"my\.yaml:5: .*no valid Jinja"),
    ("prompt: '{contry}'\ntarget: city\nscorer: f1", BadColumns,
     r"my\.yaml:5: prompt: .*capitals\.jsonl has no column 'contry'; did you mean 'country'\?"),
    (ASK.replace("city", "town") + "scorer: f1", BadColumns, r"my\.yaml:6: target: .* no column 'town'"),
    (ASK + "scorer: letter\nchoices: [a, b]", BadPlan, r"put \{choices\} into the prompt"),
    (ASK + "scorer: choice\nchoices: [a, b]", BadColumns, r"row 1 .*'Paris' is none of the 2 choices"),
    (ASK + "scorer: [f1, f1]", BadPlan, r"scorer 'f1' stands twice"),
    (ASK + "scorer: {name: regex, pattern: ''}", BadPlan, r"my\.yaml:7: .*'regex' needs a pattern"),
    (ASK + "scorer: {name: judge, rubric: ' '}", BadPlan, r"my\.yaml:7: .*'judge' needs a rubric"),
    (ASK + "scorer: {name: judge, rubric: no.yaml}", BadPlan, r"my\.yaml:7: no file"),
    (ASK + "scorer: number", BadColumns, r"my\.yaml:6: target: row 1 .*'Paris' holds no number"),
    (ASK + "scorer: f1\nchat: maybe", BadPlan, r"my\.yaml:8: .*chat: give auto, true or false, not 'maybe'"),
    (ASK + "scorer: f1\nstop: ''", BadPlan, r"my\.yaml:8: .*stop"),
    (ASK + "scorer: f1\nchance: 25", BadPlan, r"my\.yaml:8: .*chance: input should be less than or equal to 1"),
    (ASK + "scorer: f1\noptions: {prompt: '{{ x'}", BadPlan, r"task 'capitals': prompt: no valid Jinja"),
    (ASK.replace("city", "''") + "scorer: f1", BadPlan, r"my\.yaml:6: .*target: it is blank"),
    (ASK + "scorer: ./nothing.py:f", BadInput, r"my\.yaml:7: no scorer file"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "error", "message"), MISTAKES)
def test_a_mistake_is_named_with_its_line(suite, task: str, error: type[UserError], message: str) -> None:
    file = suite(task)
    with pytest.raises(error, match=message) as caught:
        _ = bind(file).sample_ids
    assert "\n" not in str(caught.value)


def test_a_row_without_the_column_is_named(suite) -> None:
    rows = [*CAPITALS, {"country": "Kenya", "continent": "Africa"}]
    with pytest.raises(
        BadColumns, match=r"my\.yaml:6: target: row 4 of .*: column 'city' is missing or empty"
    ):
        _ = bind(suite(ASK + "scorer: f1", rows)).sample_ids


def test_an_empty_file_is_named(suite, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"my\.yaml:4: .*capitals\.jsonl holds no rows"):
        _ = bind(suite(ASK + "scorer: f1", [])).sample_ids
    file = suite(ASK + "scorer: f1")
    (tmp_path / "capitals.jsonl").unlink()
    with pytest.raises(DatasetUnavailable, match=r"my\.yaml:4: no data file"):
        _ = bind(file).sample_ids
