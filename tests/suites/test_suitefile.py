"""Suite files: what they resolve to, how mistakes in them read, and the arithmetic of the headline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import BadPlan, UnknownName
from harness.protocols import TaskRef
from harness.records import Metric
from harness.suitefile import (
    PROFILES,
    adhoc_suite,
    headline,
    load_suite,
    parse_task,
    split_tasks,
)
from harness.suitespec import SuiteSpec, TaskSpec, with_chance

GOOD = """\
name: mine
version: "2"
description: two tasks
headline: {name: accuracy, higher_is_better: true}
tasks:
  maths: {task: "lm_eval:gsm8k,num_fewshot=3", metric: "exact_match,strict-match", limit: 7, options: {chat: true}}
  science: {task: lm_eval:arc_challenge, metric: acc, chance: 0.25, weight: 2}
profiles:
  quick: {limit: 10, limits: {science: 4}, options: {maths: {num_fewshot: 1}}, notes: [a note]}
"""


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_users_file_resolves_profile_limits_and_options(tmp_path):
    spec = load_suite(write(tmp_path, GOOD), "quick")
    maths, science = spec.tasks
    assert (spec.name, spec.version, spec.headline, spec.limit) == ("mine", "2", "accuracy", 10)
    assert maths.ref == TaskRef("lm_eval", "gsm8k", {"num_fewshot": 1, "chat": True}, "maths")
    assert (maths.limit, science.limit) == (7, 4)
    assert [task.samples(None) for task in spec.tasks] == [7, 4]
    assert [task.samples(20) for task in spec.tasks] == [
        20,
        4,
    ]  # --limit never takes more than a profile's own limit
    assert [task.samples(2) for task in spec.tasks] == [2, 2]
    assert spec.said_sizes(2) == ("quick profile, limited to 2 samples per task",)
    assert spec.said_sizes(20)[0].startswith("quick profile, limited to 20 samples per task, 4 of science (")
    assert (science.chance, science.weight) == (0.25, 2)
    assert spec.sizes[0].startswith("quick profile: first 10 samples per task, 4 of science")
    assert spec.notes == ("a note",)


def test_a_profile_that_is_not_named_leaves_the_suite_as_it_is(tmp_path):
    spec = load_suite(write(tmp_path, GOOD), "full")
    assert [task.limit for task in spec.tasks] == [7, None]
    assert spec.tasks[0].ref.options == {"num_fewshot": 3, "chat": True}
    assert spec.notes == spec.sizes == ()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ["reasoning", "instruction", "hallucination"])
def test_installed_suites_load_in_every_profile(name, profile):
    spec = load_suite(name, profile)
    starter = all(task.ref.name.startswith("starter_") for task in spec.tasks)
    assert starter == (profile == "starter")
    assert any("quick profile" in note for note in spec.sizes) == (profile == "quick")


@pytest.mark.parametrize("name", ["reasoning", "instruction", "hallucination"])
def test_lm_eval_has_the_tasks_that_suites_name(name):
    from suites.from_lm_eval.index import find

    refs = [task.ref for task in load_suite(name, "full").tasks if task.ref.provider == "lm_eval"]
    assert refs
    assert all(find(ref.name) for ref in refs)


def test_a_pattern_stands_for_the_tasks_that_fit_it():
    from suites.from_lm_eval.index import find

    (mgsm,) = (task.ref.name for task in load_suite("reasoning", "full").tasks if task.label == "mgsm")
    languages = {name.removeprefix("mgsm_native_cot_") for name in find(mgsm).tags}
    assert languages == {"bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh"}
    with pytest.raises(UnknownName, match=r"no task, group or tag 'mgsm_nativ_\*'; did you mean mgsm"):
        find("mgsm_nativ_*")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("chance: 0.25", "chanse: 0.25", ":7: unknown key 'tasks.science.chanse'; did you mean 'chance'?"),
        ("limit: 7", "limit: many", ":6: tasks.maths.limit: input should be a valid integer"),
        ("limit: 7", "limit: 0", ":6: tasks.maths.limit: input should be greater than or equal to 1"),
        ("name: mine\n", "", ":1: 'name' is missing; add it"),
        ("  science:", "  maths:", ":7: key 'maths' stands twice (first on line 6); drop one"),
        ("limits: {science: 4}", "limits: {sience: 4}", ":9: no task 'sience'; did you mean science?"),
        ("version:", "version: [", "no valid YAML"),
        ("lm_eval:arc_challenge", "'lm_eval:'", ":7: task 'lm_eval:' names nothing"),
        ("  quick:", "  quik:", "quick"),
        (
            "chance: 0.25",
            "chance: 25",
            ":7: tasks.science.chance: input should be less than or equal to 1, found 25",
        ),
        ("{science: 4}", "{science: 0}", ":9: profiles.quick.limits.science: input should be greater"),
        ("  science:", "  2024:", ":7: tasks.2024.[key]: the key is read as a number; put it in quotes"),
        ("  science:", "  yes:", "the key is read as true or false; put it in quotes"),
        ("  science:", "  '':", ":7: a task named ''; give it a name"),
        ("tasks:\n", "includes: [nothing]\ntasks:\n", ":5: no suite 'nothing'; "),
        ("tasks:\n", "includes: [./no.yaml]\ntasks:\n", "check the path, which is seen from this file"),
        ("description: two", "description: t\0wo", ":3: no valid YAML: the character '\\x00'"),
        ("description: two tasks", "description: !!python/object/apply:os.system [x]", ":3: no valid YAML"),
        ("name: mine", "name: &a [&b [*a, *a], *b]", ":1: name: input should be a valid string, found [["),
    ],
)
def test_a_mistake_is_told_by_path_and_line(tmp_path, old, new, expected):
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(BadPlan) as caught:
        load_suite(path, "quick")
    assert expected in str(caught.value)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


LAUGHS = "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Nine lists of nine lists of nine ...: 43 million values in nine lines."""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "mine.yaml:1: the file is empty; write e.g. name: "),
        (b"# nothing\n", "mine.yaml:1: the file is empty"),
        (b"- a\n", "mine.yaml:1: expected a mapping of keys to values, found a list"),
        (b"name: s\ntasks:\n", "mine.yaml:2: tasks: expected keys and values below it, found nothing"),
        ("name: s".encode("utf-16"), "mine.yaml is no UTF-8 text (byte 0 is wrong); save it as UTF-8"),
        (f"name: [x, {{a: &a [x]}}]\ndescription: {{{LAUGHS.replace(chr(10), ', ')}}}\n".encode(), "name"),
        (b"name: " + b"[" * 5000, "mine.yaml"),
    ],
)
def test_a_file_that_is_no_suite_costs_one_short_line(tmp_path, content, said):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(BadPlan) as caught:
        load_suite(str(path))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("change", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n")])
def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path, change):
    path = tmp_path / "mine.yaml"
    path.write_bytes(change(GOOD).encode())
    assert load_suite(str(path)).name == "mine"


def test_a_name_that_is_nearly_a_suite_or_a_file_is_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, GOOD)
    write(tmp_path, "{}", "rows.jsonl")
    for name, said in [
        ("REASONING", "did you mean reasoning"),
        ("mine", "did you mean mine.yaml"),
        ("rows.jsonl", "a suite file ends in .yaml or .yml"),
        ("", "no suite ''; known: "),
    ]:
        with pytest.raises(UnknownName, match=said):
            load_suite(name)
    with pytest.raises(BadPlan, match="is a folder"):
        load_suite(f"{tmp_path}/")


def test_unknown_suite_and_profile_name_the_nearest():
    with pytest.raises(UnknownName, match="did you mean reasoning"):
        load_suite("reasonning", "quick")
    with pytest.raises(UnknownName, match="did you mean quick"):
        load_suite("reasoning", "quik")
    with pytest.raises(BadPlan, match=r"no file 'nowhere.yaml'"):
        load_suite("./nowhere.yaml", "quick")


def test_included_suites_count_alike_whatever_their_number_of_tasks(tmp_path):
    write(tmp_path, GOOD)
    one = "name: one\nheadline: {name: x}\ntasks:\n  solo: {task: lm_eval:piqa, weight: 5}\n"
    write(tmp_path, one, "one.yaml")
    both = write(
        tmp_path, "name: both\nheadline: {name: x}\nincludes: [./mine.yaml, one.yaml]\n", "both.yaml"
    )
    spec = load_suite(both, "full")
    assert {task.label: task.weight for task in spec.tasks} == pytest.approx(
        {"maths": 1 / 3, "science": 2 / 3, "solo": 1.0}
    )
    assert spec.version == "1, mine 2, one 1"


def test_a_task_beside_the_headline_takes_no_share_of_it(tmp_path):
    text = GOOD.replace("chance: 0.25, weight: 2}", "weight: 2, headline: false}")
    write(tmp_path, text)
    both = write(tmp_path, "name: both\nheadline: {name: x}\nincludes: [mine.yaml]\n", "both.yaml")
    spec = load_suite(both, "full")
    assert [(task.label, task.headline) for task in spec.tasks] == [("maths", True), ("science", False)]
    assert spec.tasks[0].weight == 1.0


def test_a_suite_with_nothing_in_its_headline_is_refused(tmp_path):
    text = GOOD.replace("limit: 7,", "headline: false,").replace("weight: 2}", "headline: false}")
    with pytest.raises(BadPlan, match=r"mine.yaml: every task of suite 'mine'.*headline: false"):
        load_suite(write(tmp_path, text), "full")


def test_suites_that_include_each_other_or_share_a_task_are_refused(tmp_path):
    head = "headline: {name: x}\n"
    write(tmp_path, f"name: a\n{head}includes: [b.yaml]\n", "a.yaml")
    write(tmp_path, f"name: b\n{head}includes: [a.yaml]\n", "b.yaml")
    with pytest.raises(BadPlan, match=r"include each other: a.yaml -> b.yaml -> a.yaml"):
        load_suite(str(tmp_path / "a.yaml"), "full")
    write(tmp_path, GOOD)
    write(
        tmp_path, f"name: c\n{head}includes: [mine.yaml]\ntasks:\n  maths: {{task: lm_eval:piqa}}\n", "c.yaml"
    )
    with pytest.raises(BadPlan, match="'maths' comes from two suites"):
        load_suite(str(tmp_path / "c.yaml"), "full")


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("lm_eval:arc_challenge,inspect:xstest", ["lm_eval:arc_challenge", "inspect:xstest"]),
        (
            "lm_eval:arc_challenge,num_fewshot=0,inspect:xstest",
            ["lm_eval:arc_challenge,num_fewshot=0", "inspect:xstest"],
        ),
        (" a , b,k=v,l=w ", ["a", "b,k=v,l=w"]),
        ("", []),
    ],
)
def test_a_comma_list_is_cut_before_tasks_not_before_options(text, pieces):
    assert split_tasks(text) == pieces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("halueval_qa", TaskRef("", "halueval_qa", {}, "halueval_qa")),
        ("lm_eval:gsm8k,num_fewshot=0", TaskRef("lm_eval", "gsm8k", {"num_fewshot": 0}, "gsm8k")),
        (
            "inspect:inspect_evals/xstest,chat=true,t=0.5,s=a=b",
            TaskRef(
                "inspect",
                "inspect_evals/xstest",
                {"chat": True, "t": 0.5, "s": "a=b"},
                "inspect_evals/xstest",
            ),
        ),
    ],
)
def test_task_names_are_read_with_their_options(text, expected):
    assert parse_task(text) == expected


@pytest.mark.parametrize("text", ["", "lm_eval:", ":gsm8k", "lm_eval:gsm8k,five", "lm_eval:gsm8k,=5"])
def test_a_task_name_that_names_nothing_is_refused(text):
    with pytest.raises(BadPlan):
        parse_task(text)


def test_tasks_named_by_hand_make_a_suite():
    spec = adhoc_suite(["lm_eval:piqa", "halueval_qa"])
    assert [task.label for task in spec.tasks] == ["piqa", "halueval_qa"]
    with pytest.raises(BadPlan, match="'piqa' is named twice"):
        adhoc_suite(["lm_eval:piqa", "lm_eval:piqa,num_fewshot=1"])


# The headline


def suite(*tasks: TaskSpec, higher: bool | None = True) -> SuiteSpec:
    return SuiteSpec("s", "1", "", "full", "mean", higher, tasks)


def task(label: str, **fields) -> TaskSpec:
    return TaskSpec(label, TaskRef("", label, {}, label), **fields)


def metric(value: float | None, stderr: float | None = None, **fields) -> Metric:
    return replace(Metric(value, 100, 0, True, stderr), **fields)


def test_one_task_gives_its_own_value_and_interval():
    own = metric(0.3, 0.0458, ci95=(0.219, 0.396), interval="wilson")
    found = headline(suite(task("a", metric="acc")), {"a": {"acc": own}})
    assert (found.value, found.stderr) == (0.3, 0.0458)
    assert found.ci95 == pytest.approx((0.219, 0.396))
    assert (found.n, found.n_failed, found.reason) == (100, 0, None)


def test_errors_of_independent_tasks_add_in_squares():
    """Mean of 0.5 ± 0.03 and 0.7 ± 0.04: 0.6 ± 0.05 / 2."""
    metrics = {"a": {"acc": metric(0.5, 0.03)}, "b": {"acc": metric(0.7, 0.04)}}
    found = headline(suite(task("a"), task("b")), metrics)
    assert found.value == pytest.approx(0.6)
    assert found.stderr == pytest.approx(0.025)
    assert found.ci95 == pytest.approx((0.6 - 1.959964 * 0.025, 0.6 + 1.959964 * 0.025))
    assert found.n == 200


def test_asymmetric_intervals_join_side_by_side():
    """Downwards 0.3 and 0.4 make 0.5 / 2, upwards 0.05 and 0.12 make 0.13 / 2 (MOVER)."""
    metrics = {"a": {"x": metric(0.6, ci95=(0.3, 0.65))}, "b": {"x": metric(0.8, ci95=(0.4, 0.92))}}
    assert headline(suite(task("a"), task("b")), metrics).ci95 == pytest.approx((0.7 - 0.25, 0.7 + 0.065))


def test_a_suite_that_names_no_direction_goes_the_way_of_its_metrics():
    drop = metric(0.704, 0.1, ci95=(0.478, 0.841), higher_is_better=False)
    below = metric(-0.2, 0.1, ci95=(-0.4, 0.0), higher_is_better=False)
    alone = headline(suite(task("a"), higher=None), {"a": {"numbers_drop": drop}})
    assert (alone.value, alone.ci95, alone.higher_is_better) == (0.704, (0.478, 0.841), False)
    both = headline(suite(task("a"), task("b"), higher=None), {"a": {"drop": drop}, "b": {"drop": below}})
    assert both.value == pytest.approx(0.252)
    assert not both.higher_is_better
    mixed = headline(
        suite(task("a"), task("b"), higher=None), {"a": {"drop": drop}, "b": {"acc": metric(0.5)}}
    )
    assert mixed.value == pytest.approx((1 - 0.704 + 0.5) / 2)
    assert mixed.higher_is_better
    assert adhoc_suite(["calibration"]).higher_is_better is None


def test_weights_and_directions():
    """0.9 three times and a toxicity of 0.1, which counts as 0.9 too: 0.9; the other way round 0.1."""
    toxic = metric(0.1, 0.02, ci95=(0.05, 0.2), higher_is_better=False)
    metrics = {"good": {"acc": metric(0.8, 0.01, ci95=(0.7, 0.85))}, "bad": {"tox": toxic}}
    up = headline(suite(task("good", weight=3), task("bad")), metrics)
    assert up.value == pytest.approx((3 * 0.8 + 0.9) / 4)
    assert up.ci95 is not None
    assert up.ci95[0] < up.value < up.ci95[1]
    down = headline(suite(task("good", weight=3), task("bad"), higher=False), metrics)
    assert down.value == pytest.approx(1 - up.value)
    assert down.ci95 == pytest.approx((1 - up.ci95[1], 1 - up.ci95[0]))


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"a": {"acc": metric(0.5)}, "b": {}}, "task 'b' reports no metric"),
        ({"a": {"acc": metric(0.5)}}, "task 'b' reports no metric"),
        ({"a": {"f1": metric(0.5)}, "b": {"x": metric(1.0)}}, "task 'a' has no metric 'acc'; it has f1"),
        (
            {"a": {"acc": metric(None, n=0, n_failed=9)}, "b": {"x": metric(1.0)}},
            "task 'a' could not be scored (9 samples failed, 0 scored)",
        ),
        ({"a": {"acc": metric(float("nan"))}, "b": {"x": metric(1.0)}}, "task 'a' could not be scored"),
        (
            {"a": {"acc": metric(0.5)}, "b": {"ms": metric(12.0, higher_is_better=False, unit="ms")}},
            "task 'b' points the other way and is no share of [0, 1]",
        ),
    ],
)
def test_no_task_is_dropped_in_silence(metrics, reason):
    found = headline(suite(task("a", metric="acc"), task("b")), metrics)
    assert found.value is None
    assert found.ci95 is None
    assert found.reason is not None
    assert found.reason.startswith(reason)


def test_what_stands_beside_the_headline_does_not_move_it():
    metrics = {"a": {"acc": metric(0.5, 0.03)}, "b": {"ms": metric(12.0, unit="ms")}, "c": {}}
    found = headline(suite(task("a"), task("b", headline=False), task("c", headline=False)), metrics)
    assert (found.value, found.stderr, found.n) == (0.5, 0.03, 100)


def test_a_suite_gives_the_score_of_guessing_to_the_main_metric():
    metrics = {"a": {"acc": metric(0.5), "f1": metric(0.4)}, "b": {"acc": metric(0.5, chance=0.1)}, "c": {}}
    tasks = [task("a", metric="acc", chance=0.25), task("b"), task("c", chance=0.5)]
    found = with_chance(suite(*tasks), metrics)
    assert [found["a"]["acc"].chance, found["a"]["f1"].chance, found["b"]["acc"].chance] == [0.25, None, 0.1]
    assert metrics["a"]["acc"].chance is None


def test_a_headline_says_which_metrics_its_tasks_chose():
    from harness.protocols import TaskRef
    from harness.suitespec import SuiteSpec, TaskSpec, headline_name

    pinned = TaskSpec("a", TaskRef("", "a", {}, "a"), metric="acc")
    left = TaskSpec("b", TaskRef("", "b", {}, "b"))
    spec = SuiteSpec("toxicity", "1", "", "quick", "toxicity", False, (pinned, left))
    assert headline_name(spec, {"a": "acc", "b": "profanity_rate"}) == "toxicity: profanity_rate"
    assert (
        headline_name(SuiteSpec("x", "1", "", "quick", "accuracy", True, (pinned,)), {"a": "acc"})
        == "accuracy"
    )
