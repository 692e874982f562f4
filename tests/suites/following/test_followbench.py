"""FollowBench: rules by hand, groups, sums, the judge's part, a run on the mirror."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

import pytest

from harness import registry
from harness.errors import BadColumns, EngineError
from harness.records import Sample, Score
from suites.following.constraints import followbench as rules
from suites.following.followbench import consistent_levels, judge_question, read_groups, read_verdict
from tests.suites.conftest import ref, run_whole

POINTS = "\n".join(f"**{i}. Word: one two three four five six seven eight nine ten" for i in range(1, 6))
SUMMARY = "Potter is rich now. The actor is calm. He has made films"
PARAGRAPH = "1. " + "word " * 21 + "end."
VERDICTS = [
    ("E2E", "name[A], food[B]", "name[A], food[B]", 1, True),
    ("E2E", "name[A], food[B] ", "name[A], food[B]", 1, False),
    ("WIKIEVENTS", "b\na", "a\nb\nc", 5, True),
    ("WIKIEVENTS", "b\nd", "a\nb\nc", 1, False),
    ("WIKIEVENTS", "", "a\nb", 1, False),
    ("CONLL2003", "Bonn", "['Britain', 'Bonn']", 2, True),
    ("CONLL2003", "bonn", "['Britain', 'Bonn']", 2, False),
    ("text_editing", "David\n", "David", 1, False),
    ("BBH_logical", "(A) or rather (B).", "(B)", 3, True),
    ("BBH_logical", "(B), not (A)", "(B)", 3, False),
    ("BBH_logical", "B", "(B)", 3, False),
    ("BBH_time", "It is 01/09/1938.", "01/09/1938", 1, True),
    ("BBH_time", "1/9/1938", "01/09/1938", 1, False),
    ("gsm_8k", "$12 and $16: $28", "$28", 1, True),
    ("gsm_8k", "28 dollars", "$28", 1, False),
    ("self_made_space", "on the 14th floor now", "14th floor", 1, True),
    ("self_made_space", "", "14th floor", 1, False),
    ("cnn_dailymail", SUMMARY, "", 5, True),
    ("cnn_dailymail", SUMMARY + ".", "", 5, True),
    ("cnn_dailymail", SUMMARY + ". ", "", 1, False),  # the blank after the last mark is a fourth piece
    ("cnn_dailymail", SUMMARY.replace("calm", "lavish"), "", 3, True),
    ("cnn_dailymail", SUMMARY.replace("calm", "lavish"), "", 4, False),
    ("cnn_dailymail", SUMMARY.replace("has made", "makes"), "", 4, True),
    ("cnn_dailymail", SUMMARY.replace("has made", "makes"), "", 5, False),
    ("cnn_dailymail", SUMMARY.replace("Potter", "Harry"), "", 2, True),
    ("cnn_dailymail", SUMMARY.replace("Potter", "Harry"), "", 3, False),
    ("cnn_dailymail", "", "", 1, False),
    ("xsum", "Police are searching in an operation", "", 5, True),
    ("xsum", "Police searched in an operation", "", 3, True),
    ("xsum", "Police searched in an operation", "", 4, False),
    ("xsum", "One. Two", "", 1, False),
    ("xsum", "word " * 20, "", 1, True),
    ("xsum", "word " * 20, "", 2, False),
    ("samsum", "He does stuff.", "", 5, True),
    ("samsum", "He does stuff, later.", "", 4, True),
    ("samsum", "He does stuff, later.", "", 5, False),
    ("samsum", "He Procrastinates on stuff", "", 4, False),
    ("gigaword", "seven words stand here in a small line", "", 5, True),
    ("gigaword", "Seven words stand here in a small line", "", 2, True),
    ("gigaword", "Seven words stand here in a small line", "", 3, False),
    ("gigaword", "seven  words stand here in a line", "", 1, True),  # two blanks are a word to upstream
    ("gigaword", "a bus stands here in a small line", "", 4, False),
    ("arxiv", "We study activations", "", 5, True),
    ("arxiv", "Here we study activations", "", 3, False),
    ("arxiv", "We study transformer activations", "", 5, False),
]  # fmt: skip
FORMATS = [
    (22, "a.\n\nb.\n\nc.", 2, True),
    (22, "a.\n\nb.", 1, False),
    (22, "a. b. c.\n\nb.\n\nc.", 2, False),
    (22, "\n\n".join([PARAGRAPH] * 3), 2, True),
    (
        22,
        "\n\n".join([PARAGRAPH] * 3),
        3,
        False,
    ),  # the "1" before the first full stop is a sentence of one word
    (22, "a\n\nb\n\nc", 5, False),
    (30, "**bold**", 1, True),
    (30, "plain", 1, False),
    (30, POINTS, 2, True),
    (30, POINTS.replace("**5.", "5."), 2, False),
    (30, "**1:", 2, False),
    (30, "**1. a: **2. b: **3. c: **4. d: **5. e:", 2, True),
    (30, "***1. a: x**2b:**3c:\n**4d: **5e:", 2, True),
]
TEMPLATES = [
    ("{instruction}\nBOT: {answer}", "BOT: Science", True),
    ("{instruction}\nBOT: {answer}", "BOT:Science", False),
    ("{instruction}\nBOT: {answer}", "BOT: ", True),
    ("{instruction}\nBOT: {answer}", "BOT: a\nb", False),
    ("{instruction}\n{{'bot': '{answer}'}}", "{'bot': 'yes'}", True),
    ("{instruction}\n{{'bot': '{answer}'}}", "{'bot': 'yes'", False),
    ("{instruction}\n{{'bot': '{answer}'}}", "{'bot': '}", False),
    ("{instruction}\n[Answer]\n{answer}", "[Answer]\n(.*)", True),
    ("{instruction}\n{answer}", "", True),
]


@pytest.mark.parametrize(("source", "answer", "target", "level", "right"), VERDICTS)
def test_rules_by_source(source, answer, target, level, right):
    rule = rules.rule_of("content", source, 1)
    assert rule(answer, target, level) is right


@pytest.mark.parametrize(("group", "answer", "level", "right"), FORMATS)
def test_rules_of_the_two_formats(group, answer, level, right):
    assert rules.rule_of("format", "koala", group)(answer, "", level) is right


@pytest.mark.parametrize(("target", "answer", "right"), TEMPLATES)
def test_answers_in_the_form_of_the_examples(target, answer, right):
    assert rules.rule_of("example", "samsum", 1)(answer, target, 1) is right


def test_other_groups_have_no_rule():
    assert rules.rule_of("style", "oasst", 22) is None
    assert rules.rule_of("format", "oasst", 1) is None


@pytest.mark.parametrize(
    ("text", "level", "held"),
    [
        ('1) ...\n2) ...\n["YES", "NO"]', 2, [True, False]),
        ("['YES', 'NO', 'YES']\n", 3, [True, False, True]),
        ("[yes, no]", 2, [True, False]),
        ("Verdict: [YES]", 1, [True]),
        ("YES", 1, [True]),
        ("The answer is: NO.", 1, [False]),
        ("YES and NO", 1, None),
        ('["YES", "NO"]', 3, None),
        ('["YES", "MAYBE"]', 2, None),
        ("YES, NO", 2, None),
        ('["YES", "NO"]\nI hope this helps.', 2, None),
        ("", 1, None),
    ],
)
def test_the_judges_last_line(text, level, held):
    assert read_verdict(text, level) == held


def test_the_judge_sees_the_instruction_grow():
    text = judge_question(["Write.", "Write a poem.", "Write a short poem."], "Roses", "content")
    places = [
        text.index(part) for part in ("Write.", "Write a poem.", "Write a short poem.", "Roses", "list of 2")
    ]
    assert places == sorted(places)


def made(group: str, values: Sequence[float | None]) -> list[Sample]:
    return [
        Sample(
            "followbench", f"{group}/{n}", "?",
            scores={} if value is None else {"hard": Score(value)},
            error="died" if value is None else None,
            metadata={"group": group, "level": n},
        )
        for n, value in enumerate(values, start=1)
    ]  # fmt: skip


def test_consistent_levels_stop_at_the_first_gap():
    samples = [*made("a", [1, 1, 0, 1, 1]), *made("b", [1] * 5), *made("c", [0, 1, 1, 1, 1])]
    metric = consistent_levels(samples, "hard")
    assert (metric.value, metric.n, metric.n_failed, metric.unit) == (pytest.approx(7 / 3), 3, 0, "levels")
    broken = consistent_levels([*samples, *made("d", [1, None, 1, 1, 1])], "hard")
    assert (broken.value, broken.n, broken.n_failed) == (metric.value, 3, 1)
    assert consistent_levels(made("e", [1, 1]), "hard").n == 0  # a limit cut the group


def bind(mirror, context, **fields):
    return registry.load("task", "followbench")(ref("followbench", max_tokens=6), context(mirror, **fields))


def test_without_a_judge_only_what_rules_can_check_is_asked(mirror, context):
    task = bind(mirror, context)
    assert len(task.sample_ids) == 70 * 5
    assert task.notes[0].startswith("94 of 164 groups are left out")
    first = [item.metadata["family"] for item in list(task._items.values())[:20:5]]
    assert first == ["content", "situation", "format", "example"]  # style has no rule


def test_a_run_on_the_mirror(mirror, context):
    task = bind(mirror, context, limit=20)
    samples = run_whole(task)
    assert all(s.error is None and set(s.scores) == {"hard_satisfaction"} for s in samples)
    metrics = task.aggregate(samples)
    assert list(metrics) == [
        "hard_satisfaction",
        *(f"hard_satisfaction_level_{n}" for n in range(1, 6)),
        "consistent_levels",
    ]
    assert [metrics[f"hard_satisfaction_level_{n}"].n for n in range(1, 6)] == [4] * 5
    assert metrics["consistent_levels"].n == 4


class Judge:
    """Says YES to every constraint of an even level; is off-format at level 1, dies at level 3."""

    name = "oracle"
    judges_itself = False

    def identity(self):
        return {"name": self.name}

    def submit(self, conversations, max_tokens=256):
        return [self._answer(turns[-1]["content"]) for turns in conversations]

    def _answer(self, text: str) -> Future[str]:
        level = int(text.rsplit("a list of ", 1)[1].split(" ")[0])
        future: Future[str] = Future()
        if level == 3:
            future.set_exception(EngineError("the judge died"))
        else:
            words = ["YES"] * level if level % 2 == 0 else ["YES"] * (level - 1) + ["NO"]
            future.set_result("well" if level == 1 else f"...\n[{', '.join(words)}]")
        return future


def test_the_judge_fills_what_rules_leave_open(mirror, context):
    task = bind(mirror, context, limit=30, judge=Judge())
    assert (
        len(
            registry.load("task", "followbench")(
                ref("followbench"), context(mirror, judge=Judge())
            ).sample_ids
        )
        == 820
    )
    samples = run_whole(task)
    judged = [s for s in samples if not s.metadata["rule"]]
    assert {s.metadata["family"] for s in judged} >= {"style", "format"}
    by_level = {n: [s for s in judged if s.metadata["level"] == n] for n in range(1, 6)}
    assert all(s.scores["judge_unreadable"].value == 1 and len(s.scores) == 1 for s in by_level[1])
    assert all(s.scores["judge_hard_satisfaction"].value == 1 for s in (*by_level[2], *by_level[4]))
    assert all("judge died" in s.scores["judge_hard_satisfaction"].error for s in by_level[3])
    assert {s.scores["judge_soft_satisfaction"].value for s in by_level[5]} == {0.8}
    assert {s.scores["judge_hard_satisfaction"].value for s in by_level[5]} == {0.0}
    metrics = task.aggregate(samples)
    ruled = [s for s in samples if s.metadata["rule"]]
    assert metrics["hard_satisfaction"].n == len(ruled)
    assert metrics["judge_unreadable"].n == 4 * len(by_level[1])
    assert metrics["judge_unreadable"].value == 0.25
    assert metrics["judge_hard_satisfaction"].n_failed == len(by_level[3])
    assert metrics["judge_hard_satisfaction_level_4"].n == 6
    assert any("judged by oracle" in note for note in task.notes)


def test_a_group_without_its_levels_is_named(mirror, context):
    row = {"example_id": 3, "category": "style", "source": "x", "instruction": "a", "target": ""}
    with pytest.raises(BadColumns, match="group 3 of category 'style' has no level 2"):
        read_groups([row | {"level": 0}, row | {"level": 1}])


def test_a_chinese_half_is_left_out(mirror, context):
    task = bind(mirror, context)
    rows = list(task.context.data.rows("YuxinJiang/FollowBench", None, "train"))
    chinese = [row | {"instruction": "请写一首诗。" * 5, "example_id": 900} for row in rows[:6]]

    class Rows:
        data_dir = None

        def rows(self, *args, **kwargs):
            return [*rows, *chinese]

    task.context = replace(task.context, data=Rows())
    assert len(task.items()) == 70 * 5
