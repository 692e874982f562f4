"""harness judge: two runs, one run by a rubric, labelled sets; a real server that judges by a rule the test knows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from harness.cli.main import run as harness
from harness.journal import sample_from_json
from harness.records import Sample, Score
from tests.engines.endpoint_server import Act, answer, running
from tests.made_runs import checkpoint, run, write

PAIR = re.compile(r"<answer_A>\n(.*)\n</answer_A>\n\n<answer_B>\n(.*)\n</answer_B>", re.DOTALL)
ONE = re.compile(r"<answer>\n(.*)\n</answer>", re.DOTALL)
QUIET = ("--set", "energy.idle_s=0", "--judge-option", "backoff_s=0.02", "--judge-option", "retries=0")


def text_of(body: dict) -> str:
    return " ".join(m["content"] for m in body.get("messages", ()))


def by_rule(rule: Callable[[str, str], str]) -> Callable[[str, dict, int], Act | None]:
    """A judge of pairs: the rule sees the answers as they are shown, and gives the whole text of the verdict."""

    def act(path: str, body: dict, number: int) -> Act | None:
        found = PAIR.search(text_of(body))
        return Act(answer(path, body, rule(found[1], found[2]))) if found else None

    return act


def longer(a: str, b: str) -> str:
    return "[[tie]]" if len(a) == len(b) else "[[A]]" if len(a) > len(b) else "[[B]]"


@pytest.fixture
def server():
    with running() as found:
        yield found


@pytest.fixture
def judge(server, tmp_path, monkeypatch, capsys):
    """Runs the command in a folder of its own; returns (exit code, JSON or None, stderr)."""
    monkeypatch.chdir(tmp_path)

    def ask(*arguments: str, spec: str = server.spec):
        code = harness(["judge", *arguments, "--judge", spec, *QUIET, "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out)["judged"] if out else None, err

    return ask


def runs_of(folder, a: list[str], b: list[str], task: str = "sums") -> None:
    for name, texts in (("a", a), ("b", b)):
        samples = [
            Sample(task, str(i), f"question {i}", (text,), target=str(i), scores={"accuracy": Score(1.0)})
            for i, text in enumerate(texts)
        ]
        write(folder / "runs", run(checkpoint(name), "chat", 0.5), samples)


def test_b_wins_where_the_judge_says_so_in_both_orders(server, judge, tmp_path):
    runs_of(tmp_path, ["xx", "xx", "xxxx", "xx", "same"], ["yyyy", "yyy", "y", "yy", "same"])
    server.act = by_rule(longer)
    code, (found,), _ = judge("a--chat", "b--chat")
    assert code == 0
    metrics = found["metrics"]["sums"]
    # won, won, lost, tie by the judge, tie without asking: (1 + 1 + 0 + 0.5 + 0.5) / 5
    assert metrics["judge_win_rate"]["value"] == pytest.approx(0.6)
    assert metrics["judge_ties"]["value"] == pytest.approx(0.4)
    assert metrics["position_inconsistent"]["value"] == 0.0
    assert metrics["judge_prefers_first"]["value"] == pytest.approx(0.5)
    assert metrics["judge_unreadable"]["value"] == 0.0
    assert found["asked"]["questions"] == 8, "identical answers are a tie, and nobody is asked"
    assert found["energy"]["queries"] == 5
    assert {c["provenance"] for c in found["energy"]["components"]} == {"absent:elsewhere"}
    assert (found["judges_itself"], found["runs"]) == (False, ["a--chat", "b--chat"])


def test_a_judge_that_takes_the_first_gives_ties_that_are_counted(server, judge, tmp_path):
    runs_of(tmp_path, ["one", "two"], ["three", "four"])
    server.act = by_rule(lambda a, b: "[[A]]")
    _, (found,), _ = judge("a--chat", "b--chat")
    metrics = found["metrics"]["sums"]
    assert [
        metrics[name]["value"] for name in ("judge_win_rate", "position_inconsistent", "judge_prefers_first")
    ] == [
        0.5,
        1.0,
        1.0,
    ]


def test_the_share_for_the_first_counts_verdicts_of_readable_pairs(server, judge, tmp_path):
    """Four pairs: first twice; one each way; first and tie; first and off-format. Of 2 + 2 + 1 verdicts 2 + 1 + 1 are
    for the first; the last pair is in no figure. By pairs it would be (1 + 0.5 + 1 + 1) / 4."""
    runs_of(tmp_path, ["one", "aa", "tie", "off"], ["uno", "bbb", "eit", "ffo"])

    def rule(a: str, b: str) -> str:
        if "aa" in (a, b):
            return longer(a, b)
        return {"eit": "[[tie]]", "ffo": "I cannot say"}.get(a, "[[A]]")

    server.act = by_rule(rule)
    _, (found,), _ = judge("a--chat", "b--chat")
    metrics = found["metrics"]["sums"]
    assert metrics["judge_unreadable"]["value"] == 0.25
    assert metrics["judge_prefers_first"]["value"] == pytest.approx(4 / 5)
    assert (metrics["judge_prefers_first"]["n"], metrics["judge_prefers_first"]["n_failed"]) == (5, 0)
    assert metrics["judge_prefers_first"]["interval"] == "cluster-wilson"


def test_off_format_verdicts_are_counted_and_not_guessed(server, judge, tmp_path):
    runs_of(tmp_path, ["aa", "aa"], ["b", "bbb"])
    server.act = by_rule(lambda a, b: "B is better, I think" if "bbb" in (a, b) else longer(a, b))
    code, (found,), _ = judge("a--chat", "b--chat")
    metrics = found["metrics"]["sums"]
    assert code == 0, "the judge answered: nothing failed"
    assert (metrics["judge_win_rate"]["value"], metrics["judge_win_rate"]["n"]) == (0.0, 1)
    assert metrics["judge_unreadable"]["value"] == 0.5


def test_what_the_judge_said_is_read_back_and_kept(server, judge, tmp_path):
    runs_of(tmp_path, ["aa"], ["bbb"])
    server.act = by_rule(longer)
    _, (first,), _ = judge("a--chat", "b--chat")
    server.arm()
    _, (again,), _ = judge("a--chat", "b--chat")
    assert server.asked == []
    assert again["metrics"] == first["metrics"]
    assert (again["asked"]["reused"], again["energy"]) == (2, None)
    assert any("2 of 2 answers of the judge adder came from the response cache" in n for n in again["notes"])
    folder = tmp_path / again["folder"]
    (sample,) = [sample_from_json(line) for line in (folder / "verdicts.jsonl").read_bytes().splitlines()]
    assert sample.scores["judge_win_rate"].detail["said"] == ["[[B]]", "[[A]]"]
    assert json.loads((folder / "result.json").read_text())["judge"] == "adder"
    assert judge("a--chat", "b--chat", "--no-cache")[0] == 0
    assert sum("answer_A" in text_of(one.body) for one in server.asked) == 2


def test_a_judge_that_dies_fails_pairs_and_the_same_command_asks_for_the_rest(server, judge, tmp_path):
    runs_of(tmp_path, ["aa", "cc"], ["bbb", "ddd"])
    whole = by_rule(longer)
    server.act = lambda path, body, number: (
        Act({"error": {"message": "gone"}}, 500) if "ddd" in text_of(body) else whole(path, body, number)
    )
    code, (found,), _ = judge("a--chat", "b--chat")
    assert code == 3
    metric = found["metrics"]["sums"]["judge_win_rate"]
    assert (metric["value"], metric["n"], metric["n_failed"], found["n_failed"]) == (1.0, 1, 1, 1)
    server.arm(whole)
    code, (found,), _ = judge("a--chat", "b--chat")
    assert code == 0
    assert found["metrics"]["sums"]["judge_win_rate"]["n"] == 2
    assert sum("answer_A" in text_of(one.body) for one in server.asked) == 2


def test_a_judge_of_length_has_a_controlled_win_rate_nearer_one_half(server, judge, tmp_path):
    # b is longer in 24 of 32 pairs, and the judge sees nothing but length
    short, long = "x" * 10, "x" * 40
    a = [short + "a" * (i % 7) if i % 4 else long + "a" * (i % 7) for i in range(32)]
    b = [long + "b" * (i % 5) if i % 4 else short + "b" * (i % 5) for i in range(32)]
    runs_of(tmp_path, a, b)
    server.act = by_rule(longer)
    _, (found,), _ = judge("a--chat", "b--chat")
    metrics = found["metrics"]["sums"]
    assert metrics["judge_win_rate"]["value"] == 0.75
    assert abs(metrics["judge_lc_win_rate"]["value"] - 0.5) < 0.2


def test_a_run_is_graded_by_a_rubric(server, judge, tmp_path):
    runs_of(tmp_path, ["x", "xxx", "none", "xx"], ["y"] * 4)
    (tmp_path / "r.yaml").write_text("name: length\ntext: How long is it?\nlow: 1\nhigh: 3\n")
    server.act = lambda path, body, number: (
        Act(answer(path, body, "[[?]]" if found[1] == "none" else f"so: [[{len(found[1])}]]"))
        if (found := ONE.search(text_of(body)))
        else None
    )
    code, (found,), _ = judge("a--chat", "--rubric", "r.yaml")
    metric = found["metrics"]["sums"]["judge_length"]
    assert code == 0
    assert (metric["value"], metric["n"], metric["unit"], metric["interval"]) == (2.0, 3, "of 1-3", "t")
    assert found["metrics"]["sums"]["judge_unreadable"]["value"] == 0.25


def labels_file(path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_judge_is_held_against_labelled_pairs(server, judge, tmp_path):
    """The judge of length says B, A, B, B; people said B, A, A and tie: kappa by hand.

    Agreement 2 of 4; by chance 1/4 * 2/4 (A) + 3/4 * 1/4 (B) = 0.3125: (0.5 - 0.3125) / 0.6875.
    """
    people = ["B", "a", "A", "tie"]
    answers = [("x", "xx"), ("xx", "x"), ("x", "xx"), ("x", "xx")]
    rows = [
        {"prompt": f"q{i}", "answer_a": a, "answer_b": b, "label": said}
        for i, ((a, b), said) in enumerate(zip(answers, people, strict=True))
    ]
    server.act = by_rule(longer)
    code, (found,), _ = judge("--labels", labels_file(tmp_path / "set.jsonl", rows))
    assert code == 0
    metrics = found["metrics"]["labels"]
    assert metrics["judge_kappa"]["value"] == pytest.approx(0.1875 / 0.6875)
    assert metrics["judge_kappa"]["ci95"] is not None
    assert (metrics["judge_agreement"]["value"], metrics["judge_agreement"]["interval"]) == (0.5, "wilson")
    assert metrics["position_inconsistent"]["value"] == 0.0


def test_labelled_grades_in_a_csv_beside_a_run(server, judge, tmp_path):
    runs_of(tmp_path, ["x"], ["y"])
    (tmp_path / "r.yaml").write_text("name: length\ntext: How long is it?\nlow: 1\nhigh: 3\n")
    (tmp_path / "set.csv").write_text("prompt,answer,label\nq,x,1\nq,xx,2\nq,xxx,2\n")
    server.act = lambda path, body, number: (
        Act(answer(path, body, str(len(found[1])))) if (found := ONE.search(text_of(body))) else None
    )
    code, found, _ = judge("a--chat", "--rubric", "r.yaml", "--labels", "set.csv")
    assert code == 0
    metrics = found[1]["metrics"]["labels"]
    # judge 1, 2, 3; people 1, 2, 2: agreement 2/3, by chance 1/9 + 2/9
    assert metrics["judge_kappa"]["value"] == pytest.approx((2 / 3 - 1 / 3) / (2 / 3))
    # squared distances: seen 1/3; by chance (0 + 2 + 1 + 0 + 4 + 2) / 9
    assert metrics["judge_kappa_quadratic"]["value"] == pytest.approx(1 - (1 / 3) / (9 / 9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give two runs to compare"),
        (("a--chat",), "give --rubric FILE"),
        (("a--chat", "nosuch"), "no finished run 'nosuch'"),
        (("a--chat", "b--chat", "--tasks", "math"), "no task 'math' in the run; it holds sums"),
        (("--labels", "missing.jsonl"), "no data file"),
        (("--labels", "wrong.jsonl"), "row 2: label 'left' is not A, B or tie"),
        (("--labels", "grades.jsonl"), "no column 'answer_a'"),
    ],
)
def test_a_mistake_is_one_line(judge, tmp_path, arguments, message):
    runs_of(tmp_path, ["x"], ["y"])
    pair = {"prompt": "q", "answer_a": "x", "answer_b": "y", "label": "A"}
    labels_file(tmp_path / "wrong.jsonl", [pair, pair | {"label": "left"}])
    labels_file(tmp_path / "grades.jsonl", [{"prompt": "q", "answer": "x", "label": 3}])
    code, _, err = judge(*arguments)
    assert (code, message in err.splitlines()[-1]) == (2, True), err


def test_another_librarys_judge_cannot_compare_runs(judge, tmp_path):
    runs_of(tmp_path, ["x"], ["y"])
    code, _, err = judge("a--chat", "b--chat", spec="openai/gpt-4o")
    assert (code, "grades its own tasks alone" in err) == (2, True), err


def test_the_text_says_who_judged_whom(server, judge, tmp_path, capsys):
    runs_of(tmp_path, ["aa"], ["bbb"])
    server.act = by_rule(longer)
    assert harness(["judge", "a--chat", "b--chat", "--judge", server.spec, *QUIET]) == 0
    out = capsys.readouterr().out
    assert "judge  adder" in out
    assert "judge_win_rate" in out
    assert "win rates are B's over A" in out
    assert "asked: 2 questions, 0 from the cache" in out


def test_a_tiny_real_model_judges_here(tiny_llama, tmp_path, monkeypatch, capsys):
    """A random model: its verdicts are noise, and every one of them is counted."""
    monkeypatch.chdir(tmp_path)
    runs_of(tmp_path, ["left", "this"], ["right", "that"])
    code = harness(
        ["judge", "a--chat", "b--chat", "--judge", str(tiny_llama), "--set", "energy.idle_s=0", "--json"]
    )
    (found,) = json.loads(capsys.readouterr().out)["judged"]
    assert code == 0
    metrics = found["metrics"]["sums"]
    assert metrics["judge_unreadable"]["value"] == 1.0
    assert metrics["judge_win_rate"]["value"] is None
    assert found["asked"]["output_tokens"] > 0
    assert found["energy"]["output_tokens"] == found["asked"]["output_tokens"]


def test_requests_come_without_the_chat_template(tiny_llama):
    from harness.checkpoints import resolve
    from harness.judging.requests import unwrapper

    unwrap = unwrapper(resolve(str(tiny_llama)))
    assert unwrap("<|user|>Say hi.<|end|><|assistant|>") == "Say hi."
    assert unwrap("no template at all") == "no template at all"


def test_requests_to_a_server_come_as_they_were_put():
    from harness.endpoints import checkpoint_of
    from harness.engines.endpoint_texts import TextTokenizer
    from harness.judging.requests import unwrapper

    turns = [{"role": "user", "content": "Say hi."}]
    rendered = TextTokenizer("x", chat=True).apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True
    )
    assert unwrapper(checkpoint_of("http://127.0.0.1:9/v1#m"))(rendered) == "Say hi."
