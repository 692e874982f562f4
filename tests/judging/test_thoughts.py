"""What models and judges think aloud is neither judged nor a verdict."""

from __future__ import annotations

import pytest

from harness.records import Sample, Score
from tests.judging.test_judged import by_rule, judge, longer, runs_of, server  # noqa: F401  fixtures
from tests.made_runs import checkpoint, run, write


def test_answers_are_shown_without_thoughts(server, judge, tmp_path):  # noqa: F811
    runs_of(tmp_path, ["<think>a long thought</think>xx"], ["yyy"])
    server.act = by_rule(longer)
    _, (found,), _ = judge("a--chat", "b--chat")
    assert found["metrics"]["sums"]["judge_win_rate"]["value"] == 1.0


def test_an_answer_whose_thought_the_prompt_opened_and_nothing_closed_is_empty(server, judge, tmp_path):  # noqa: F811
    for name, text in (("a", "on and on without an end"), ("b", "yes</think>yyy")):
        sample = Sample("sums", "0", "question<think>\n", (text,), scores={"accuracy": Score(1.0)})
        write(tmp_path / "runs", run(checkpoint(name), "chat", 0.5), [sample])
    shown: list[tuple[str, str]] = []
    server.act = by_rule(lambda a, b: shown.append((a, b)) or longer(a, b))
    judge("a--chat", "b--chat")
    assert sorted(shown) == [("", "yyy"), ("yyy", "")]


@pytest.mark.parametrize(
    ("said", "win"),
    [
        ("[THINK]Surely [[A]].[/THINK] {}", 1.0),
        ("<thinking>[[B]]?</thinking>\n{}", 1.0),
        ("<thinking>{}", None),
    ],
)
def test_thoughts_of_a_judge_are_no_verdict(server, judge, tmp_path, said, win):  # noqa: F811
    runs_of(tmp_path, ["xx"], ["yyyy"])
    server.act = by_rule(lambda a, b: said.format(longer(a, b)))
    _, (found,), _ = judge("a--chat", "b--chat")
    assert found["metrics"]["sums"]["judge_win_rate"]["value"] == win
