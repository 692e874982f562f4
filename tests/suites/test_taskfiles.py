"""Tasks in a Python file that the user names: --tasks path/to/file.py:Class."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import BadInput, UnknownName
from harness.records import Score
from harness.scores import check_scores
from harness.suitefile import adhoc_suite, load_suite
from harness.taskfiles import check_known, code_of, load_task
from tests.suites.conftest import run_whole

DOCS = Path(__file__).parents[2] / "docs" / "own-suites.md"


def fenced(language: str, holding: str) -> str:
    """The block of the documentation that holds a text."""
    blocks = DOCS.read_text("utf-8").split(f"```{language}\n")[1:]
    return next(block.split("```")[0] for block in blocks if holding in block)


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    path = tmp_path / "mytask.py"
    path.write_text(fenced("python", "RequestTask"), "utf-8")
    return path


def test_the_documented_task_has_under_25_lines_and_runs(task_file: Path, context) -> None:
    assert len(task_file.read_text("utf-8").splitlines()) < 25
    (spec,) = adhoc_suite([f"{task_file}:Sums"]).tasks
    check_known(spec.ref)
    task = load_task(spec.ref, context(None, limit=3))
    samples = run_whole(task)
    assert [sample.sample_id for sample in samples] == ["0", "1", "2"]
    assert samples[1].target == "18"
    assert task.aggregate(samples)["accuracy"].n == 3


def test_the_documented_suite_has_under_15_lines_and_loads(tmp_path: Path) -> None:
    text = fenced("yaml", "capitals.jsonl")
    assert len(text.splitlines()) < 15
    (tmp_path / "my.yaml").write_text(text, "utf-8")
    (spec,) = load_suite(str(tmp_path / "my.yaml")).tasks
    assert spec.ref.options["data"] == str(tmp_path / "capitals.jsonl")


def test_a_suite_file_names_a_task_beside_itself(task_file: Path) -> None:
    suite = task_file.with_name("my.yaml")
    suite.write_text("name: mine\ntasks:\n  sums: {task: './mytask.py:Sums', metric: accuracy}\n", "utf-8")
    (spec,) = load_suite(str(suite)).tasks
    assert (spec.ref.provider, spec.ref.name, spec.ref.label) == (str(task_file), "Sums", "sums")


def test_other_code_is_another_run(task_file: Path) -> None:
    (spec,) = adhoc_suite([f"{task_file}:Sums"]).tasks
    before = code_of(spec.ref)
    task_file.write_text(task_file.read_text("utf-8") + "\n# changed\n", "utf-8")
    assert before != code_of(spec.ref)
    assert code_of(adhoc_suite(["latency"]).tasks[0].ref) == []


MISTAKES = [
    ("class Sums:\n    pass\n", "Sumz", UnknownName, "no task in mytask.py 'Sumz'; did you mean Sums"),
    ("import nothing_of_that_name\n", "Sums", BadInput, r"mytask\.py:1: ModuleNotFoundError"),
    ("def broken(:\n", "Sums", BadInput, r"mytask\.py:1: SyntaxError"),
    ("def make(ref, context):\n    return 3 / 0\n", "make", BadInput, r"mytask\.py:2: ZeroDivisionError"),
    ("class Sums:\n    sample_ids = ()\n    def __init__(self, *a): ...\n", "Sums", BadInput, "is no task"),
    ("from harness.tasks import RequestTask\nclass Sums(RequestTask):\n    pass\n", "Sums", BadInput, "abstract"),
    ("import sys\nsys.exit(4)\n", "Sums", BadInput, r"mytask\.py:2: SystemExit: 4"),
    ("def make(ref, context):\n    return 3\n", "make", BadInput, "is no task; make it a subclass"),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_file_that_cannot_be_used_is_named_with_its_line(tmp_path: Path, context, mistake: tuple) -> None:
    code, name, error, message = mistake
    path = tmp_path / "mytask.py"
    path.write_text(code, "utf-8")
    (spec,) = adhoc_suite([f"{path}:{name}"]).tasks
    with pytest.raises(error, match=message):
        load_task(spec.ref, context(None))


ONE_ITEM = """\
from harness.records import Score
from harness.tasks import Item, MetricSpec, RequestTask

class Mine(RequestTask):
    metrics = {"right": MetricSpec()}
    def items(self): return [Item("0", {}, "yes")]
    def requests(self, item): return self.ask("Is it?")
    def score(self, item, completions): return {"right": Score(1.0)}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'return [Item("0", {}, "yes")]',
            "return None",
            r"items\(\) of task 'Mine' returned None; return a list",
        ),
        ('Item("0", {}, "yes")', '{"a": 1}', r"gave \{'a': 1\}; give harness.tasks.Item"),
        ('Item("0", {}, "yes")', 'Item(0, {}, "yes")', "id and target of item 0 must be text"),
        ('Item("0", {}, "yes")', 'Item("0", {}, 5)', "id and target of item '0' must be text"),
        ('[Item("0", {}, "yes")]', '[Item("0", {}, "yes")] * 2', "two items with the id '0'"),
        ('return [Item("0", {}, "yes")]', 'raise KeyError("z")', r"mytask\.py:6: KeyError: 'z'"),
        (
            'return self.ask("Is it?")',
            'return "Is it?"',
            r"requests\(\) returned 'Is it\?'; return self\.ask",
        ),
        ('return self.ask("Is it?")', "return 1 / 0", r"mytask\.py:7: ZeroDivisionError"),
        ('{"right": MetricSpec()}', "{}", "reports no metric"),
        ('{"right": MetricSpec()}', '["right"]', "metrics is no mapping"),
        ('{"right": MetricSpec()}', '{"right": MetricSpec(chance=25)}', "chance=25; give a share, 0 to 1"),
    ],
)
def test_a_task_of_the_wrong_types_is_told_what_is_wanted(tmp_path, context, old, new, message) -> None:
    path = tmp_path / "mytask.py"
    path.write_text(ONE_ITEM.replace(old, new, 1), "utf-8")
    (spec,) = adhoc_suite([f"{path}:Mine"]).tasks
    with pytest.raises(BadInput, match=message) as caught:
        run_whole(load_task(spec.ref, context(None)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        ('{"right": 1.0}', "score() returned 1.0 for 'right'; return Score(...)"),
        ("1.0", "score() returned 1.0; return {'right': Score(1.0)}"),
        ("None", "score() returned None; return {'right': Score(1.0)}"),
        ("{1: Score(1.0)}", "a metric of the name 1; a name is text"),
        ('{"right": Score("1")}', "score() returned Score('1') for 'right'; a value is a number, or None"),
        (
            '{"rihgt": Score(1.0)}',
            "score() returned 'rihgt', which is no metric of the task; did you mean 'right'? metrics: right",
        ),
    ],
)
def test_a_score_that_is_none_fails_its_sample_and_no_other(tmp_path, context, returned, error) -> None:
    good, bad = 'Item("0", {}, "yes")', 'Item("1", {}, "no")'
    code = ONE_ITEM.replace(f"[{good}]", f"[{good}, {bad}]")
    code += f'    def score(self, item, completions):\n        if item.id == "1": return {returned}\n'
    code += '        return {"right": Score(1.0), "more": Score(0.5)}\n'
    (tmp_path / "mytask.py").write_text(code, "utf-8")
    (spec,) = adhoc_suite([f"{tmp_path}/mytask.py:Mine"]).tasks
    task = load_task(spec.ref, context(None))
    right, wrong = run_whole(task)
    assert (right.error, right.scores["right"].value, right.scores["more"].value) == (None, 1.0, 0.5)
    assert error in str(wrong.error)
    assert "\n" not in str(wrong.error)
    metric = task.aggregate([right, wrong])["right"]
    assert (metric.value, metric.n, metric.n_failed) == (1.0, 1, 1)


def test_numbers_of_numpy_and_none_are_scores() -> None:
    numpy = pytest.importorskip("numpy")
    found = check_scores({"a": Score(numpy.float32(0.5)), "b": Score(None, error="no answer")}, ["a"])
    assert found == {"a": Score(0.5), "b": Score(None, error="no answer")}
    assert type(found["a"].value) is float


def test_items_may_come_one_by_one(tmp_path, context) -> None:
    path = tmp_path / "mytask.py"
    path.write_text(ONE_ITEM.replace("return [Item", "yield from [Item", 1), "utf-8")
    (spec,) = adhoc_suite([f"{path}:Mine"]).tasks
    assert load_task(spec.ref, context(None)).sample_ids == ["0"]


@pytest.mark.parametrize("named", ["./nothing.py:Sums", "nothing.py"])
def test_a_file_that_is_not_there_or_has_no_class_is_refused_early(named: str) -> None:
    (spec,) = adhoc_suite([named]).tasks
    with pytest.raises(BadInput, match=r"write --tasks path/to/file\.py:Class"):
        check_known(spec.ref)
